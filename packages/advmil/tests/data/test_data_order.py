"""The order of an epoch."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from advmil.data import order as module
from advmil.data.order import EpochOrder


def test_docstring_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_the_order_equals_the_golden(golden_json: Callable[[str], Any]) -> None:
    golden = golden_json("utilities")["loader_order"]
    order = EpochOrder(golden["n"], golden["generator_seed"])
    assert order.epoch(1) == golden["epoch1"]
    assert order.epoch(0) == golden["epoch0"]


def test_any_epoch_equals_that_of_a_loader_that_ran_through_all() -> None:
    loader = DataLoader(range(7), batch_size=None, shuffle=True, generator=torch.Generator().manual_seed(3))  # pyright: ignore[reportArgumentType]
    passes = [[int(k) for k in loader] for _ in range(6)]
    assert [EpochOrder(7, 3).epoch(k) for k in range(6)] == passes
    jumping = EpochOrder(7, 3)
    assert [jumping.epoch(k) for k in (5, 2, 3, 0)] == [passes[k] for k in (5, 2, 3, 0)]


def test_without_shuffling_the_order_is_that_of_the_patients() -> None:
    assert EpochOrder(3, 0, shuffle=False).epoch(9) == [0, 1, 2]


def test_epochs_count_from_zero() -> None:
    with pytest.raises(ValueError, match="count from 0"):
        EpochOrder(3, 0).epoch(-1)
