"""Keys, switches and the rules between them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from medshared.configuration import ConfigError, load_config
from til_mtl.config import SWITCHES, Config

# What the code of the original does where this package offers a better way.
FAITHFUL = {
    "mask_resample": "bicubic",
    "freeze_bn": False,
    "exact_labels": False,
    "train_froc": True,
    "froc": "legacy",
    "nms": 18.0,
    "epoch_values": "batch",
}


def test_the_defaults_are_those_of_the_original():
    config = Config()
    found = {
        "lr": config.lr, "weight_decay": config.weight_decay, "t_max": config.t_max, "max_epochs": config.max_epochs,
        "batch_size": config.batch_size, "seed": config.seed_everything, "precision": config.precision,
        "loss_weights": config.loss_weights, "img_size": config.img_size, "monitor": config.monitor,
        "conf": config.conf, "radius_px": config.radius_px, "classes": (config.num_classes_seg, config.num_classes_det),
        "augment": config.augment, "normalize": config.normalize, "freeze_encoder": config.freeze_encoder,
    }  # fmt: skip
    assert found == {
        "lr": 0.001, "weight_decay": 0.001, "t_max": 60, "max_epochs": 300,
        "batch_size": 5, "seed": 1234, "precision": "32",
        "loss_weights": (0.13, 0.87), "img_size": (256, 256), "monitor": "val_loss",
        "conf": 0.1, "radius_px": 8.0, "classes": (3, 2),
        "augment": "none", "normalize": "none", "freeze_encoder": True,
    }  # fmt: skip


def test_faithful_restores_every_switch_at_once():
    resolved = Config(faithful=True).resolved()
    assert {key: getattr(resolved, key) for key in SWITCHES} == FAITHFUL


def test_without_faithful_every_switch_is_corrected():
    resolved = Config().resolved()
    assert {key: getattr(resolved, key) for key in SWITCHES} == {
        "mask_resample": "nearest", "freeze_bn": True, "exact_labels": True, "train_froc": False,
        "froc": "tiger", "nms": 12.0, "epoch_values": "pooled",
    }  # fmt: skip


@pytest.mark.parametrize("faithful", [False, True])
def test_a_switch_that_is_given_wins(faithful):
    config = Config(faithful=faithful, nms=7.0, freeze_bn=faithful, froc="tiger").resolved()
    assert (config.nms, config.freeze_bn, config.froc) == (7.0, faithful, "tiger")


def test_resolved_values_stay_under_a_second_look():
    once = Config(faithful=True).resolved()
    assert once.resolved() == once
    assert once.model_copy(update={"faithful": False}).resolved().nms == 18.0


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (32, "32"), ("32", "32"), ("32-true", "32"), (16, "16"), ("16-mixed", "16"),
        ("bf16", "bf16"), ("bf16-mixed", "bf16"), ("auto", "auto"),
    ],
)  # fmt: skip
def test_spellings_of_a_precision(given, meant):
    assert Config(precision=given).precision == meant


@pytest.mark.parametrize("given", [64, "fp8", "double", None])
def test_other_precisions_are_refused(given):
    with pytest.raises(ValidationError, match="precision"):
        Config(precision=given)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cache": "disk"}, "cache: disk needs cache_dir"),
        ({"cache_features": True, "freeze_encoder": False}, "cache_features needs freeze_encoder: true"),
        ({"cache_features": True, "freeze_until": "layer2"}, "cache_features needs freeze_encoder: true"),
        ({"cache_features": True, "freeze_bn": False}, "cache_features needs freeze_bn: true"),
        ({"cache_features": True, "faithful": True}, "cache_features needs freeze_bn: true"),
        ({"cache_features": True, "augment": "d4"}, "cache_features needs augment: none"),
        ({"sampling": "balanced", "batch_size": 1}, "sampling: balanced needs a batch_size of at least 2"),
        ({"max_time": "1 day"}, "max_time: expected DD:HH:MM:SS such as 00:12:00:00, found '1 day'"),
        ({"lr": 0}, "lr"),
        ({"lr": "nan"}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"val_split": 1.0}, "val_split"),
        ({"loss_weights": (0.5, -1)}, "loss_weights"),
        ({"loss_weights": (0.5,)}, "loss_weights"),
        ({"img_size": (256, 0)}, "img_size"),
        ({"conf": 1.5}, "conf"),
        ({"task": "both"}, "task"),
        ({"freeze_until": "layer4"}, "freeze_until"),
        ({"limit_train_batches": -1}, "limit_train_batches"),
    ],
)
def test_what_does_not_fit_together_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        load_config(Config, keys, label="run.yaml")


@pytest.mark.parametrize(
    "keys",
    [
        {"cache_features": True},
        {"cache_features": True, "faithful": True, "freeze_bn": True},
        {"cache": "disk", "cache_dir": "decoded"},
        {"sampling": "balanced", "batch_size": 1, "task": "det"},
        {"max_time": "00:12:00:00"},
        {"limit_train_batches": 0.5, "limit_val_batches": 3},
    ],
)
def test_what_fits_together(keys):
    load_config(Config, keys, label="run.yaml")


def test_unknown_keys_are_named_with_what_was_probably_meant():
    with pytest.raises(ConfigError) as caught:
        load_config(Config, {"learning_rate": 1, "max_epoch": 3, "loss_weight": [1, 1]}, label="run.yaml")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "max_epochs" in text
    assert "loss_weights" in text


def test_a_configuration_survives_a_file():
    config = Config(task="seg", img_size=(64, 48), max_time="00:00:10:00", precision="bf16").resolved()
    assert load_config(Config, config.model_dump(mode="json"), label="config.yaml") == config
