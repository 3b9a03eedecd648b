"""Slices are those of the original script, byte for byte; bad cases are named and stop no other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from aespa.errors import DataError
from aespa.prepare.mbhseg import REPORT, process_mbhseg, windowed_bytes
from medshared.volumes import write_volume


def read(path):
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def written(out):
    return {str(p.relative_to(out)): p for p in sorted(out.glob("MBHSeg-*/**/*")) if p.is_file()}


def failures(out):
    return {each["item"]: each["message"] for each in json.loads((out / REPORT).read_text())["failed"]}


@pytest.fixture(scope="module")
def processed(golden_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("processed")
    assert process_mbhseg(golden_folder / "fixture/MBHSeg", out) == 0
    return out


@pytest.fixture
def raw(tmp_path):
    """One case of 6 x 5 x 4 voxels with two raters; the second slice is outlined by the first."""
    affine = np.diag([-0.5, 0.5, 5.0, 1.0])
    labels = np.zeros((6, 5, 4), np.int16)
    labels[2, 3, 1] = 4
    case = tmp_path / "raw/train/case"
    write_volume(case / "image.nii.gz", np.arange(120).reshape(6, 5, 4).astype(np.int16), affine)
    write_volume(case / "label_1.nii.gz", labels, affine)
    write_volume(case / "label_2.nii.gz", labels * 0, affine)
    shutil.copytree(case, tmp_path / "raw/train/good")
    return tmp_path / "raw", case, affine, labels


def test_all_files_are_those_of_the_original(processed, golden_json):
    golden, files = golden_json("process_mbhseg_files"), written(processed)
    assert sorted(files) == sorted(golden)
    for name, expected in golden.items():
        array = read(files[name])
        numbers = array.astype(np.int64)
        assert list(array.shape) == expected["shape"]
        assert str(array.dtype) == expected["dtype"]
        assert int(numbers.sum()) == expected["sum"]
        assert int((numbers**2).sum()) == expected["sum_squares"]


def test_pixels_are_those_of_the_original(processed, golden_npz):
    golden = golden_npz("process_mbhseg")
    compared = 0
    for key, expected in golden.items():
        if "|" in key:
            assert np.array_equal(read(processed / key.replace("|", "/")), expected), key
            compared += 1
    assert compared > 30
    assert np.array_equal(windowed_bytes(golden["hu"], 0, 80), golden["windowed_uint8"])


def test_another_window_gives_other_pictures(raw, tmp_path):
    source = raw[0]
    assert process_mbhseg(source, tmp_path / "out", level=60, width=120) == 0
    picture = read(tmp_path / "out/MBHSeg-Binary/train/imgs/case/slice_1.png")
    hu = np.arange(120).reshape(6, 5, 4)[:, :, 1]
    assert np.array_equal(picture, np.floor(hu / np.float32(120) * 255))
    with pytest.raises(DataError, match="width"):
        process_mbhseg(source, tmp_path / "out", width=0)


def test_a_finished_case_is_not_made_again_unless_it_changed(raw, tmp_path):
    source, case, affine, labels = raw
    out = tmp_path / "out"
    assert process_mbhseg(source, out, jobs=2) == 0
    first = {name: path.stat().st_mtime_ns for name, path in written(out).items()}
    assert len(first) == 2 * 2 * 3

    assert process_mbhseg(source, out) == 0
    assert {name: path.stat().st_mtime_ns for name, path in written(out).items()} == first

    shutil.rmtree(out / "MBHSeg-Multi/train/gt/good")  # removed by hand
    labels[1, 1, 3] = 2
    write_volume(case / "label_2.nii.gz", labels, affine)
    assert process_mbhseg(source, out) == 0
    files = written(out)
    assert "MBHSeg-Multi/train/gt/good/slice_1_r1.npy" in files
    assert read(files["MBHSeg-Multi/train/gt/case/slice_3_r2.npy"])[1, 1].tolist() == [0, 0, 255, 0, 0, 0]
    assert read(files["MBHSeg-Binary/train/gt/case/slice_3_r1.npy"]).sum() == 0

    write_volume(case / "label_1.nii.gz", labels * 0, affine)
    write_volume(case / "label_2.nii.gz", labels * 0, affine)
    assert process_mbhseg(source, out, overwrite=True) == 0
    assert not any("/case/" in name for name in written(out))


def test_nothing_half_written_is_left_when_writing_fails(raw, tmp_path, monkeypatch):
    calls = []

    def fails(path, data):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr("aespa.prepare.mbhseg.write_bytes", fails)
    out = tmp_path / "out"
    assert process_mbhseg(raw[0], out) == 1
    assert len(calls) > 3
    assert not written(out)
    assert not list(out.rglob("*.unfinished"))
    assert set(failures(out)) == {"train/case", "train/good"}


def shifted(case, affine, labels):
    moved = affine.copy()
    moved[0, 3] = 3
    write_volume(case / "label_2.nii.gz", labels, moved)


BAD_CASES = {
    "no image": (lambda case, *_: (case / "image.nii.gz").unlink(), "expected one volume with"),
    "two images": (
        lambda case, *_: shutil.copy(case / "image.nii.gz", case / "my_image.nii.gz"),
        "'image.nii.gz', 'my_image.nii.gz'",
    ),
    "no raters": (
        lambda case, *_: [(case / f"label_{i}.nii.gz").unlink() for i in (1, 2)],
        "no rater's label volume",
    ),
    "a rater twice": (
        lambda case, *_: shutil.copy(case / "label_1.nii.gz", case / "other_1.nii.gz"),
        "rater 1 has a file already",
    ),
    "no digit": (
        lambda case, *_: (case / "label_1.nii.gz").rename(case / "label_.nii.gz"),
        "must end with the rater's digit",
    ),
    "another shape": (
        lambda case, affine, labels: write_volume(case / "label_2.nii.gz", labels[:5], affine),
        "[5, 5, 4] voxels, image.nii.gz has [6, 5, 4]",
    ),
    "another place": (shifted, "up to 3 mm away from image.nii.gz"),
    "labels out of range": (
        lambda case, affine, labels: write_volume(case / "label_2.nii.gz", labels + 3, affine),
        "expected whole numbers 0 to 5, found 3 to 7",
    ),
    "labels with fractions": (
        lambda case, affine, labels: write_volume(
            case / "label_2.nii.gz", labels.astype(np.float32) * 0.3, affine
        ),
        "expected whole numbers 0 to 5, found 0 to 1.2",
    ),
    "damaged": (
        lambda case, *_: (case / "image.nii.gz").write_bytes((case / "image.nii.gz").read_bytes()[:60]),
        "may be damaged or cut off",
    ),
}


@pytest.mark.parametrize("kind", BAD_CASES)
def test_bad_cases_are_named_and_stop_no_other(raw, tmp_path, kind):
    source, case, affine, labels = raw
    spoil, message = BAD_CASES[kind]
    spoil(case, affine, labels)
    out = tmp_path / "out"
    assert process_mbhseg(source, out) == 1
    found = failures(out)
    assert list(found) == ["train/case"]
    assert message in found["train/case"]
    assert str(case) in found["train/case"]
    files = written(out)
    assert files
    assert all("/good/" in name for name in files)


def test_stray_files_are_passed_over_and_no_case_at_all_is_an_error(raw, tmp_path, caplog):
    (raw[0] / "train/readme.txt").write_text("hello")
    assert process_mbhseg(raw[0], tmp_path / "out") == 0
    assert "readme.txt" in caplog.text
    with pytest.raises(DataError, match="no case was found"):
        process_mbhseg(tmp_path / "nothing", tmp_path / "out")
