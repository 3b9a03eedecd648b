"""The flags of the training scripts."""

from __future__ import annotations

import argparse
import logging

import pytest

from medshared.config_flags import key_comments
from til_mtl.commands import read_config
from til_mtl.config import Config
from til_mtl.flags import DEAD_FLAGS, IGNORED_FLAGS, add_run_options, warn_ignored

# Flags of Lightning 1.5.10's trainer, of the network and of the data module, as the original's parser has them.
ORIGINAL = ["lr", "num_layers", "features_start", "bilinear", "data_dir", "val_split", "test_split", "num_workers", "batch_size", "seed", "shuffle", "pin_memory", "drop_last", "checkpoint_callback", "enable_checkpointing", "default_root_dir", "gradient_clip_val", "gradient_clip_algorithm", "process_position", "num_nodes", "num_processes", "devices", "gpus", "auto_select_gpus", "tpu_cores", "ipus", "log_gpu_memory", "progress_bar_refresh_rate", "enable_progress_bar", "overfit_batches", "track_grad_norm", "check_val_every_n_epoch", "fast_dev_run", "accumulate_grad_batches", "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "val_check_interval", "flush_logs_every_n_steps", "log_every_n_steps", "accelerator", "strategy", "sync_batchnorm", "precision", "enable_model_summary", "weights_summary", "weights_save_path", "num_sanity_val_steps", "resume_from_checkpoint", "profiler", "benchmark", "deterministic", "reload_dataloaders_every_n_epochs", "reload_dataloaders_every_epoch", "auto_lr_find", "replace_sampler_ddp", "detect_anomaly", "auto_scale_batch_size", "prepare_data_per_node", "plugins", "amp_backend", "amp_level", "move_metrics_to_cpu", "multiple_trainloader_mode", "stochastic_weight_avg", "terminate_on_nan", "logger"]  # fmt: skip


def parse(*words: str, task: str | None = "mtl") -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_options(parser, task)
    return parser.parse_args(list(words))


@pytest.mark.parametrize("task", ["mtl", "seg", "det", None])
def test_every_flag_of_the_original_is_there(task):
    parser = argparse.ArgumentParser()
    add_run_options(parser, task)
    known = {option.removeprefix("--") for action in parser._actions for option in action.option_strings}
    assert [name for name in ORIGINAL if name not in known] == []


def test_without_flags_the_configuration_is_the_default():
    assert read_config(parse()) == Config()


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--shuffle"], "shuffle", True),
        (["--shuffle", "False"], "shuffle", False),
        (["--shuffle", "no"], "shuffle", False),
        (["--shuffle", "0"], "shuffle", False),
        (["--batch", "7"], "batch_size", 7),  # abbreviated, as argparse allows
        (["--limit_train_batches", "1"], "limit_train_batches", 1),
        (["--limit_train_batches", "0.5"], "limit_train_batches", 0.5),
        (["--gpus", "0"], "gpus", 0),
        (["--precision", "16"], "precision", "16"),
        (["--precision", "bf16-mixed"], "precision", "bf16"),
        (["--loss_weights", "0.5", "0.5"], "loss_weights", (0.5, 0.5)),
        (["--img_size", "64", "48"], "img_size", (64, 48)),
        (["--logger", "True"], "logger", "tensorboard"),
        (["--logger", "false"], "logger", "csv"),
        (["--logger", "wandb"], "logger", "wandb"),
        (["--faithful"], "faithful", True),
        (["--fast_dev_run"], "fast_dev_run", True),
        (["--fast_dev_run", "3"], "fast_dev_run", 3),
        (["--gradient_clip_val", "none"], "gradient_clip_val", None),
        (["--pretrained", "none"], "pretrained", "none"),
        (["--freeze_encoder", "False"], "freeze_encoder", False),
    ],
)
def test_values_arrive_in_the_configuration(words, key, value):
    found = getattr(read_config(parse(*words)), key)
    assert found == value
    assert type(found) is type(value)


def test_a_count_and_a_share_are_told_apart():
    assert isinstance(read_config(parse("--limit_val_batches", "1")).limit_val_batches, int)
    assert isinstance(read_config(parse("--limit_val_batches", "1.0")).limit_val_batches, float)


def test_flags_win_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("lr: 0.5\nbatch_size: 9\n")
    found = read_config(parse("--config", str(file), "--lr", "0.25"))
    assert (found.lr, found.batch_size) == (0.25, 9)


def test_flags_without_effect_are_named_once(caplog):
    words = ["--num_layers", "4", "--bilinear", "--profiler", "simple"]
    with caplog.at_level(logging.WARNING):
        warn_ignored(parse(*words))
    assert caplog.messages == ["ignored, no effect: --num_layers, --bilinear, --profiler"]
    assert not set(DEAD_FLAGS + IGNORED_FLAGS) & set(Config.model_fields)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shuffle", "perhaps"], "expected true or false, found 'perhaps'"),
        (["--logger", "mlflow"], "expected csv, tensorboard, wandb, true or false"),
        (["--augment", "d5"], "invalid choice: 'd5'"),
    ],
)
def test_a_bad_value_is_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


def test_the_single_task_scripts_have_no_weights_of_two_tasks():
    with pytest.raises(SystemExit):
        parse("--loss_weights", "1", "1", task="seg")


def test_every_key_says_what_it_means():
    assert list(key_comments(Config)) == list(Config.model_fields)


def test_flags_of_several_devices_are_said_to_have_no_effect(caplog):
    with caplog.at_level(logging.WARNING):
        warn_ignored(parse("--strategy", "ddp", "--log_every_n_steps", "5", "--num_layers", "5"))
    assert caplog.messages == ["ignored, no effect: --num_layers, --strategy, --log_every_n_steps"]


def test_a_comparison_takes_the_keys_of_a_run():
    from til_mtl.cli import build_parser

    words = ["compare", "--folds", "2", "--lr", "0.5", "--log_dir", "elsewhere"]
    config = read_config(build_parser("compare").parse_args(words))
    assert (config.lr, str(config.log_dir)) == (0.5, "elsewhere")
