"""Entry points of the original's scripts: the same names and flags over the same code as ``aespa``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from medshared.command_line import guarded
from medshared.processes import several_processes

AddFlags = Callable[[argparse.ArgumentParser], None]


def _run(handler_name: str, text: str, add_flags: AddFlags, argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=text, allow_abbrev=False)
    add_flags(parser)

    def handler(parsed: argparse.Namespace) -> int:
        from aespa import commands

        return getattr(commands, handler_name)(parsed)

    together = handler_name == "train"
    return guarded(several_processes(handler) if together else handler, parser.parse_args(argv))


def train(argv: Sequence[str] | None = None) -> int:
    """Run ``train.py``."""
    from aespa.flags import add_train_options

    return _run("train", "Train AESPA, SPA or a plain SAM.", add_train_options, argv)


def val(argv: Sequence[str] | None = None) -> int:
    """Run ``val.py``."""
    from aespa.flags import add_evaluate_options

    return _run("evaluate", "Measure a checkpoint.", add_evaluate_options, argv)


def process_mbhseg(argv: Sequence[str] | None = None) -> int:
    """Run ``process_mbhseg.py``: volumes → slices."""
    from aespa.cli import add_volume_options

    return _run("process_mbhseg", "Cut MBHSeg's volumes into slices.", add_volume_options, argv)


def aespa_demo(argv: Sequence[str] | None = None) -> int:
    """Run ``aespa_demo.py``: the page to click on."""
    from aespa.cli import add_serve_options

    return _run("serve", "Serve the page to click on.", add_serve_options, argv)


def predict(argv: Sequence[str] | None = None) -> int:
    """Run ``predict.py``: images and volumes → masks."""
    from aespa.cli import add_prediction_flags

    return _run("predict", "Segment images and volumes.", add_prediction_flags, argv)
