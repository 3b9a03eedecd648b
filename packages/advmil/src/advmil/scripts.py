"""Entry points of the original's scripts: the same names and flags over the same code as ``advmil``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from advmil.cli import add_device, add_run_options
from medshared.command_line import guarded
from medshared.processes import several_processes


def main_script(argv: Sequence[str] | None = None) -> int:
    """Run ``main.py``: AdvMIL or a baseline, one run or a grid; semi-supervised and test mode by the YAML's keys."""
    parser = argparse.ArgumentParser(
        description="Train AdvMIL (--handler adv) or a baseline (--handler base)."
    )
    add_run_options(parser)
    arguments = parser.parse_args(argv)

    @several_processes
    def handler(parsed: argparse.Namespace) -> int:
        from advmil import commands

        return commands.train(parsed)

    return guarded(handler, arguments)


def model_stats(argv: Sequence[str] | None = None) -> int:
    """Run ``model_stats.py``: a network, its parameters and multiply-adds for one bag."""
    parser = argparse.ArgumentParser(description="Parameters and multiply-adds of a network for one bag.")
    parser.add_argument("-a", "--api", choices=["thop", "ptflops"], default="ptflops", help="no effect")
    parser.add_argument("-m", "--model", choices=["G", "D"], default="D")
    parser.add_argument("-b", "--backbone", choices=["cluster", "graph", "patch", "abmil"], default="patch")
    parser.add_argument("--num_patches", type=int, default=3360, help="of the synthetic bag")
    parser.add_argument("--config", "-f", type=Path, help="take the networks from this file")
    add_device(parser)
    arguments = parser.parse_args(argv)

    def handler(parsed: argparse.Namespace) -> int:
        from advmil.model_stats import show_model_stats

        return show_model_stats(parsed.model, parsed.backbone, parsed.num_patches, parsed.config)

    return guarded(handler, arguments)
