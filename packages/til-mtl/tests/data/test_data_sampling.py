"""Batches of an epoch: complete, repeatable, never of a single patch in training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from til_mtl.data.sampling import EpochBatches
from til_mtl.errors import DataError

sizes = st.integers(2, 60)


@settings(max_examples=60, deadline=None)
@given(n=sizes, batch_size=st.integers(2, 12), shuffle=st.booleans(), epoch=st.integers(0, 5))
def test_every_patch_once_and_no_single_one(n, batch_size, shuffle, epoch):
    batches = EpochBatches(np.zeros(n), batch_size, seed=3, shuffle=shuffle)
    drawn = list(batches.batches(epoch))
    assert sorted(np.concatenate(drawn).tolist()) == list(range(n))
    assert len(drawn) == len(batches)
    assert min(map(len, drawn)) >= 2
    assert all(len(each) == batch_size for each in drawn[:-1])
    assert max(map(len, drawn)) <= batch_size + 1
    if not shuffle:
        assert np.concatenate(drawn).tolist() == list(range(n))


@settings(max_examples=30, deadline=None)
@given(
    n=sizes,
    batch_size=st.integers(2, 12),
    skip=st.integers(0, 10),
    sampling=st.sampled_from(["shuffle", "balanced"]),
)
def test_a_resumed_epoch_goes_on_where_it_stopped(n, batch_size, skip, sampling):
    tasks = np.arange(n) % 3 == 0
    batches = EpochBatches(tasks, batch_size, seed=1, sampling=sampling)
    whole = list(batches.batches(4))
    rest = list(batches.batches(4, skip=skip))
    assert [each.tolist() for each in rest] == [each.tolist() for each in whole[skip:]]


def test_seed_and_epoch_decide_the_order():
    def order(seed, epoch):
        return np.concatenate(list(EpochBatches(np.zeros(20), 4, seed=seed).batches(epoch))).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_validation_keeps_a_single_last_patch_and_training_may_drop():
    kept = EpochBatches(np.zeros(11), 5, shuffle=False, training=False)
    assert [len(each) for each in kept.batches(0)] == [5, 5, 1]
    dropped = EpochBatches(np.zeros(13), 5, drop_last=True)
    assert [len(each) for each in dropped.batches(0)] == [5, 5]
    assert [len(each) for each in EpochBatches(np.zeros(11), 5).batches(0)] == [5, 6]


@settings(max_examples=60, deadline=None)
@given(n_tissue=st.integers(1, 40), n_cells=st.integers(1, 40), batch_size=st.integers(2, 9))
def test_balanced_batches_hold_both_tasks_alike(n_tissue, n_cells, batch_size):
    tasks = np.array([0] * n_tissue + [1] * n_cells)
    batches = EpochBatches(tasks, batch_size, sampling="balanced", seed=2)
    drawn = list(batches.batches(0))
    for each in drawn:
        counts = np.bincount(tasks[each], minlength=2)
        assert counts.sum() == batch_size
        assert abs(counts[0] - counts[1]) <= 1
    seen = np.bincount(np.concatenate(drawn), minlength=len(tasks))
    assert seen.min() >= 1
    for task in (0, 1):  # a smaller set is gone through evenly
        assert np.ptp(seen[tasks == task]) <= 1
    assert len(drawn) == len(batches)


def test_balanced_batches_of_odd_size_give_both_tasks_the_same_in_the_end():
    tasks = np.array([0] * 20 + [1] * 20)
    drawn = list(EpochBatches(tasks, 5, sampling="balanced").batches(0))
    counts = np.bincount(tasks[np.concatenate(drawn)], minlength=2)
    assert counts.tolist() == [20, 20]


@pytest.mark.parametrize(
    ("n", "batch_size", "text"),
    [(0, 5, "no patches"), (8, 1, "at least 2 patches in a batch"), (1, 5, "batches of 5 from 1 patches")],
)
def test_impossible_batches_are_refused(n, batch_size, text):
    with pytest.raises(DataError, match=text):
        EpochBatches(np.zeros(n), batch_size)


def test_drop_last_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match="lower batch_size"):
        len(EpochBatches(np.zeros(3), 5, drop_last=True))
