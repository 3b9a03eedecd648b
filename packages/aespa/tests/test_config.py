"""What a configuration refuses, and what its switches mean."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aespa.config import SWITCHES, Config


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_size": 100}, "multiple of 16"),
        ({"encoder": "tiny", "image_size": 36}, "multiple of 8"),
        (
            {"mode": "SPA", "n_clusters": 9, "num_samples": 8},
            r"n_clusters \(9\) must not exceed num_samples \(8\)",
        ),
        ({"multimask_output": 3}, "multimask_output must be 1"),
        ({"epoch_ini": 20}, r"epoch_ini \(20\) must be below epochs \(20\)"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_what_does_not_fit_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Config(**keys)


def test_no_epoch_at_all_measures_the_network_that_training_would_start_from():
    assert Config(epochs=0).epochs == 0


@pytest.mark.parametrize("faithful", [False, True])
def test_switches_have_a_value_that_a_configuration_may_set_itself(faithful):
    resolved = Config(faithful=faithful, upsample="nearest").resolved()
    for key, values in SWITCHES.items():
        expected = "nearest" if key == "upsample" else values[faithful]
        assert getattr(resolved, key) == expected, key
