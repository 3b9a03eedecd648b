"""Lightning's limits."""

from __future__ import annotations

import pytest

from til_mtl.config import Config
from til_mtl.errors import TrainingError
from til_mtl.limits import batches_left, limited, parse_duration, validation_points


@pytest.mark.parametrize(
    ("limit", "left"), [(1.0, 10), (0.5, 5), (0.0, 0), (1, 1), (3, 3), (99, 10), (0.55, 5)]
)
def test_a_float_is_a_share_and_an_int_a_count(limit, left):
    assert limited(10, limit) == left


def test_durations():
    assert parse_duration("01:02:03:04") == ((1 * 24 + 2) * 60 + 3) * 60 + 4
    with pytest.raises(ValueError, match="expected DD:HH:MM:SS such as 00:12:00:00, found '2h'"):
        parse_duration("2h")


@pytest.mark.parametrize(
    ("keys", "epoch", "points"),
    [
        ({}, 0, {10}),
        ({"val_check_interval": 0.25}, 0, {2, 4, 6, 8, 10}),
        ({"val_check_interval": 3}, 0, {3, 6, 9}),
        ({"check_val_every_n_epoch": 2}, 0, set()),
        ({"check_val_every_n_epoch": 2}, 1, {10}),
    ],
)
def test_when_to_validate(keys, epoch, points):
    assert validation_points(Config(**keys), 10, epoch) == points


@pytest.mark.parametrize(
    ("keys", "name", "left"),
    [
        ({}, "val", 10),
        ({"limit_val_batches": 0}, "val", 0),
        ({"limit_test_batches": 3}, "test", 3),
        ({"overfit_batches": 2}, "train", 2),
        ({"overfit_batches": 2}, "val", 2),
        ({"overfit_batches": 2}, "test", 10),
        ({"fast_dev_run": True, "limit_val_batches": 5}, "val", 1),
    ],
)
def test_what_is_left_of_a_set(keys, name, left):
    assert batches_left(Config(**keys), name, 10) == left


def test_a_share_that_leaves_nothing_is_an_error():
    with pytest.raises(TrainingError, match=r"limit_val_batches: 0.05 of 10 val batches is less than one"):
        batches_left(Config(limit_val_batches=0.05), "val", 10)
