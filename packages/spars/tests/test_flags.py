"""The flags of scripts and training verbs."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from medshared.configuration import ConfigError
from spars.commands import read_keys
from spars.config import ClassifierConfig, GameConfig
from spars.experiments import classifier_config, game_config
from spars.flags import MODELS, add_run_options, key_comments, key_table, key_yaml, main

# Flags that the constants of the original's scripts became.
CLASSIFIER = """crop_size crop_no data_dir train_batches train_start train_end batch_size epochs val_batches val_start
val_end lr weights_out mode device seed splits label_source label_csv hu_window target_size workers cache_dir select
output_dir min_tumour_voxels demo resume logger output config preset faithful precision"""
GAME = """data_dir case classifier_weights full_image_size window_size target_size step_size termination_threshold
segmentation_threshold n_steps batch_size n_epochs policy verbose competitor_update_frequency iterations log_interval
device mode max_steps eval_space protocol demo resume logger output output_dir config preset faithful precision"""


def parse(*words: str, stage: str = "game", preset: str | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_options(parser, stage, preset)  # type: ignore[arg-type]
    return parser.parse_args(list(words))


def config(*words: str, stage: str = "game", preset: str | None = None) -> ClassifierConfig | GameConfig:
    arguments = parse(*words, stage=stage, preset=preset)
    keys, label = read_keys(arguments, stage)  # type: ignore[arg-type]
    return (classifier_config if stage == "classifier" else game_config)(arguments.preset, keys, label)


@pytest.mark.parametrize(("stage", "names"), [("classifier", CLASSIFIER), ("game", GAME)])
def test_every_constant_of_the_original_has_its_flag(stage, names):
    parser = argparse.ArgumentParser()
    add_run_options(parser, stage)
    known = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    assert set(names.split()) - known == set()
    assert set(MODELS[stage].model_fields) - known == set()


@pytest.mark.parametrize("stage", MODELS)
def test_without_flags_the_configuration_is_the_default(stage):
    assert config(stage=stage) == MODELS[stage]()


@pytest.mark.parametrize(
    ("stage", "words", "key", "value"),
    [
        ("game", ["--window_size", "8", "8", "8"], "window_size", (8, 8, 8)),
        ("game", ["--target_size", "native"], "target_size", "native"),
        ("game", ["--target_size", "64", "64", "48"], "target_size", (64, 64, 48)),
        ("game", ["--target_size", "none"], "target_size", None),
        ("game", ["--hu_window", "-60", "160"], "hu_window", (-60.0, 160.0)),
        ("game", ["--policy", "MlpPolicy"], "policy", "mlp"),
        ("game", ["--policy", "null"], "policy", None),
        ("game", ["--tie", "-1"], "tie", -1),
        ("game", ["--flips", "no"], "flips", False),
        ("game", ["--termination"], "termination", True),
        ("game", ["--termination", "none"], "termination", None),
        ("game", ["--faithful"], "mode", "faithful"),
        ("game", ["--case", "5"], "case", "5"),
        ("game", ["--classifier_weights", "none"], "classifier_weights", Path("none")),
        ("game", ["--label_map", "0=0", "1=1", "7=2"], "label_map", {0: 0, 1: 1, 7: 2}),
        ("classifier", ["--lr", "1e-4"], "lr", 1e-4),
        ("classifier", ["--train_batches", "null"], "train_batches", None),
        ("classifier", ["--mil_pooling", "lse"], "mil_pooling", "lse"),
        ("classifier", ["--spacing", "1", "1", "2.5"], "spacing", (1.0, 1.0, 2.5)),
    ],
)
def test_values_arrive_in_the_configuration(stage, words, key, value):
    found = getattr(config(*words, stage=stage), key)
    assert found == value
    assert type(found) is type(value)


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path, caplog):
    file = tmp_path / "run.yaml"
    file.write_text("window_size: [16, 16, 8]\nstep_size: 2\n")
    found = config("--config", str(file), "--step_size", "3", preset="best_RL")
    assert isinstance(found, GameConfig)
    assert (found.window_size, found.step_size, found.termination_threshold) == ((16, 16, 8), 3, 0.3)
    assert f"{file} has window_size: [16, 16, 8], which replaces (48, 48, 24) of best_RL" in caplog.text


def test_the_mode_of_the_file_chooses_the_constants(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("mode: faithful\n")
    found = config("--config", str(file), stage="classifier", preset="ex1_8in")
    assert isinstance(found, ClassifierConfig)
    assert (found.val_start, found.val_end) == (8, 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flips", "perhaps"], "expected true or false, found 'perhaps'"),
        (["--policy", "lstm"], "invalid choice: 'lstm'"),
        (["--label_map", "3"], "expected VALUE=CLASS such as 3=2"),
        (["--preset", "ex1_8in"], "invalid choice: 'ex1_8in'"),
    ],
)
def test_a_bad_word_is_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window_size", "8", "8"], "window_size"),
        (["--iterations", "many"], "iterations"),
        (["--hu_window", "160", "-60"], "hu_window must be two rising numbers"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(words, message):
    with pytest.raises(ConfigError, match=message):
        config(*words)


def test_an_unknown_key_of_a_file_is_answered_with_the_one_that_is_meant(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("windw_size: [8, 8, 8]\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*windw_size.*window_size"):
        config("--config", str(file))


@pytest.mark.parametrize("stage", MODELS)
def test_every_key_says_what_it_means(stage):
    assert list(key_comments(MODELS[stage])) == list(MODELS[stage].model_fields)


@pytest.mark.parametrize("stage", MODELS)
def test_tables_and_files_hold_every_key_once(stage, capsys):
    assert main([stage]) == 0
    assert capsys.readouterr().out == key_yaml(stage)
    for text, start in ((key_table(stage), "| `{}` |"), (key_yaml(stage), "{}:")):
        lines = text.splitlines()
        for key in MODELS[stage].model_fields:
            assert sum(line.startswith(start.format(key)) for line in lines) == 1


def test_both_tables_are_printed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert key_table("classifier") in out
    assert key_table("game") in out
