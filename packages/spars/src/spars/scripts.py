"""Entry points of the original's scripts: their names and constants over the same code as ``spars``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from medshared.command_line import guarded
from medshared.processes import several_processes
from spars.flags import Stage


def train_classifier(preset: str, argv: Sequence[str] | None = None) -> int:
    """Run ``net_global.py`` or one of ``classifier_experiments/``.

    Args:
        preset: Whose constants the script has.
        argv: Arguments; null = those of the process.
    """
    return _run("classifier", "train_classifier", preset, argv)


def play(preset: str, argv: Sequence[str] | None = None) -> int:
    """Run ``best_RL.py`` or one of the experiments on thresholds and windows.

    Args:
        preset: Whose constants the script has.
        argv: Arguments; null = those of the process.
    """
    return _run("game", "train", preset, argv)


def _run(stage: Stage, handler_name: str, preset: str, argv: Sequence[str] | None) -> int:
    from spars.flags import add_run_options
    from spars.presets import find_preset

    text = find_preset(preset).text
    parser = argparse.ArgumentParser(description=text[0].upper() + text[1:] + ".")
    add_run_options(parser, stage, preset)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

    @several_processes  # or the command refuses them
    def handler(arguments: argparse.Namespace) -> int:
        from spars import commands

        return getattr(commands, handler_name)(arguments)

    return guarded(handler, parser.parse_args(argv))
