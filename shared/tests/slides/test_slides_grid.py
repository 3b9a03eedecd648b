"""Grids of tiles: positions, tissue, alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medshared.slides import SpacingError, TissueMask, make_grid, open_slide


def test_grid_by_spacing(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        grid = make_grid(slide, 64, spacing_um=0.5)
        assert (grid.level, grid.scale, grid.footprint_px, grid.stride_px) == (0, 2.0, 128.0, 128.0)
        assert len(grid) == 8 * 6
        assert grid.coordinates[:7].tolist() == [[0, 128 * i] for i in range(6)] + [[128, 0]]
        assert grid.aligned
        assert (grid.tissue_shares == 1).all()
        for tile in slide.read_tiles(grid.coordinates, grid.tile_px, spacing_um=grid.spacing_um):
            assert tile.pixels.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("options", "n", "aligned"),
    [
        ({"tile_px": 64, "level": 0}, 16 * 12, True),
        ({"tile_px": 64, "level": 1}, 4 * 3, True),
        ({"tile_px": 100, "level": 0}, 10 * 7, False),
        ({"tile_px": 100, "level": 0, "border": "keep"}, 11 * 8, False),
        ({"tile_px": 96, "level": 0, "stride_px": 32}, 30 * 22, True),
        ({"tile_px": 64, "spacing_um": 0.26}, 16 * 12, True),
        ({"tile_px": 50, "spacing_um": 0.77}, 6 * 4, False),
        ({"tile_px": 2000, "level": 0}, 0, False),
        ({"tile_px": 2000, "level": 0, "border": "keep"}, 1, False),
    ],
)
def test_positions(aperio: Path, options: dict, n: int, aligned: bool) -> None:
    with open_slide(aperio) as slide:
        grid = make_grid(slide, options.pop("tile_px"), **options)
        assert len(grid) == n
        assert grid.aligned == aligned
        ends = grid.coordinates + grid.footprint_px
        if options.get("border") != "keep":
            assert (ends <= slide.dimensions).all()
        assert (np.diff(np.unique(grid.coordinates[:, 0])) == grid.stride_px).all()


def test_only_tiles_with_enough_tissue(aperio: Path) -> None:
    mask = np.zeros((24, 32), bool)
    mask[4:10, 8:15] = True  # 6 × 7 pixels of 32: level-0 x 256…480, y 128…320
    tissue = TissueMask(mask, (32.0, 32.0))
    with open_slide(aperio) as slide:
        for share, expected in ((1.0, [256, 320, 384]), (0.5, [256, 320, 384, 448]), (0.51, [256, 320, 384])):
            grid = make_grid(slide, 64, level=0, tissue=tissue, min_tissue_share=share)
            assert grid.coordinates.tolist() == [[x, y] for x in expected for y in (128, 192, 256)]
            assert (grid.tissue_shares >= share).all()
        grid = make_grid(slide, 256, level=0, tissue=tissue, min_tissue_share=0)
        assert grid.coordinates.tolist() == [[256, 0], [256, 256]]
        assert grid.tissue_shares == pytest.approx([7 * 4 / 64, 7 * 2 / 64])


def test_requests(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        for options, message in (
            ({}, "either spacing_um or level"),
            ({"spacing_um": 1.0, "level": 0}, "either spacing_um or level"),
            ({"level": 0, "stride_px": 0}, "at least 1"),
            ({"level": 3}, "levels 0–2"),
            ({"level": 0, "min_tissue_share": 2}, "between 0 and 1"),
        ):
            with pytest.raises(ValueError, match=message):
                make_grid(slide, 64, **options)
        slide.spacing_um = None
        with pytest.raises(SpacingError):
            make_grid(slide, 64, spacing_um=0.5)
