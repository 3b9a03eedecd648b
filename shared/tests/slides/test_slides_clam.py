"""CLAM's segmentation and patching against stored results of the original tool, and against plain loops."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from medshared.slides import (
    CLAM_PRESETS,
    ClamPatching,
    ClamSegmentation,
    Contour,
    FaultList,
    SegmentationError,
    SlideError,
    TileError,
    coordinate_attributes,
    open_slide,
    patch_coordinates,
    patch_footprint,
    segment,
    write_pyramid,
)

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "clam_coords.json").read_text())
COORDINATES = dict(np.load(GOLDEN / "clam_coords.npz", allow_pickle=False))
SETS = [name for name, value in FACTS.items() if isinstance(value, dict) and "seg" in value]


@pytest.fixture(scope="module")
def slide():
    with open_slide(GOLDEN / "clam_slide.tiff") as opened:
        yield opened


def golden_contours(slide, name: str) -> list[Contour]:
    return segment(slide, ClamSegmentation(**FACTS[name]["seg"], **FACTS[name]["filter"]))


@pytest.mark.parametrize("name", SETS)
def test_golden_contours(slide, name: str) -> None:
    contours, facts = golden_contours(slide, name), FACTS[name]
    assert len(contours) == facts["n_contours"]
    assert [contour.outer_area_px for contour in contours] == facts["areas"]
    assert [list(contour.box) for contour in contours] == facts["boxes"]
    assert [len(contour.holes) for contour in contours] == facts["n_holes"]


@pytest.mark.parametrize("name", COORDINATES)
def test_golden_coordinates(slide, name: str) -> None:
    match = re.fullmatch(r"(.+)__l(\d)_p(\d+)_s(\d+)_(.+)_(pad|nopad)", name)
    assert match is not None
    patching = ClamPatching(int(match[3]), int(match[4]), int(match[2]), match[6] == "pad", match[5])  # pyright: ignore[reportArgumentType]
    found = patch_coordinates(slide, golden_contours(slide, match[1]), patching)
    assert found.dtype == np.int64
    assert np.array_equal(found, COORDINATES[name])
    assert len(found) == FACTS[name]["n"]


def test_golden_attributes(slide) -> None:
    found = coordinate_attributes(slide, ClamPatching(16, 16, 2), "patches")
    assert json.loads(json.dumps(found)) == FACTS["attrs_example"]
    assert patch_footprint(slide, ClamPatching(16, 16, 2)) == (256, 256)


@pytest.mark.parametrize(("height", "expected"), [(768, 4), (769, 4), (766, 4), (860, 4), (640, 3)])
def test_downsample_of_a_level_whose_size_was_rounded(tmp_path: Path, height: int, expected: int) -> None:
    # Level 1 has 192 rows: 769 / 192 = 4.005, 766 / 192 = 3.990 of a level rounded up, 860 / 192 = 4.48.
    import tifffile

    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path) as out:
        out.write(np.zeros((height, 800, 3), np.uint8), tile=(64, 64))
        out.write(np.zeros((192, 200, 3), np.uint8), tile=(64, 64), subfiletype=1)
    with open_slide(path) as slide:
        assert patch_footprint(slide, ClamPatching(10, 10, 1)) == (40, 10 * expected)


def test_presets_and_default_level(slide) -> None:
    assert CLAM_PRESETS["default"] == ClamSegmentation(-1, 8, 7, 4, False, 100, 16, 8)
    assert segment(slide, CLAM_PRESETS["bwh_biopsy"]) == golden_contours(slide, "bwh_biopsy")
    assert segment(slide) == []


def one_by_one(slide, contours: list[Contour], patching: ClamPatching) -> list[tuple[int, int]]:
    """Return what a loop over points with OpenCV's own polygon test keeps."""
    d = [
        int(a / b)
        for a, b in zip(slide.dimensions, slide.level_dimensions[patching.patch_level], strict=True)
    ]
    f, g = patching.patch_size * d[0], patching.patch_size * d[1]
    kept = []
    for contour in contours:
        x0, y0, w, h = cv2.boundingRect(contour.outer)
        sx, sy = x0 + w, y0 + h
        if not patching.use_padding:
            sx, sy = min(sx, slide.dimensions[0] - f + 1), min(sy, slide.dimensions[1] - g + 1)
        for x in range(x0, sx, patching.step_size * d[0]):
            for y in range(y0, sy, patching.step_size * d[1]):
                c, s = (x + f // 2, y + f // 2), int((f // 2) * 0.5)
                points = [(c[0] + i, c[1] + j) for i in (-s, s) for j in (-s, s)] if s else [c]
                if patching.contour_fn == "basic":
                    points = [(x, y)]
                if patching.contour_fn == "center":
                    points = [c]
                inside = [
                    cv2.pointPolygonTest(contour.outer, (float(a), float(b)), False) >= 0 for a, b in points
                ]
                fine = all(inside) if patching.contour_fn == "four_pt_hard" else any(inside)
                middle = (x + f / 2, y + f / 2)
                if fine and not any(cv2.pointPolygonTest(hole, middle, False) > 0 for hole in contour.holes):
                    kept.append((x, y))
    return kept


@pytest.mark.parametrize("function", ["four_pt", "four_pt_hard", "center", "basic"])
@pytest.mark.parametrize(("size", "step", "padding"), [(32, 16, True), (33, 31, False), (1, 24, True)])
def test_patching_equals_a_loop_over_points(
    function, size: int, step: int, padding: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur(rng.random((96, 128)).astype(np.float32), (0, 0), 3)
    level = np.where(blobs > np.quantile(blobs, 0.5), 200, 0).astype(np.uint8)
    picture = np.full((96, 128, 3), 240, np.uint8)
    picture[..., 1] -= level
    path = write_pyramid(
        tmp_path / "a.tiff",
        picture.repeat(8, 0).repeat(8, 1),
        None,
        "generic",
        downsamples=(1, 8),
        quality=95,
    )
    with open_slide(path) as slide:
        contours = segment(
            slide, ClamSegmentation(seg_level=1, mthresh=3, close=0, a_t=0, a_h=0, max_n_holes=99)
        )
        assert len(contours) > 2
        assert sum(len(contour.holes) for contour in contours) > 2
        patching = ClamPatching(size, step, 0, padding, function)
        found = patch_coordinates(slide, contours, patching)
        assert [tuple(row) for row in found.tolist()] == one_by_one(slide, contours, patching)
        assert len(found) > 50


def test_blank_slide(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tiff", np.full((512, 512, 3), 245, np.uint8), 0.5, "generic")
    with open_slide(path) as slide:
        for otsu in (False, True):
            contours = segment(slide, ClamSegmentation(a_t=0, use_otsu=otsu))
            assert contours == []
        found = patch_coordinates(slide, contours)
    assert found.shape == (0, 2)
    assert found.dtype == np.int64


def test_contours_chosen_by_number(slide) -> None:
    both = golden_contours(slide, "bwh_biopsy")
    base = FACTS["bwh_biopsy"]["seg"] | FACTS["bwh_biopsy"]["filter"]
    assert segment(slide, ClamSegmentation(**base, keep_ids=(1, 7))) == both[1:]
    assert segment(slide, ClamSegmentation(**base, exclude_ids=(1,))) == both[:1]
    assert segment(slide, ClamSegmentation(**base, keep_ids=(0,), exclude_ids=(0,))) == []


def test_what_cannot_be_segmented(slide, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SegmentationError, match=r"clam_slide\.tiff: seg_level is 5.*levels 0–2"):
        segment(slide, ClamSegmentation(seg_level=5))
    monkeypatch.setattr("medshared.slides.clam._LARGEST_LEVEL", 1000)
    with pytest.raises(SegmentationError, match="256 × 192 pixels, more than 1,000"):
        segment(slide)
    with pytest.raises(SlideError, match="patch_level is 3"):
        patch_coordinates(slide, [], ClamPatching(patch_level=3))
    for arguments, message in (
        ({"mthresh": 4}, "odd"),
        ({"sthresh": 300}, "between 0 and 255"),
        ({"a_t": -1}, "a_t must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            ClamSegmentation(**arguments)
    for arguments, message in (
        ({"contour_fn": "five_pt"}, "four_pt, four_pt_hard"),
        ({"step_size": 0}, "step_size"),
    ):
        with pytest.raises(ValueError, match=message):
            ClamPatching(**arguments)


def test_damaged_part_holds_no_tissue(damaged, aperio: Path) -> None:
    path = damaged([(0, 0)], "half")
    parameters = ClamSegmentation(seg_level=0, a_t=0, a_h=1e9)
    with open_slide(path) as slide, open_slide(aperio) as whole:
        with pytest.raises(TileError):
            segment(slide, parameters)
        faults = FaultList(path)
        contours = segment(slide, parameters, faults=faults)
        assert [(fault.x, fault.y) for fault in faults] == [(0, 0)]
        assert [contour.box for contour in segment(whole, parameters)] == [(0, 0, 1024, 768)]
    assert len(contours) == 1
    assert not contours[0].contains([(100, 100)])[0]  # blocks of 256 px are given up
    assert contours[0].contains([(400, 100)])[0]
