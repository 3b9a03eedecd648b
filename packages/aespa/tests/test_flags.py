"""The flags of the original's scripts."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from aespa import flags
from aespa.config import DATASETS, SWITCHES, Config

# Flag of the original → (text, key, value). Dead ones have no key.
ORIGINAL = {
    "mode": ("SPA", "mode", "SPA"),
    "num_samples": ("24", "num_samples", 24),
    "n_clusters": ("3", "n_clusters", 3),
    "n_components": ("8", "n_components", 8),
    "exp_name": ("LIDC_SPA_128", "exp_name", "LIDC_SPA_128"),
    "val_freq": ("1", "val_freq", 1),
    "gpu": ("False", "gpu", False),
    "gpu_device": ("1", "gpu_device", 1),
    "image_size": ("128", "image_size", 128),
    "b": ("64", "b", 64),
    "lr": ("1e-3", "lr", 1e-3),
    "weights": ("best.pth", "weights", Path("best.pth")),
    "distributed": ("0,1", "distributed", "0,1"),
    "dataset": ("MBHSeg-Multiclass", "dataset", "MBHSeg-Multiclass"),
    "sam_ckpt": ("medsam.pth", "sam_ckpt", Path("medsam.pth")),
    "multimask_output": ("1", "multimask_output", 1),
    "data_path": ("data/LIDC", "data_path", Path("data/LIDC")),
    "pretrain": ("all.pth", "pretrain", Path("all.pth")),
    "encoder": ("vit_l", "encoder", "vit_l"),
    "epoch_ini": ("3", "epoch_ini", 3),
    "w": ("2", "w", 2),
}
NEW = "epochs runs seed device faithful click_order decoder lr_step lr_gamma cache amp lidc_index log_root subset"
DEAD = (
    "seg_net type vis reverse sim_gpu patch_size dim depth heads mlp_dim s warm uinch imp_lr base_weights "
    "sim_weights thd chunk num_sample roi_size evl_chunk mid_dim"
)


SWITCHED = {key: values[1] for key, values in SWITCHES.items()}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    flags.add_train_options(parser)
    return parser.parse_args(words)


def config(*words: str) -> Config:
    return Config.model_validate(flags.config_mapping(parsed(*words)))


def refusal(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        parsed(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("name", ORIGINAL)
def test_flags_of_the_original(name, dashes):
    text, key, value = ORIGINAL[name]
    assert getattr(config(f"{dashes}{name}", text), key) == value


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_every_key_is_a_flag(dashes):
    assert set(NEW.split()) <= set(Config.model_fields)
    given = Config(dataset="LIDC", lidc_index=Path("i.npy"), subset=3, patience=2, lr_step=5, **SWITCHED)
    values = {key: value for key, value in given.model_dump().items() if value is not None}
    assert (
        config(*(word for key, value in values.items() for word in (f"{dashes}{key}", str(value)))) == given
    )


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_dead_flags_are_named_once_and_change_nothing(dashes, caplog):
    assert set(flags.DEAD_FLAGS) == set(DEAD.split())
    given = parsed(*(word for name in DEAD.split() for word in (f"{dashes}{name}", "1")))
    assert flags.config_mapping(given) == {}
    with caplog.at_level(logging.WARNING):
        flags.warn_ignored(given)
    (message,) = caplog.messages
    assert all(f"-{name}" in message for name in DEAD.split())
    caplog.clear()
    flags.warn_ignored(parsed("-b", "2"))
    assert not caplog.messages


def test_nothing_given_leaves_the_configuration_alone():
    assert flags.config_mapping(parsed()) == {}


@pytest.mark.parametrize(("words", "expected"), [("-gpu False", False), ("-gpu true", True), ("-gpu", True)])
def test_truth(words, expected):
    assert config(*words.split()).gpu is expected


@pytest.mark.parametrize("name", ["weights", "pretrain", "sam_ckpt"])
@pytest.mark.parametrize("text", ["0", "False", "None"])
def test_ways_to_say_that_there_is_no_file(name, text):
    assert getattr(config(f"-{name}", text), name) is None


def test_pretrain_true_is_refused(capsys):
    text = refusal(capsys, "-pretrain", "True")
    assert "-pretrain" in text
    assert "expected the path of a checkpoint, found True" in text


def test_the_encoders_old_default():
    assert config("-encoder", "default").encoder == "vit_b"


def test_the_data_sets_old_default_is_refused_with_the_choices(capsys):
    text = refusal(capsys, "-dataset", "isic")
    assert all(name in text for name in DATASETS)


@pytest.mark.parametrize(
    "words", [["-nosuch", "1"], ["--nosuch"], ["--image", "128"], ["-epoch", "3"], ["-shuffle"]]
)
def test_unknown_and_shortened_flags_are_refused(words, capsys):
    assert words[0][:2] in refusal(capsys, *words)


def test_precision_is_amp():
    assert config("-precision", "bf16").amp == "bf16"


@pytest.mark.parametrize(("words", "expected"), [("", None), ("-resume", True), ("-resume run", Path("run"))])
def test_resume(words, expected):
    assert parsed(*words.split()).resume == expected


def test_the_readmes_table_has_every_key():
    rows = flags.key_table().splitlines()
    assert len(rows) == 2 + len(Config.model_fields)
    assert all(row.startswith(f"| `{key}` |") for row, key in zip(rows[2:], Config.model_fields, strict=True))
