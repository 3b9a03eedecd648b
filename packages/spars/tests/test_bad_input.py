"""Broken data sets, and the message that a user sees; nothing is left behind."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medshared.volumes import read_volume, write_volume
from spars.classifier_training import train_classifier
from spars.config import ClassifierConfig
from spars.crops import CropSource
from spars.data.cases import load_case
from spars.data.grid import to_grid
from spars.data.layout import find_cases
from spars.errors import DataError
from spars.lattice import Lattice
from spars.synthetic import write_synthetic

SIZE = (16, 16, 12)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    write_synthetic(folder, 4, 2, 0, size=SIZE)
    return folder


def config(folder: Path, **keys) -> ClassifierConfig:
    quick = {
        "epochs": 1,
        "crop_no": 4,
        "batch_size": 2,
        "mil_crops": 4,
        "device": "cpu",
        "crop_size": (6, 6, 4),
        "cache_dir": folder / "cache",
    }
    return ClassifierConfig(data_dir=folder, full_image_size=SIZE, **{**quick, **keys})


def image(folder: Path) -> Path:
    return folder / "imagesTr" / "liver_1.nii.gz"


def label(folder: Path) -> Path:
    return folder / "labelsTr" / "liver_1.nii.gz"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    found = read_volume(path)
    image = nibabel.Nifti1Image(change(found.array), found.affine if affine is None else affine)
    image.to_filename(path)


def other_shape(folder):
    rewrite(label(folder), lambda a: a[1:])


def other_affine(folder):
    rewrite(label(folder), lambda a: a, np.eye(4))


def label_of_three(folder):
    rewrite(label(folder), lambda a: np.where(a == 2, 3, a).astype(np.uint8))


def label_of_halves(folder):
    rewrite(label(folder), lambda a: (a / 2).astype(np.float32))


def four_axes(folder):
    rewrite(image(folder), lambda a: np.stack([a, a], axis=-1))


def no_voxels(folder):
    rewrite(image(folder), lambda a: a[:, :0])


def with_value(value: float) -> Callable[[Path], None]:
    def spoil(folder):
        def change(array):
            array = array.astype(np.float32)
            array[2, 3, 4] = value
            return array

        rewrite(image(folder), change)

    return spoil


def cut_gzip(folder):
    image(folder).write_bytes(image(folder).read_bytes()[:300])


def corrupt_gzip(folder):
    data = bytearray(gzip.compress(gzip.decompress(image(folder).read_bytes())))
    data[len(data) // 2] ^= 0xFF
    image(folder).write_bytes(bytes(data))


def not_gzip(folder):
    image(folder).write_bytes(b"PK\x03\x04 an archive of another kind")


def no_image(folder):
    image(folder).unlink()


def no_tumour(folder):
    for path in (folder / "labelsTr").iterdir():
        rewrite(path, lambda a: np.minimum(a, 1).astype(np.uint8))


def no_liver_but_tumour(folder):
    for path in (folder / "labelsTr").iterdir():
        rewrite(path, lambda a: np.full_like(a, 2))


def labels_of(text: str) -> Callable[[Path], None]:
    def spoil(folder):
        (folder / "labels.csv").write_text(text)

    return spoil


def without_a_row(folder):
    path = folder / "labels.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "liver_2" not in line))


def split_names_a_stranger(folder):
    (folder / "splits.json").write_text('{"train": ["liver_0", "liver_99"], "val": ["liver_4"]}')


def split_shares_a_case(folder):
    (folder / "splits.json").write_text('{"train": ["liver_0", "liver_1"], "val": ["liver_1"]}')


def nothing(folder):
    pass


CSV = {"label_source": "csv"}
ALL = "case,label\n" + "".join(f"liver_{k},{{}}\n" for k in range(6))


@pytest.mark.parametrize(
    ("spoil", "keys", "message"),
    [
        (
            other_shape,
            {},
            r"labelsTr/liver_1\.nii\.gz: shape \d+×\d+×\d+, but the image .* resample the label",
        ),
        (other_affine, {}, r"labelsTr/liver_1\.nii\.gz: its affine puts it up to [\d.e+]+ mm from the image"),
        (
            label_of_three,
            {},
            r"labelsTr/liver_1\.nii\.gz: labels must be 0, 1, 2, found also 3; set label_map",
        ),
        (label_of_halves, {}, r"labels must be 0, 1, 2, found also 0\.5"),
        (four_axes, {}, r"imagesTr/liver_1\.nii\.gz: expected three axes, found shape \[.*, 2\]"),
        (no_voxels, {}, r"imagesTr/liver_1\.nii\.gz: the volume is empty"),
        (
            with_value(np.nan),
            {},
            r"imagesTr/liver_1\.nii\.gz: 1 voxels are NaN or infinite, the first at \[2, 3, 4\]",
        ),
        (with_value(-np.inf), {}, r"1 voxels are NaN or infinite"),
        (cut_gzip, {}, r"imagesTr/liver_1\.nii\.gz: the volume could not be read .*copy it again"),
        (corrupt_gzip, {}, r"imagesTr/liver_1\.nii\.gz: the volume could not be read"),
        (not_gzip, {}, r"imagesTr/liver_1\.nii\.gz: not a gzip file"),
        (no_image, {}, r"labelsTr/liver_1\.nii\.gz: no image .*imagesTr/liver_1\.nii\.gz"),
        (no_tumour, {}, r"none of the 4 training cases has 1 tumour voxels"),
        (no_liver_but_tumour, {}, r"liver_\d: hardly a crop of 6×6×4 voxels in the body is free of tumour"),
        (labels_of(ALL.format(*"111111")), CSV, "no training case without tumour among 4"),
        (labels_of(ALL.format(*"000011")), CSV, "no training case with tumour among 4"),
        (without_a_row, CSV, r"labels\.csv: no row for 1 of 6 cases \(liver_2\)"),
        (
            labels_of(ALL.format(*"01x111")),
            CSV,
            r"labels\.csv:4: column 'label': expected one of \['0', '1'\], found 'x'",
        ),
        (nothing, {**CSV, "label_csv": Path("gone.csv")}, r"gone\.csv: no table of image-level labels"),
        (split_names_a_stranger, {}, r"splits\.json: names 1 cases that the data set lacks \(liver_99\)"),
        (split_shares_a_case, {}, r"splits\.json: case 'liver_1' is in train and val twice"),
        (nothing, {"splits": Path("gone.json")}, r"gone\.json: no such file of splits"),
        (nothing, {"data_dir": Path("gone")}, "gone: no such folder; data_dir must hold"),
    ],
)
def test_message_and_nothing_left_behind(healthy, tmp_path, spoil, keys, message):
    folder = shutil.copytree(healthy, tmp_path / "data")
    spoil(folder)
    wanted = config(folder).model_copy(update=keys)
    with pytest.raises(DataError, match=message):
        train_classifier(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_float_hu_with_a_scale_slope_are_read_as_hu(healthy, tmp_path):
    """As some copies of the data are stored: not an error, and not other values either."""
    folder = shutil.copytree(healthy, tmp_path / "data")
    before = load_case(find_cases(folder)[1], config(folder))
    found = read_volume(image(folder))
    scaled = nibabel.Nifti1Image(found.array.astype(np.float64) + 0.25, found.affine)
    scaled.header.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    scaled.to_filename(image(folder))
    assert nibabel.load(image(folder)).dataobj.slope != 1
    after = load_case(find_cases(folder)[1], config(folder))
    assert after.image.dtype == np.float32
    np.testing.assert_allclose(after.image, before.image + 0.25, atol=0.05)


def test_volumes_smaller_than_the_window(healthy):
    """Crops for training are padded, a game is refused, and a voxel size pads the grid."""
    case = load_case(find_cases(healthy)[0], config(healthy, cache_dir=None))
    small = to_grid(case, (6, 6, 4), (-100, 300))
    crops, classes = CropSource(small.image, small.label, (8, 8, 8), negative_region="volume").draw(
        2, np.random.default_rng(0), positive_share=1
    )
    assert crops.shape == (2, 8, 8, 8)
    assert classes.all()
    with pytest.raises(DataError, match="a window of 8×8×8 voxels does not fit a volume of 6×6×4"):
        Lattice((6, 6, 4), (8, 8, 8))
    wide = to_grid(case, (40, 40, 40), (-100, 300), case.spacing)
    assert wide.image.shape == (40, 40, 40)
    assert wide.image[0].max() == 0


def test_a_volume_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_volume(tmp_path / "mask.nii.gz", np.ones((3, 3, 3), np.uint8), np.eye(4))
    before = path.read_bytes()
    monkeypatch.setattr(gzip, "compress", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        write_volume(path, np.zeros((3, 3, 3), np.uint8), np.eye(4))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]
