"""Pictures of regions: equal to the whole picture at once, scored by leaderboard 1, resumed, a bad one left behind."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medshared.leases import Shard
from til_mtl.data.images import read_image, write_png
from til_mtl.errors import CheckpointError, DataError
from til_mtl.leaderboard import evaluate_l1
from til_mtl.leaderboard_files import read_points
from til_mtl.peaks import find_peaks
from til_mtl.slides.regions import find_pictures, map_picture, run_regions

from .conftest import colour_rule, draw

SIZES = {"a_[0, 0, 230, 170]": (230, 170), "b_[5, 6, 65, 216]": (60, 210), "c_[1, 1, 41, 31]": (40, 30)}
MPP = 0.5


def whole(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the rule says about a picture as a whole: labels and peaks."""
    logits, cells = colour_rule(pixels[None])
    labels = np.array([3, 1, 2], np.uint8)[logits[0].argmax(axis=0)]
    return labels, find_peaks(cells[0], 0.3, 6.0)


@pytest.fixture
def pictures(tmp_path):
    """Pictures larger and smaller than a tile, one of them a TIFF."""
    folder = tmp_path / "images"
    for number, (name, (width, height)) in enumerate(SIZES.items()):
        write_png(folder / f"{name}.png", draw(width, height, 12, seed=number))
    last = folder / f"{name}.png"
    Image.open(last).save(last.with_suffix(".tif"))
    last.unlink()
    return folder


@pytest.fixture
def chosen(pictures, options):
    def make(**changes):
        return options(**({"slides": None, "masks": None, "regions": pictures} | changes))

    return make


