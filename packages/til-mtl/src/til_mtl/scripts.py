"""Entry points of the original's scripts: the same names and flags over the same code as ``til-mtl``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from medshared.command_line import guarded
from medshared.processes import several_processes
from til_mtl.config import Task


def _train_script(task: Task, text: str, argv: Sequence[str] | None) -> int:
    from til_mtl.flags import add_run_options

    parser = argparse.ArgumentParser(description=text)
    add_run_options(parser, task)
    arguments = parser.parse_args(argv)
    arguments.task = task
    return _guarded("train", arguments)


def _guarded(name: str, arguments: argparse.Namespace) -> int:
    def handler(parsed: argparse.Namespace) -> int:
        from til_mtl import commands

        return getattr(commands, name)(parsed)

    return guarded(several_processes(handler) if name == "train" else handler, arguments)


def main_mtl(argv: Sequence[str] | None = None) -> int:
    """Run ``MTL/main.py``: the multi-task network."""
    return _train_script("mtl", "Train the multi-task network (tissue and cells).", argv)


def main_seg(argv: Sequence[str] | None = None) -> int:
    """Run ``STL/Seg_main.py``: the single-task tissue network."""
    return _train_script("seg", "Train the single-task tissue segmentation network.", argv)


def main_det(argv: Sequence[str] | None = None) -> int:
    """Run ``STL/det_main.py``: the single-task cell network."""
    return _train_script("det", "Train the single-task lymphocyte detection network.", argv)


def prepare_tiger(argv: Sequence[str] | None = None) -> int:
    """Run ``prepare_tiger.py``: the TIGER download → patch folders."""
    from til_mtl.prepare.options import add_prepare_options

    parser = argparse.ArgumentParser(description="Turn the TIGER download into patch folders.")
    add_prepare_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return _guarded("prepare", parser.parse_args(argv))


def predict(argv: Sequence[str] | None = None) -> int:
    """Run ``TIL_prediction/predict.py``: slides → maps, cells, TIL scores."""
    from til_mtl.slides.options import add_predict_options

    parser = argparse.ArgumentParser(description="Whole slides to tissue maps, cells and TIL scores.")
    add_predict_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return _guarded("predict", parser.parse_args(argv))


def evaluate_scores(argv: Sequence[str] | None = None) -> int:
    """Run ``TIL_prediction/evaluate.py``: predicted TIL scores against visual ones."""
    from til_mtl.cli import add_score_options

    parser = argparse.ArgumentParser(description="Agreement of predicted TIL scores with visual ones.")
    add_score_options(parser)
    return _guarded("evaluate_score_table", parser.parse_args(argv))


def evaluate_l1(argv: Sequence[str] | None = None) -> int:
    """Run ``TIL_prediction/evaluate_l1.py``: Dice and FROC as TIGER's leaderboard 1 defines them."""
    from til_mtl.cli import add_l1_options

    parser = argparse.ArgumentParser(description="TIGER leaderboard 1: Dice and FROC over ROIs.")
    add_l1_options(parser)
    return _guarded("evaluate_regions", parser.parse_args(argv))
