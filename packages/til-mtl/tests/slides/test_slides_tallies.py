"""Counts, the coarse map, and the hull of the tumour."""

from __future__ import annotations

import numpy as np
import pytest

from til_mtl.peaks import Candidates
from til_mtl.slides import tallies as module
from til_mtl.slides.strips import Strip
from til_mtl.slides.tallies import Tallies


def fill(labels, heights):
    tallies = Tallies((labels.shape[1], labels.shape[0]))
    top = 0
    for height in heights:
        part = labels[top : top + height]
        tallies.add(Strip(top, len(part), part if part.any() else None))
        top += height
    assert top >= len(labels)
    return tallies


@pytest.mark.parametrize("longest", [3072, 25, 7])
@pytest.mark.parametrize("heights", [[100], [9, 30, 1, 50, 10], [33] * 4])
def test_counts_do_not_depend_on_strips_and_blocks(monkeypatch, longest, heights):
    monkeypatch.setattr(module, "_LONGEST_PX", longest)
    labels = np.random.default_rng(0).integers(0, 4, (100, 83)).astype(np.uint8)
    labels[40:90] = 0
    tallies = fill(labels, heights)
    assert [tallies.pixels(value) for value in (1, 2, 3)] == [(labels == value).sum() for value in (1, 2, 3)]
    block = tallies.block
    for value in (1, 2, 3):
        found = tallies.counts[value]
        for row, column in [(0, 0), (0, found.shape[1] - 1), (found.shape[0] - 1, 2)]:
            part = labels[row * block : (row + 1) * block, column * block : (column + 1) * block]
            assert found[row, column] == (part == value).sum()


def test_the_coarse_map_shows_the_most_frequent_value(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST_PX", 2)
    labels = np.zeros((4, 3), np.uint8)  # blocks of 2 × 2, the right column of blocks is 2 × 1
    labels[:2, :2] = [[1, 2], [2, 0]]
    labels[:2, 2] = 3
    labels[2:, :2] = [[0, 0], [0, 1]]
    assert fill(labels, [4]).coarse_map().tolist() == [[2, 3], [0, 0]]


def tumour_map(gap_px):
    """Two squares of tumour of 40 × 40 px at 32 µm, 1.6 mm² each, with stroma all around."""
    labels = np.full((100, 160), 2, np.uint8)
    labels[30:70, 20:60] = 1
    labels[30:70, 60 + gap_px : 100 + gap_px] = 1
    return labels


def test_the_bulk_is_the_hull_of_the_tumour():
    labels = tumour_map(10)
    bulk = fill(labels, [100]).bulk(32.0)
    assert bulk is not None
    assert bulk.mask[50, 65]  # a gap narrower than the disc belongs to it
    assert not bulk.mask[10, 65]
    assert bulk.mask[labels == 1].all()
    assert bulk.stroma_px == (bulk.mask & (labels == 2)).sum() > 0
    assert bulk.area_mm2 == pytest.approx(bulk.mask.sum() * 0.032**2)
    cells = Candidates(np.array([65, 65]), np.array([50, 10]), np.ones(2), np.full(2, 2, np.uint8))
    assert fill(labels, [100]).within(cells, bulk.mask).tolist() == [True, False]


def test_a_wide_gap_does_not_belong_to_the_bulk():
    bulk = fill(tumour_map(35), [100]).bulk(32.0)
    assert bulk is not None
    assert not bulk.mask[50, 77]
    assert bulk.mask[50, 40]


def test_small_tumours_and_none_have_no_bulk():
    labels = np.full((100, 160), 2, np.uint8)
    assert fill(labels, [100]).bulk(32.0) is None
    labels[30:60, 30:60] = 1  # 0.9 mm²
    assert fill(labels, [100]).bulk(32.0) is None


def test_holes_in_the_tumour_belong_to_the_bulk():
    labels = np.zeros((120, 120), np.uint8)
    labels[10:110, 10:110] = 1
    labels[30:90, 30:90] = 2  # wider than the disc
    bulk = fill(labels, [120]).bulk(32.0)
    assert bulk is not None
    assert bulk.stroma_px == 3600
