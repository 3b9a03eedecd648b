"""The flags of the original's scripts: one dash and the name of a configuration key; two dashes do as well."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from aespa.config import Config
from medshared.config_flags import NULL, field_types, key_comments, parse_bool, parse_value
from medshared.leases import Shard

logger = logging.getLogger(__name__)

# Flags of the original that nothing reads.
DEAD_FLAGS = (
    *("seg_net", "type", "vis", "reverse", "sim_gpu", "patch_size", "dim", "depth", "heads", "mlp_dim", "s"),
    *("warm", "uinch", "imp_lr", "base_weights", "sim_weights", "thd", "chunk", "num_sample", "roi_size"),
    *("evl_chunk", "mid_dim"),
)
_NOTHING = {"0", "false", "none", "null", ""}  # how the original's defaults say that there is no file
_FILES = ("weights", "pretrain", "sam_ckpt")


def add_flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Add ``-name`` and ``--name``."""
    parser.add_argument(f"-{name}", f"--{name}", dest=name, **options)


def add_shard_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``-shard``: one of several equal parts of the work, a job each."""
    add_flag(
        parser, "shard", type=_parse_shard, default=Shard(), metavar="I/N", help="only the I-th of N parts"
    )


def _parse_shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_file(text: str) -> str | None:
    """Read a path; the original's ways to say "no file" are null.

    Args:
        text: One value of a flag.

    Raises:
        argparse.ArgumentTypeError: For ``True``, which the original took for a path.
    """
    if text.lower() in _NOTHING:
        return None
    if text.lower() == "true":
        raise argparse.ArgumentTypeError(
            "expected the path of a checkpoint, found True: the original took it for one"
        )
    return text


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each configuration key; a flag that is not given leaves the configuration as it is."""
    comments = key_comments(Config)
    for name, field in Config.model_fields.items():
        text = f"{comments.get(name, '')} (default: {field.default})".replace("%", "%%")
        add_flag(parser, name, default=argparse.SUPPRESS, help=text, **_options(name, field.annotation))
    parser.add_argument(
        "-precision", "--precision", dest="amp", choices=["32", "16", "bf16"], default=argparse.SUPPRESS,
        help="the same as -amp",
    )  # fmt: skip
    hidden = ", ".join(f"-{name}" for name in DEAD_FLAGS)
    ignored = parser.add_argument_group("accepted without effect", f"flags of the original: {hidden}")
    for name in DEAD_FLAGS:
        # argparse reads an unknown -shuffle as -s with the value huffle: what is no truth value is refused.
        kind = parse_bool if name == "s" else str
        ignored.add_argument(
            f"-{name}", f"--{name}", dest=name, nargs="?", const=True, type=kind, default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )  # fmt: skip


def _options(name: str, annotation: Any) -> dict[str, Any]:
    """Return what argparse needs to read a key."""
    kinds = field_types(annotation)
    if kinds == (bool,):
        is_switch = type(None) in get_args(annotation)
        reader = _bool_or_null if is_switch else parse_bool
        return {"nargs": "?", "const": True, "type": reader, "metavar": "BOOL"}
    if name == "encoder":
        return {"type": _encoder, "metavar": "{tiny,vit_b,vit_l,vit_h}"}
    if all(get_origin(kind) is Literal for kind in kinds):
        return {"choices": [value for kind in kinds for value in get_args(kind)]}
    if kinds == (Path,) and type(None) in get_args(annotation) and name not in _FILES:
        return {"type": _path_or_null, "metavar": "PATH"}
    if name in _FILES:
        return {"type": parse_file, "metavar": "FILE"}
    plain: Callable[[str], Any] = str if kinds in ((str,), (Path,)) else parse_value
    return {"type": plain, "metavar": name.upper()}


def _bool_or_null(text: str) -> bool | None:
    """Read a switch; null leaves it to ``faithful``."""
    return None if text.lower() in NULL else parse_bool(text)


def _path_or_null(text: str) -> str | None:
    return None if text.lower() in NULL else text


def _encoder(text: str) -> str:
    """Read an encoder; the original's default was called ``default``."""
    return "vit_b" if text == "default" else text


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``train.py`` and ``val.py``."""
    add_flag(parser, "config", type=Path, help="YAML file with the same keys; flags win over it")
    add_flag(parser, "output", type=Path, help="run directory (default: <log_root>/<exp_name>_<time>)")
    add_flag(parser, "demo", action="store_true", help="draw a small data set and run on it, at demo size")
    add_flag(parser, "debug", action="store_true", help="show the traceback of an error")
    add_config_flags(parser)


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``train.py``."""
    add_run_options(parser)
    parser.add_argument(
        "-resume", "--resume", nargs="?", const=True, default=None, metavar="RUN", type=Path,
        help="continue the stopped run in this directory, or in -output",
    )  # fmt: skip


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``val.py``."""
    add_run_options(parser)
    add_flag(parser, "plain", type=Path, help="checkpoint of a plain SAM (mode SAM) to compare with")


def config_mapping(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration keys that flags set."""
    return {name: value for name, value in vars(arguments).items() if name in Config.model_fields}


def warn_ignored(arguments: argparse.Namespace) -> None:
    """Say once which given flags have no effect."""
    given = [name for name in DEAD_FLAGS if hasattr(arguments, name)]
    if given:
        logger.warning("ignored, no effect: %s", ", ".join(f"-{name}" for name in given))


def key_table() -> str:
    """Return the rows of the README's table of keys."""
    comments = key_comments(Config)
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in Config.model_fields.items():
        shown = "null" if field.default is None else str(field.default)
        meaning = comments[name].replace("|", "\\|")
        rows.append(f"| `{name}` | `{shown}` | {meaning} |")
    return "\n".join(rows)
