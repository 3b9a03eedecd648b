"""Chance belongs to an image, not to its batch."""

from __future__ import annotations

import numpy as np
import torch

from aespa.draws import ItemDraws


def test_an_item_draws_the_same_in_any_batch():
    alone, batch = ItemDraws([7]), ItemDraws([3, 7, 9])
    assert np.array_equal(batch.uniform(5)[1], alone.uniform(5)[0])
    assert torch.equal(batch.normal(2, 4)[:, 1], alone.normal(2, 4)[:, 0])


def test_items_differ_and_so_do_later_draws():
    draws = ItemDraws([1, 2])
    first, second = draws.uniform(4), draws.uniform(4)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, second)
    assert draws.normal(3, 5).shape == (3, 2, 5)
    assert draws.normal(3, 5).dtype == torch.float32
    assert len(draws) == 2