class Counting:
    """A model factory that counts calls."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return colour_rule


@pytest.mark.parametrize("changes", [{}, {"patch": 64, "margin": 2, "batch": 1}, {"patch": 300, "margin": 0}])
@pytest.mark.parametrize("name", SIZES)
def test_equals_the_whole_picture_whatever_the_tiles(chosen, name, changes):
    pixels = draw(*SIZES[name], 20)
    labels, cells = map_picture(pixels, colour_rule, chosen(**changes))
    # The rule sees one pixel beyond: what is filled up to a tile is white.
    height, width = labels.shape
    padded = np.pad(pixels, ((0, 1), (0, 1), (0, 0)), constant_values=255)
    tile = changes.get("patch", 96)
    shown = padded[: height + (height < tile), : width + (width < tile)]
    expected = colour_rule(shown[None])
    np.testing.assert_array_equal(labels, np.array([3, 1, 2])[expected[0][0].argmax(axis=0)][:height, :width])
    peaks = find_peaks(expected[1][0][:height, :width], 0.3, 6.0)
    np.testing.assert_allclose(np.stack([cells.x, cells.y, cells.p], axis=1), peaks)
    assert (cells.value == labels[cells.y, cells.x]).all()


def test_leaderboard_1_reads_them(chosen, pictures, tmp_path):
    """When the rule is the truth, every score is perfect."""
    options = chosen(patch=32, margin=4)  # no picture is smaller
    assert run_regions(options, Counting()) == 0
    images, boxes = [], []
    for number, file in enumerate(find_pictures(pictures, tmp_path / "out")):
        pixels = read_image(file)
        if min(pixels.shape[:2]) < options.patch:
            pixels = np.pad(pixels, ((0, 2), (0, 0), (0, 0)), constant_values=255)
        height, width = read_image(file).shape[:2]
        labels, peaks = whole(pixels)
        write_png(tmp_path / "truth" / "masks" / f"{file.stem}.png", labels[:height, :width])
        images.append({"id": number, "file_name": file.name, "width": width, "height": height})
        boxes += [{"image_id": number, "bbox": [x - 8, y - 8, 16, 16]} for x, y, _ in peaks.tolist()]
    content = {"images": images, "annotations": boxes, "categories": []}
    (tmp_path / "truth" / "tiger-coco.json").write_text(json.dumps(content))
    metrics = evaluate_l1(options.out, tmp_path / "truth", MPP, 2, tmp_path / "l1")
    assert [metrics["dice"][tissue] for tissue in ("tumour", "stroma", "rest")] == [1.0, 1.0, 1.0]
    assert metrics["froc"]["score"] == 1.0
    assert metrics["froc"]["n_predictions"] == len(boxes) > 10


def test_points_are_millimetres_from_the_corner(chosen):
    options = chosen(mpp=0.25)
    run_regions(options, Counting())
    name = next(iter(SIZES))
    points = read_points(options.out / f"{name}.json")
    _, cells = map_picture(read_image(options.regions / f"{name}.png"), colour_rule, options)
    np.testing.assert_allclose(points[:, 0], cells.x * 0.25 / 1000)
    np.testing.assert_allclose(points[:, 1], cells.y * 0.25 / 1000)


def test_a_bad_picture_is_recorded_and_the_rest_go_on(chosen, pictures):
    whole_file = (pictures / "a_[0, 0, 230, 170].png").read_bytes()
    (pictures / "b_[5, 6, 65, 216].png").write_bytes(whole_file[:200])
    options = chosen()
    assert run_regions(options, Counting()) == 1
    table = pd.read_csv(options.out / "regions.csv", index_col="region")
    assert table["status"].tolist() == ["done", "failed", "done"]
    assert "cannot be decoded" in table.loc["b_[5, 6, 65, 216]", "message"]
    row = table.loc["a_[0, 0, 230, 170]"]
    assert (row["width_px"], row["height_px"]) == (230, 170)
    assert row["tumor_px"] + row["stroma_px"] + row["other_px"] == 230 * 170
    assert not list(options.out.glob("b_*"))
    report = json.loads((options.out / "predict-report.json").read_text())
    assert report["counts"] == {"predict": {"done": 2, "failed": 1}}


def test_a_second_run_makes_only_what_is_missing(chosen, pictures):
    run_regions(chosen(), Counting())
    idle = Counting()
    assert run_regions(chosen(), idle) == 0
    assert idle.made == 0
    mask = chosen().out / "a_[0, 0, 230, 170].png"
    before = mask.read_bytes()
    mask.write_bytes(before[:-9])
    kept = (chosen().out / "b_[5, 6, 65, 216].png").stat().st_mtime_ns
    assert run_regions(chosen(), idle) == 0
    assert mask.read_bytes() == before
    assert (chosen().out / "b_[5, 6, 65, 216].png").stat().st_mtime_ns == kept
    changed = Counting()
    run_regions(chosen(conf=0.6), changed)
    assert changed.made == 1


def test_a_picture_that_fails_now_leaves_nothing_of_before(chosen, pictures):
    run_regions(chosen(), Counting())
    (pictures / "a_[0, 0, 230, 170].png").write_bytes(b"")
    assert run_regions(chosen(), Counting()) == 1
    assert not list(chosen().out.glob("a_*"))


def test_shards_share_one_folder(chosen):
    run_regions(chosen(shard=Shard(0, 2)), Counting())
    assert pd.read_csv(chosen().out / "regions.csv")["status"].tolist() == ["done", "not yet", "done"]
    run_regions(chosen(shard=Shard(1, 2)), Counting())
    assert pd.read_csv(chosen().out / "regions.csv")["status"].tolist() == ["done"] * 3
    assert (chosen().out / "predict-report-2-of-2.json").is_file()


def test_bad_arguments_are_named(chosen, pictures, tmp_path):
    def factory():
        raise CheckpointError("best.pt: damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        run_regions(chosen(), factory)
    with pytest.raises(DataError, match="masks of the same names would replace them"):
        run_regions(chosen(out=pictures), Counting())
    with pytest.raises(DataError, match=r"no such picture or folder"):
        find_pictures(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no pictures here; expected files ending in \.png"):
        find_pictures(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="give either --slides or --regions"):
        chosen(slides=tmp_path)
    with pytest.raises(DataError, match="--save-maps goes with --slides"):
        chosen(save_maps=True)
    (pictures / "c_[1, 1, 41, 31].jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"several pictures of one name \(c_.*jpg, c_.*tif\)"):
        find_pictures(pictures, tmp_path / "out")
