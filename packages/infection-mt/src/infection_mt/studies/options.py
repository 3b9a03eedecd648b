"""One argparse builder for all study scripts: a script is a text, a handler and a list of options."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infection_mt.cli import add_device, add_run_options
from medshared.command_line import guarded
from medshared.leases import Shard
from medshared.processes import require_one_process, several_processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """One flag, as ``add_argument`` takes it."""

    name: str
    settings: Mapping[str, Any]


def option(name: str, **settings: Any) -> Option:
    """Describe a flag; dashes in the name become underscores of the attribute."""
    return Option(name, settings)


def folder(name: str, text: str = "", *, required: bool = False, default: str | None = None) -> Option:
    """Describe a flag that names a file or a folder."""
    return option(
        name, type=Path, required=required, default=None if default is None else Path(default), help=text
    )


def number(name: str, default: float | None, text: str = "") -> Option:
    """Describe a flag that takes a number."""
    return option(name, type=float, default=default, help=text)


def count(name: str, default: int | None, text: str = "") -> Option:
    """Describe a flag that takes a whole number."""
    return option(name, type=int, default=default, help=text)


def switch(name: str, text: str = "") -> Option:
    """Describe a flag without a value."""
    return option(name, action="store_true", help=text)


RESULT_DIR = folder("--result-dir", "run directory, or one with fold_1, fold_2, …", required=True)
OUTPUT_DIR = folder("--output-dir", "where results go (default: beside the input)")
SPLIT = option("--split", choices=["train", "val", "test"], default="test")
K_FOLDS = count("--k-folds", None, "number of folds (default: the configuration's)")
SAVE_DATA = switch("--save-data", "also write the numbers as JSON")
METRIC_NAMES = ["auc", "accuracy", "f1", "precision", "recall"]


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


SHARD = option(
    "--shard", type=_shard, default=Shard(), metavar="I/N", help="only the I-th of N parts: a job of an array"
)


def metrics(*default: str) -> Option:
    """Describe ``--metrics`` with these defaults; none leaves the choice to ``--metric``."""
    chosen = list(default) or None
    return option("--metrics", nargs="+", choices=METRIC_NAMES, default=chosen, help="metrics that are shown")


def windows(size: float, stride: float | None, start: float, end: float) -> tuple[Option, ...]:
    """Describe the four flags of sliding windows, in hours."""
    return (
        number("--window-size", size, "hours"),
        number("--stride", stride, "hours" if stride is not None else "hours (default: the window size)"),
        number("--start-hour", start, "start of the first window"),
        number("--end-hour", end, "latest end of a window"),
    )


@dataclass(frozen=True)
class Script:
    """An original-style script.

    Attributes:
        text: What it does, for ``--help``.
        handler: ``module:function`` below :mod:`infection_mt.studies`, imported when the script runs.
        options: Its flags.
        config: Default configuration of a training script, which then takes all flags of training; None for others.
        device: Takes ``--device``.
        dead: Flags that are accepted and have no effect → why.
    """

    text: str
    handler: str
    options: Sequence[Option] = ()
    config: str | None = None
    device: bool = False
    dead: Mapping[str, str] = field(default_factory=dict)

    def parser(self, name: str) -> argparse.ArgumentParser:
        """Build the parser."""
        parser = argparse.ArgumentParser(prog=name, description=self.text)
        if self.config is not None:
            add_run_options(parser, default_config=Path(self.config))
        elif self.device:
            add_device(parser)
        else:
            parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        for flag in self.options:
            parser.add_argument(flag.name, **flag.settings)
        for flag, reason in self.dead.items():
            nargs = "*" if flag.startswith("--") else None
            parser.add_argument(flag, nargs=nargs, default=None, help=f"no effect: {reason}")
        return parser

    def run(self, name: str, argv: Sequence[str] | None = None) -> int:
        """Parse the arguments, name options without effect once, and run the handler.

        Returns:
            The exit code; 1 with a message for missing or wrong input.
        """
        arguments = self.parser(name).parse_args(argv)
        return guarded(self._start, arguments)

    @several_processes
    def _start(self, arguments: argparse.Namespace) -> int:
        for flag, reason in self.dead.items():
            if getattr(arguments, flag.lstrip("-").replace("-", "_")) is not None:
                logger.warning("%s has no effect: %s", flag, reason)
        module, function = self.handler.split(":")
        handler = getattr(importlib.import_module(f"infection_mt.studies.{module}"), function)
        if not getattr(handler, "several_processes", False):
            require_one_process(Path(sys.argv[0]).name)
        return int(handler(arguments) or 0)
