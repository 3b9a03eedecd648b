"""Strips in order, made one ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from medshared.slides import FaultList, TissueMask, open_slide
from til_mtl.slides.strips import Strip, StripReader, one_ahead
from til_mtl.slides.tiling import TissueRows, plan_tiles

from .conftest import HEIGHT, WIDTH, colour_rule


def read(slide, tissue, **changes):
    with open_slide(slide) as opened:
        plan = plan_tiles(opened, 0.5, 96, 8)
        rows = TissueRows(TissueMask(tissue, (WIDTH / tissue.shape[1], HEIGHT / tissue.shape[0])), plan)
        reader = StripReader(opened, plan, rows, colour_rule, FaultList(slide), **changes)
        return list(reader), reader


def test_strips_cover_the_map_and_glass_is_not_looked_at(slide):
    tissue = np.zeros((HEIGHT, WIDTH), bool)
    tissue[300:310, 100:500] = True
    strips, reader = read(slide, tissue, batch=3)
    assert [strip.top for strip in strips] == np.cumsum([0, *(strip.height for strip in strips)])[
        :-1
    ].tolist()
    assert sum(strip.height for strip in strips) == HEIGHT
    with_tissue = [strip for strip in strips if strip.segmentation is not None]
    assert len(with_tissue) == 1
    assert reader.n_tiles == 6
    shown = with_tissue[0].segmentation
    np.testing.assert_array_equal(
        shown > 0, tissue[with_tissue[0].top : with_tissue[0].top + with_tissue[0].height]
    )


@pytest.mark.parametrize("batch", [1, 8, 500])
def test_batches_do_not_matter(slide, batch):
    tissue = np.ones((20, 30), bool)
    expected, _ = read(slide, tissue, batch=5)
    found, _ = read(slide, tissue, batch=batch)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.segmentation, other.segmentation)
        np.testing.assert_array_equal(one.probability, other.probability)


def test_one_strip_is_made_ahead_and_errors_come_out():
    made = threading.Event()

    def strips():
        yield Strip(0, 1)
        made.set()
        yield Strip(1, 1)
        raise ValueError("damaged")

    ahead = one_ahead(strips())
    assert next(ahead).top == 0
    assert made.wait(5)  # without being asked for
    assert next(ahead).top == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)
