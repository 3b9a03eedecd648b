"""Regions: counting, hiding, making."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advmil.data import regions as module
from advmil.data.regions import mask_regions, n_keep, n_regions, regroup_by_coordinates, regroup_plainly
from advmil.errors import DataError


def test_docstring_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_counts_equal_the_golden(golden_json: Callable[[str], Any]) -> None:
    for key, (original, corrected) in golden_json("utilities")["mask_keep_counts"].items():
        regions, ratio = key.split("_")
        assert n_keep(int(regions), float(ratio), legacy=True) == original
        assert n_keep(int(regions), float(ratio)) == corrected


@pytest.mark.parametrize("ratio", ["0.0", "0.5", "0.8", "0.9", "1.0"])
def test_hidden_regions_equal_the_golden(golden_json: Callable[[str], Any], ratio: str) -> None:
    golden = golden_json("utilities")["mask"]
    case = golden["cases"][ratio]
    x = torch.ones(case["n_regions"] * 16, 3)
    rng = np.random.RandomState(golden["np_random_seed"])
    masked, kept = mask_regions(x, float(ratio), rng, legacy=True)
    assert kept.tolist() == case["kept_regions_original"]
    assert masked.sum(dim=1).count_nonzero() == case["discard_len"]
    assert masked.view(-1, 16, 3)[kept].eq(1).all()
    assert x.eq(1).all()
    _, kept = mask_regions(x, float(ratio), np.random.RandomState(11))
    assert len(kept) == case["n_keep_corrected"]


def test_other_lengths_are_refused() -> None:
    assert n_regions(48) == 3
    with pytest.raises(
        DataError, match=r"50 patches are no whole number of regions of 16: .* regions: coordinates"
    ):
        mask_regions(torch.ones(50, 2), 0.5, np.random.RandomState(0))


@given(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1), st.integers(0, 5))
def test_regrouped_patches_are_all_used_and_lie_in_one_square(cells: set[tuple[int, int]], seed: int) -> None:
    places = np.array(sorted(cells))
    places = places[np.random.default_rng(seed).permutation(len(places))]
    rows = regroup_by_coordinates(places * 512 + 1000, 512)
    assert len(rows) % 16 == 0
    assert set(rows.tolist()) == set(range(len(places)))
    squares = ((places - places.min(axis=0)) // 4)[rows].reshape(-1, 16, 2)
    assert (squares == squares[:, :1]).all()
    assert len(np.unique(squares[:, 0], axis=0)) == len(squares)


def test_a_full_square_is_ordered_by_column_then_row() -> None:
    x, y = np.divmod(np.arange(16), 4)
    coordinates = np.stack([x, y], axis=1) * 1024
    assert regroup_by_coordinates(coordinates, 1024).tolist() == list(range(16))
    assert regroup_by_coordinates(coordinates[::-1], 1024).tolist() == list(range(15, -1, -1))


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [(np.zeros((0, 2)), "shape"), (np.zeros((3, 3)), "shape"), (np.array([[0, 0], [100, 0]]), "same place")],
)
def test_coordinates_that_form_no_grid_are_refused(coordinates: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        regroup_by_coordinates(coordinates, 256)


@given(st.integers(1, 70))
def test_plain_grouping_uses_every_row_in_order(n: int) -> None:
    rows = regroup_plainly(n)
    assert len(rows) == 16 * -(-n // 16)
    assert rows[:n].tolist() == list(range(n))
    assert rows.max() == n - 1


def test_an_empty_bag_has_no_regions() -> None:
    with pytest.raises(DataError, match="without patches"):
        regroup_plainly(0)
