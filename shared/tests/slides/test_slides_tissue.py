"""Tissue without tuning, shares of tiles, overviews."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.slides import (
    Contour,
    FaultList,
    TileError,
    TissueMask,
    find_tissue,
    open_slide,
    overview,
    rasterise,
    read_overview,
    write_pyramid,
)

STAINS = {"strong": (150, 60, 140), "usual": (200, 140, 180), "pale": (228, 205, 222)}


def glass(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return an empty slide: light grey, uneven, with noise."""
    rng = np.random.default_rng(seed)
    shade = cv2.resize(rng.uniform(232, 246, (4, 4)), (width, height))[..., None]
    return np.clip(shade + rng.normal(0, 1.5, (height, width, 3)), 0, 255).astype(np.uint8)


def with_tissue(
    colour: tuple[int, int, int], height: int = 768, width: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with two blobs, one of them with a hole, and their mask."""
    picture, mask = glass(height, width), np.zeros((height, width), np.uint8)
    cv2.circle(mask, (300, 380), 230, 1, -1)
    cv2.circle(mask, (320, 360), 70, 0, -1)
    cv2.ellipse(mask, (780, 400), (150, 260), 20, 0, 360, 1, -1)
    noise = np.random.default_rng(1).normal(0, 9, (height, width, 3))
    tissue = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
    return np.where(mask[..., None] > 0, tissue, picture), mask.astype(bool)


def slide_of(tmp_path: Path, picture: np.ndarray, spacing_um: float | None = 4.0) -> Path:
    return write_pyramid(tmp_path / "a.tiff", picture, spacing_um, "generic", tile_px=64, downsamples=(1, 4))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("stain", STAINS)
def test_tissue_of_any_stain(tmp_path: Path, stain: str) -> None:
    picture, truth = with_tissue(STAINS[stain])
    with open_slide(slide_of(tmp_path, picture)) as slide:
        found = find_tissue(slide)
        contours = found.contours()
    assert found.scale == (2.0, 2.0)
    assert dice(found.mask, truth[::2, ::2]) > 0.97
    assert [len(contour.holes) for contour in sorted(contours, key=lambda each: each.box[0])] == [1, 0]
    assert sum(contour.area_px for contour in contours) == pytest.approx(truth.sum(), rel=0.04)
    assert found.tissue_share == pytest.approx(truth.mean(), rel=0.04)


@pytest.mark.parametrize("seed", range(3))
def test_blank_slide_has_no_tissue(tmp_path: Path, seed: int) -> None:
    with open_slide(slide_of(tmp_path, glass(768, 1024, seed))) as slide:
        found = find_tissue(slide)
    assert not found.mask.any()
    assert found.contours() == []
    assert found.tile_shares([(0, 0), (64, 64)], 64).tolist() == [0, 0]


def test_slide_full_of_tissue_is_not_cut_in_two(tmp_path: Path) -> None:
    picture = with_tissue((150, 60, 140))[0]
    background = picture[..., 1] > 180
    picture[background] = (205, 150, 190)
    with open_slide(slide_of(tmp_path, picture)) as slide:
        assert find_tissue(slide).tissue_share == 1


def test_black_borders_and_specks_are_no_tissue(tmp_path: Path) -> None:
    picture, truth = with_tissue(STAINS["usual"])
    rng = np.random.default_rng(0)
    picture[:, :40] = rng.integers(0, 12, (768, 40, 3))  # nearly black: its saturation is noise
    cv2.circle(picture, (540, 100), 6, (150, 60, 140), -1)
    cv2.circle(picture, (780, 400), 4, (240, 240, 240), -1)  # a small hole
    truth[:, :40] = False
    with open_slide(slide_of(tmp_path, picture)) as slide:
        found = find_tissue(slide)
    assert not found.mask[:, :19].any()
    assert not found.mask[45:56, 265:276].any()
    assert found.mask[200, 390]
    assert dice(found.mask, truth[::2, ::2]) > 0.97


def test_without_spacing(tmp_path: Path) -> None:
    picture, truth = with_tissue(STAINS["usual"])
    with open_slide(slide_of(tmp_path, picture, None)) as slide:
        found = find_tissue(slide, min_area_mm2=0, min_hole_mm2=0)
    assert found.scale == (32.0, 32.0)
    assert dice(found.mask, truth[16::32, 16::32]) > 0.9


def test_damaged_part_holds_no_tissue(damaged, aperio: Path) -> None:
    path = damaged([(3, 2)], "half")
    with open_slide(aperio, 4.0) as slide:
        whole = find_tissue(slide)
    with open_slide(path, 4.0) as slide:
        with pytest.raises(TileError):
            find_tissue(slide)
        faults = FaultList(path)
        found = find_tissue(slide, faults=faults)
    assert [(fault.x, fault.y) for fault in faults] == [(0, 0)]
    assert not found.mask[:120, :120].any()
    assert whole.mask[:120, :120].mean() > 0.5
    assert np.array_equal(found.mask[:, 140:], whole.mask[:, 140:])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.floats(-30, 130), st.floats(-30, 130)), min_size=1, max_size=5),
    st.tuples(st.floats(0.5, 60), st.floats(0.5, 60)),
)
def test_tile_shares_are_exact(
    seed: int, corners: list[tuple[float, float]], size: tuple[float, float]
) -> None:
    mask = np.random.default_rng(seed).random((7, 9)) < 0.5
    tissue = TissueMask(mask, (10.0, 12.0))
    for (x, y), found in zip(corners, tissue.tile_shares(corners, size), strict=True):
        left, top = np.arange(9) * 10.0, np.arange(7) * 12.0
        across = np.clip(np.minimum(left + 10, x + size[0]) - np.maximum(left, x), 0, None)
        down = np.clip(np.minimum(top + 12, y + size[1]) - np.maximum(top, y), 0, None)
        expected = (down[:, None] * across * mask).sum() / (size[0] * size[1])
        assert found == pytest.approx(expected, abs=1e-9)


def test_rasterised_contours() -> None:
    square = np.array([[100, 60], [299, 60], [299, 259], [100, 259]], np.int32)
    hole = np.array([[160, 120], [240, 120], [240, 200], [160, 200]], np.int32)
    found = rasterise([Contour(square, (hole,))], (400, 320), 4.0)
    assert found.mask.shape == (80, 100)
    assert found.scale == (4.0, 4.0)
    centres = np.stack(np.meshgrid(np.arange(100) * 4 + 2, np.arange(80) * 4 + 2), axis=-1).reshape(-1, 2)
    expected = Contour(square, (hole,)).contains(centres).reshape(80, 100)
    assert (found.mask != expected).sum() <= 90  # OpenCV draws the pixels on the border as well
    assert found.mask.sum() == pytest.approx(expected.sum(), rel=0.05)
    assert not rasterise([], (400, 320)).mask.any()
    beyond = Contour(square + 10_000)
    assert not rasterise([beyond], (400, 320)).mask.any()


def test_traced_and_drawn_again(tmp_path: Path) -> None:
    picture, _ = with_tissue(STAINS["usual"])
    with open_slide(slide_of(tmp_path, picture)) as slide:
        found = find_tissue(slide)
        again = rasterise(found.contours(), slide.dimensions, 2.0)
    assert again.mask.shape == found.mask.shape
    assert dice(again.mask, found.mask) > 0.99


def test_overview_in_stripes_equals_the_whole(aperio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(aperio) as slide:
        whole, scale = read_overview(slide, 2.0)
        assert whole.shape == (384, 512, 3)
        assert scale == (2.0, 2.0)
        monkeypatch.setattr(overview, "_WHOLE_PX", 1000)
        monkeypatch.setattr(overview, "_STRIPE_PX", 100_000)
        assert np.array_equal(read_overview(slide, 2.0)[0], whole)
        image, scale = read_overview(slide, 7.0)
        assert image.shape == (110, 146, 3)
        assert scale == pytest.approx((1024 / 146, 768 / 110))
