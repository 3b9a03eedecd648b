"""The keys of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aespa.config import DATASETS, SWITCHES, Config
from medshared.config_flags import key_comments
from medshared.configuration import ConfigError, load_config


def problem(**keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(Config, keys, label="run.yaml")
    return str(caught.value)


def test_defaults_are_the_originals():
    found = Config()
    shown = (
        found.mode,
        found.num_samples,
        found.n_clusters,
        found.n_components,
        found.exp_name,
        found.val_freq,
    )
    assert shown == ("AESPA", 48, 4, 16, "msa_test_isic", 5)
    assert (found.image_size, found.b, found.lr, found.w, found.epochs, found.runs) == (
        256,
        2,
        1e-4,
        4,
        20,
        6,
    )


def test_every_key_has_a_comment():
    assert all(key_comments(Config).values())
    assert list(key_comments(Config)) == list(Config.model_fields)


@given(st.booleans(), st.sets(st.sampled_from(sorted(SWITCHES))))
def test_a_switch_that_is_set_wins(faithful, chosen):
    keys = {key: SWITCHES[key][not faithful] for key in chosen}  # each against the run
    found = Config(faithful=faithful, **keys).resolved()
    for key, values in SWITCHES.items():
        assert getattr(found, key) == values[faithful if key not in chosen else not faithful]
    assert found.resolved() == found


def test_resolving_leaves_the_rest_alone():
    before = Config(dataset="LIDC", mode="SPA", b=7)
    kept = set(Config.model_fields) - set(SWITCHES)
    assert {key: getattr(before.resolved(), key) for key in kept} == {
        key: getattr(before, key) for key in kept
    }


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image_size": 100}, ["image_size must be a multiple of 16", "found 100"]),
        ({"image_size": 100, "encoder": "tiny"}, ["multiple of 8 for encoder: tiny"]),
        ({"multimask_output": 3}, ["multimask_output must be 1"]),
        ({"epoch_ini": 20}, ["epoch_ini (20) must be below epochs (20)"]),
        ({"mode": "SPA", "n_clusters": 5, "num_samples": 4}, ["n_clusters (5)", "num_samples (4)"]),
        ({"dataset": "isic"}, ["run.yaml", "dataset", *DATASETS]),
        ({"lr": 0}, ["lr", "above 0", "found 0"]),
        ({"val_fraction": 1}, ["val_fraction", "below 1", "found 1"]),
        ({"batch": 4}, ["batch"]),
        ({"n_component": 4}, ["n_component", "n_components"]),
    ],
)
def test_what_does_not_fit_is_said(keys, words):
    text = problem(**keys)
    assert all(word in text for word in words), text


def test_clusters_matter_in_spa_only():
    assert Config(mode="AESPA", n_clusters=5, num_samples=4).n_clusters == 5
