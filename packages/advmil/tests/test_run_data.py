"""What a run reads, and which patients its epochs train on."""

from __future__ import annotations

import numpy as np
import pytest

from advmil.config import Config
from advmil.data.splits import read_split
from advmil.errors import DataError
from advmil.run_data import load_run_data, split_path


@pytest.fixture
def load(tiny_settings):
    return lambda **changes: load_run_data(
        Config.model_validate(tiny_settings(**({"bcb_mode": "abmil"} | changes))).resolved()
    )


def test_sets_come_from_the_split(load, tiny_settings):
    data = load()
    split = read_split(split_path(Config.model_validate(tiny_settings())))
    assert data.sets == {"train": split.train, "validation": split.val, "test": split.test}
    assert data.labelled == set(split.train)
    assert data.epochs_of == (split.train,)
    assert data.epoch_names == ("train",)


def test_the_fold_replaces_the_braces():
    assert str(split_path(Config(data_split_path="a/fold{}.npz", data_split_seed=3))) == "a/fold3.npz"


def test_rows_point_at_the_labels(load):
    data = load()
    patients = data.sets["test"][::-1]
    days = [data.cohort.patients[patient].time for patient in patients]
    assert data.labels.days[data.rows(patients)].tolist() == days


def test_a_part_of_the_training_patients_sets_the_bins_also_in_test_mode(load):
    keys = {"train_sampling": 0.5, "task": "disc_gansurv", "time_format": "quantile"}
    keys |= {"gen_dims": "8-4", "disc_nety_in_dim": 4}
    trained = load(**keys)
    tested = load(**keys, test=True, test_load_path="x", test_save_path="y")
    assert len(trained.sets["train"]) == 8
    assert np.array_equal(trained.labels.edges, tested.labels.edges)
    assert not np.array_equal(trained.labels.edges, load(**(keys | {"train_sampling": None})).labels.edges)
    assert tested.sets == {"exec-test": trained.sets["test"]}


def test_the_subset_is_drawn_before_the_labelled_patients(load):
    """One generator for both, as after seeding in the original."""
    data = load(train_sampling=12, semi_training=True, ssl_num_labeled=5, ssl_kfold=2)
    rng = np.random.RandomState(42)
    train = data.split.train
    chosen = [train[i] for i in rng.permutation(len(train))[:12]]
    order = [chosen[i] for i in rng.permutation(12)]
    assert data.sets["labeled_train"] == tuple(order[:5])
    assert data.sets["unlabeled_train"] == tuple(order[5:])
    assert data.epoch_names == ("fold0_mixed_train", "fold1_mixed_train")


@pytest.mark.parametrize(
    ("mode", "trained", "name"),
    [
        ("LD", "labeled_train", "semitrain_LD"),
        ("UD", "unlabeled_train", "semitrain_UD"),
        ("LD+UD", None, "semitrain_LD_UD"),
    ],
)
def test_modes(mode, trained, name, load):
    data = load(semi_training=True, semi_training_mode=mode, ssl_kfold=2)
    assert data.name == name
    if trained:
        assert data.epochs_of == (data.sets[trained],)
        assert data.epoch_names == (trained,)


def test_without_unlabelled_patients(load):
    with pytest.raises(DataError, match="ssl_num_labeled: 16 labels all 16 training patients"):
        load(semi_training=True, ssl_num_labeled=16)
