"""The flags of the three training scripts: one for each configuration key, and those that have no effect.

The original builds its parser from the signatures of Lightning 1.5's trainer, the network and the data module. What a
user of this project would pass is a key of :class:`til_mtl.config.Config`; the rest is accepted with a warning.
"""

from __future__ import annotations

import argparse
import logging
import typing
from pathlib import Path
from typing import Any, Literal

from medshared.config_flags import field_types, key_comments, parse_bool, parse_value
from til_mtl.config import Config, Task

logger = logging.getLogger(__name__)

# Flags of the network that the original stores and never reads.
DEAD_FLAGS = ("num_layers", "features_start", "bilinear")
# Flags of Lightning 1.5's trainer that change nothing here.
IGNORED_FLAGS = (
    *(
        "checkpoint_callback",
        "process_position",
        "num_nodes",
        "num_processes",
        "auto_select_gpus",
        "tpu_cores",
    ),
    *("ipus", "log_gpu_memory", "progress_bar_refresh_rate", "track_grad_norm", "limit_predict_batches"),
    *("flush_logs_every_n_steps", "weights_summary", "weights_save_path", "profiler"),
    *(
        "reload_dataloaders_every_n_epochs",
        "reload_dataloaders_every_epoch",
        "auto_lr_find",
        "replace_sampler_ddp",
    ),
    *("auto_scale_batch_size", "prepare_data_per_node", "plugins", "amp_backend", "amp_level"),
    *("move_metrics_to_cpu", "multiple_trainloader_mode", "stochastic_weight_avg", "terminate_on_nan"),
)
# Keys of the configuration with flags of Lightning's trainer that change nothing here either.
INERT_KEYS = ("strategy", "sync_batchnorm", "log_every_n_steps")
# Keys with a flag of their own below.
_SPECIAL = ("task", "faithful", "logger", "device", "precision")
_LOGGERS = ("csv", "tensorboard", "wandb")


def parse_logger(text: str) -> str:
    """Read ``--logger``: a name, or the original's boolean (true = TensorBoard, false = CSV alone)."""
    if text in _LOGGERS:
        return text
    try:
        return "tensorboard" if parse_bool(text) else "csv"
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected {', '.join(_LOGGERS)}, true or false, found {text!r}"
        ) from None


def add_config_flags(parser: argparse.ArgumentParser, task: Task | None) -> None:
    """Add one flag for each configuration key; a flag that is not given leaves the configuration as it is.

    Args:
        parser: Gets the flags.
        task: Hides what another task needs; null keeps everything.
    """
    comments = key_comments(Config)
    for name, field in Config.model_fields.items():
        if name in _SPECIAL or (task in ("seg", "det") and name in ("loss_weights", "balancing")):
            continue
        text = f"{comments.get(name, '')} (default: {field.default})".replace("%", "%%")
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        kinds = field_types(field.annotation)
        if kinds == (bool,):
            options |= {"nargs": "?", "const": True, "type": parse_bool, "metavar": "BOOL"}
        elif typing.get_origin(kinds[0]) is tuple:
            options |= {"nargs": len(typing.get_args(kinds[0])), "type": parse_value}
        elif all(typing.get_origin(kind) is Literal for kind in kinds):
            options |= {"choices": [value for kind in kinds for value in typing.get_args(kind)]}
        elif name == "fast_dev_run":
            options |= {"nargs": "?", "const": True, "type": _bool_or_count}
        elif kinds in ((str,), (Path,)):
            options |= {"type": str}
        else:
            options |= {"type": parse_value}
        if "choices" not in options:
            options.setdefault("metavar", name.upper())
        parser.add_argument(f"--{name}", **options)


def _bool_or_count(text: str) -> bool | int:
    try:
        return int(text)
    except ValueError:
        return parse_bool(text)


def add_run_options(parser: argparse.ArgumentParser, task: Task | None) -> None:
    """Add all flags of a training script.

    Args:
        parser: Gets the flags.
        task: Of the script; null adds ``--task``.
    """
    if task is None:
        parser.add_argument("--task", choices=["mtl", "seg", "det"], default=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help="YAML file with the same keys; flags win over it")
    parser.add_argument("--output", type=Path, help="run directory (default: <log_dir>/default/version_<k>)")
    parser.add_argument("--demo", action="store_true", help="make synthetic data and run on it, at demo size")
    parser.add_argument("--resume", action="store_true", help="continue the stopped run in --output")
    parser.add_argument("--resume_from_checkpoint", type=Path, help="continue from this checkpoint's state")
    parser.add_argument(
        "--default_root_dir", type=Path, help="folder of the logs, where --log_dir is not given"
    )
    parser.add_argument(
        "--test", action="store_true", help="score --ckpt_path on the test split, train nothing"
    )
    parser.add_argument("--ckpt_path", type=Path, help="checkpoint of --test")
    parser.add_argument("--folds", type=int, nargs="+", help="one run for each fold<k>; writes mean and s.d.")
    parser.add_argument("--download", action="store_true", help="allow fetching ImageNet weights")
    parser.add_argument(
        "--faithful", nargs="?", const=True, type=parse_bool, default=argparse.SUPPRESS,
        help="the original's behaviour (see the README)",
    )  # fmt: skip
    parser.add_argument(
        "--logger", nargs="?", const="tensorboard", type=parse_logger, default=argparse.SUPPRESS,
        metavar="{csv,tensorboard,wandb}", help="metrics.csv is always written",
    )  # fmt: skip
    parser.add_argument("--precision", default=argparse.SUPPRESS, help="32, 16, bf16 or auto")
    parser.add_argument("--device", default=argparse.SUPPRESS, help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_config_flags(parser, task)
    ignored = parser.add_argument_group(
        "accepted without effect", "flags of the original that change nothing"
    )
    for name in DEAD_FLAGS + IGNORED_FLAGS:
        ignored.add_argument(
            f"--{name}", nargs="?", const=True, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    ignored.description = f"{ignored.description}: " + ", ".join(f"--{n}" for n in DEAD_FLAGS + IGNORED_FLAGS)


def config_mapping(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration keys that flags set."""
    given = {name: value for name, value in vars(arguments).items() if name in Config.model_fields}
    root = getattr(arguments, "default_root_dir", None)  # `compare` has no logs of its own
    if root is not None and "log_dir" not in given:
        given["log_dir"] = root / "logs"
    return given


def warn_ignored(arguments: argparse.Namespace) -> None:
    """Say once which given flags have no effect."""
    given = [name for name in (*DEAD_FLAGS, *IGNORED_FLAGS, *INERT_KEYS) if hasattr(arguments, name)]
    if given:
        logger.warning("ignored, no effect: %s", ", ".join(f"--{name}" for name in given))
