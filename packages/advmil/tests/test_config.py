"""The configuration: keys, texts of widths, switches."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from advmil.config import Config, parse_dims, parse_noise


def test_widths_and_noise_digits_are_read():
    assert parse_dims("1024-384-384") == (1024, 384, 384)
    assert parse_dims("5") == (5,)
    assert parse_noise("0-1") == (0, 1)


@pytest.mark.parametrize("text", ["", "a-b", "1024-", "0-3", "-1"])
def test_bad_widths_are_refused(text):
    with pytest.raises(ValueError, match="positive numbers joined by hyphens"):
        parse_dims(text)


def test_a_single_width_may_be_a_number():
    assert Config.model_validate({"disc_nety_hid_dims": 128}).disc_nety_hid_dims == "128"


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="bcb_mod"):
        Config.model_validate({"bcb_mod": "patch"})


def test_faithful_sets_the_switches_that_are_null():
    config = Config(faithful=True, median_lower=False).resolved()
    assert config.loss_bce_legacy is True
    assert config.labels_from == "table"
    assert config.median_lower is False
    assert Config().resolved().loss_bce_legacy is False


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_train_sampling_is_a_share_or_a_count(value):
    with pytest.raises(ValidationError, match="share in"):
        Config(train_sampling=value)
