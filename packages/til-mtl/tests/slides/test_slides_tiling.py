"""Tiles cover the slide once, with a margin everywhere but at its borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medshared.slides import TissueMask, open_slide, write_pyramid
from til_mtl.errors import DataError
from til_mtl.slides.tiling import TissueRows, plan_axis, plan_tiles


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(3, 80), st.integers(0, 30))
def test_kept_parts_cover_every_pixel_once_with_their_margin(length, tile, margin):
    margin = min(margin, (tile - 1) // 2)
    starts, edges = plan_axis(length, tile, margin)
    assert (edges[0], edges[-1]) == (0, length)
    assert (np.diff(edges) > 0).all()
    ends = starts + tile
    assert (edges[:-1] >= starts).all()
    assert (edges[1:] <= np.maximum(ends, length)).all()
    assert (edges[1:-1] <= ends[:-1] - margin).all()  # the margin on the right …
    assert (edges[1:-1] >= starts[1:] + margin).all()  # … and on the left
    if length >= tile:
        assert ends[-1] == length  # nothing is read beyond the slide


def test_a_margin_must_leave_something():
    with pytest.raises(DataError, match="--patch 64 and --margin 32 leave nothing"):
        plan_axis(100, 64, 32)


@pytest.mark.parametrize(
    ("spacing", "size", "mpp", "level0_px"),
    [
        (0.5, (700, 520), 0.5, 1.0),
        (0.4567, (700, 520), 0.4567, 1.0),  # near enough: read as it is
        (0.25, (350, 260), 0.5, 2.0),
        (0.3, (420, 312), 0.5, 5 / 3),
    ],
)
def test_the_map_has_the_spacing_asked_for_or_that_of_the_level(
    tmp_path, pixels, spacing, size, mpp, level0_px
):
    path = write_pyramid(tmp_path / "s.tif", pixels, spacing, "generic", tile_px=64, downsamples=(1, 4))
    with open_slide(path) as slide:
        plan = plan_tiles(slide, 0.5, 96, 8)
    assert plan.size == pytest.approx(size, abs=1)
    assert plan.mpp == pytest.approx(mpp, rel=1e-2)
    assert plan.level0_px == pytest.approx(level0_px, rel=1e-2)
    assert plan.mpp == pytest.approx(spacing * plan.level0_px, rel=1e-5)
    corner = plan.locations(len(plan.rows.starts) - 1, np.array([len(plan.columns.starts) - 1]))[0]
    reach = corner + plan.tile * plan.level0_px
    assert reach == pytest.approx((700, 520), abs=2 * level0_px)


def test_tiles_without_tissue_are_left_out(slide):
    mask = np.zeros((52, 70), bool)
    mask[3, 1] = mask[51, 69] = True
    with open_slide(slide) as opened:
        plan = plan_tiles(opened, 0.5, 96, 8)
    rows = TissueRows(TissueMask(mask, (10.0, 10.0)), plan)
    found = [(row, column) for row in range(len(plan.rows.starts)) for column in rows.tiles_of(row).tolist()]
    assert found == [(0, 0), (len(plan.rows.starts) - 1, len(plan.columns.starts) - 1)]
    np.testing.assert_array_equal(rows.between(0, 520, 0, 700), mask.repeat(10, axis=0).repeat(10, axis=1))
