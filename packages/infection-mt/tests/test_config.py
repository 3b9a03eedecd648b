"""Every default is the documented one, and the group switch sets exactly its switches."""

import pytest
from pydantic import ValidationError

from infection_mt.config import Config

DATA = {"manifest": "m.csv"}

# What the original uses when a key is absent, and the defaults of new keys.
DEFAULTS = {
    "experiment_name": "multitask_cell_classification",
    "run_id": None,
    "output_dir": "outputs",
    "seed": 42,
    "faithful": False,
    "task": {"type": "multitask", "regression": None},
    "multitask.infection_onset_hour": 2.0,
    "multitask.clamp_range": [0.0, 48.0],
    "multitask.classification_weight": 1.0,
    "multitask.regression_weight": 1.0,
    "multitask.loss_weighting": "fixed",
    "multitask.regression_on": "both",
    "multitask.clamp_predictions": False,
    "regression": None,
    "data.infected_label": 1,
    "data.uninfected_label": 0,
    "data.split_ratios": [0.7, 0.15, 0.15],
    "data.split_seed": 42,
    "data.batch_size": 32,
    "data.eval_batch_size_multiplier": 2,
    "data.num_workers": 4,
    "data.drop_last": False,
    "data.balance_sampler": False,
    "data.cache": "disk",
    "data.cache_dir": None,
    "data.channel_offsets_hours": None,
    "data.frames": None,
    "data.transforms": {
        "image_size": 512,
        "random_flip": True,
        "random_rotation": True,
        "color_jitter": False,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "crop_border_fraction": 0.0,
        "crop_border_pixels": None,
        "intensity": "minmax",
        "rotation_fill": "zero",
    },
    "split": {"group": "stack", "overlap": "warn"},
    "cv.num_folds": 1,
    "model.name": "resnet50",
    "model.pretrained": True,
    "model.num_classes": 2,
    "model.dropout": 0.2,
    "model.train_backbone": True,
    "model.hidden_dim": 256,
    "model.use_cls_conditioning": False,
    "model.time_head": "shared",
    "model.weights": None,
    "training.batch_size": None,
    "training.num_workers": None,
    "training.epochs": 10,
    "training.amp": True,
    "training.precision": "auto",
    "training.grad_clip": None,
    "training.early_stopping": None,
    "training.checkpoint_every_steps": 0,
    "training.deterministic": False,
    "optimizer.name": "adamw",
    "optimizer.lr": 1e-4,
    "optimizer.weight_decay": 1e-4,
    "optimizer.betas": [0.9, 0.999],
    "scheduler": None,
    "selection": {"metric": None, "time_scale_hours": None, "threshold": "fixed"},
    "metrics.bootstrap_resamples": 1000,
    "metrics.confidence": 0.95,
    "windows.size_hours": 6.0,
    "windows.stride_hours": 3.0,
    "windows.start_hour": 0.0,
    "windows.end_hour": 48.0,
    "windows.min_samples": 1,
    "analysis.thresholds": [0.1, 0.2, 0.3, 0.4, 0.5],
    "logging.logger": "csv",
}

# key → (original's behaviour, corrected behaviour)
SWITCHES = {
    "test_weights": ("last", "best"),
    "multitask.pre_onset": ("keep", "exclude"),
    "cv.test": ("fixed", "rotating"),
    "model.freeze_bn": (False, True),
    "metrics.faithful_auc": (True, False),
    "windows.closed": (True, False),
}


def value_of(config, key):
    value = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("key", DEFAULTS)
def test_defaults(key):
    assert value_of(Config.model_validate({"data": DATA}), key) == DEFAULTS[key]


@pytest.mark.parametrize("key", SWITCHES)
def test_faithful_sets_a_switch_unless_it_is_given(key):
    original, corrected = SWITCHES[key]
    plain = Config.model_validate({"data": DATA})
    assert value_of(plain, key) is None
    assert value_of(plain.resolved(), key) == corrected
    assert value_of(Config.model_validate({"data": DATA, "faithful": True}).resolved(), key) == original
    *section, last = key.split(".")
    given = {section[0]: {last: corrected}} if section else {last: corrected}
    assert (
        value_of(Config.model_validate({"data": DATA, "faithful": True, **given}).resolved(), key)
        == corrected
    )


@pytest.mark.parametrize("faithful", [False, True])
def test_resolving_changes_only_the_switches_and_batches(faithful):
    plain = Config.model_validate({"data": DATA, "faithful": faithful})
    before, after = plain.model_dump(mode="json"), plain.resolved().model_dump(mode="json")
    changed = set()
    for name in before:
        if isinstance(before[name], dict):
            changed |= {f"{name}.{key}" for key in before[name] if before[name][key] != after[name][key]}
        elif before[name] != after[name]:
            changed.add(name)
    assert changed == set(SWITCHES) | ({"data.drop_last"} if faithful else set())
    assert plain.model_dump(mode="json") == before, "the configuration itself stays as it was"
    assert plain.resolved().resolved() == plain.resolved()


@pytest.mark.parametrize(
    ("faithful", "folds", "training", "expected"),
    [
        (False, 1, {}, (128, False)),
        (False, 1, {"batch_size": 8}, (8, False)),
        (True, 1, {}, (32, True)),  # the original's single run looks at `training` only
        (True, 1, {"batch_size": 8}, (8, True)),
        (True, 5, {}, (128, False)),  # its k-fold script looks at `data`
    ],
)
def test_which_batch_size_counts(faithful, folds, training, expected):
    config = Config.model_validate(
        {
            "data": {**DATA, "batch_size": 128},
            "faithful": faithful,
            "cv": {"num_folds": folds},
            "training": training,
        }
    ).resolved()
    assert (config.data.batch_size, config.data.drop_last) == expected


def test_old_names():
    config = Config.model_validate(
        {"data": DATA, "training": {"k_folds": 4, "num_workers": 1}, "scheduler": {}}
    )
    assert config.scheduler is None
    assert (config.resolved().cv.num_folds, config.resolved().data.num_workers) == (4, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": {}}, "give infected_dir and uninfected_dir, or a manifest"),
        ({"data": {**DATA, "transforms": {"std": [0.1, 0.0, 0.1]}}}, "every entry must be above 0"),
        ({"data": {**DATA, "transforms": {"crop_border_fraction": 0.5}}}, "less than 0.5"),
        ({"data": DATA, "multitask": {"clamp_range": [5, 5]}}, "is not below the upper end"),
        ({"data": DATA, "optimizer": {"lr": 0}}, "greater than 0"),
        ({"data": DATA, "windows": {"end_hour": float("inf")}}, "finite"),
    ],
)
def test_impossible_values(settings, words):
    with pytest.raises(ValidationError, match=words):
        Config.model_validate(settings)


def test_open_ends_of_the_clamp():
    config = Config.model_validate({"data": DATA, "multitask": {"clamp_range": [None, None]}})
    assert config.multitask.clamp_range == (None, None)
