"""``extract_error_montages.py``: the surest mistakes and the largest time errors as tables and pictures."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.analysis.display import display_image
from infection_mt.analysis.errors import largest_time_errors, sample_table, wrong_decisions
from infection_mt.analysis.plots import GRAY, save_figure
from infection_mt.prediction_table import Predictions
from infection_mt.sample_keys import well_and_position
from infection_mt.studies.panels import panel_grid
from infection_mt.studies.run_folders import target_settings
from medshared.images import StackError, StackReader
from medshared.tables import read_jsonl, write_table

logger = logging.getLogger(__name__)


def extract(arguments: argparse.Namespace) -> int:
    """Write ``cls_mistakes_topK.csv``, ``reg_errors_topK.csv`` and a montage of each."""
    p = _load(arguments)
    output = arguments.out_dir or arguments.run_dir / "error_montages"
    chosen: dict[str, np.ndarray] = {}
    if p.has_classes:
        chosen[f"cls_mistakes_top{arguments.cls_topk}"] = wrong_decisions(p, arguments.cls_topk)
    if p.has_time:
        chosen[f"reg_errors_top{arguments.reg_topk}"] = largest_time_errors(p, arguments.reg_topk)
    for name, indices in chosen.items():
        if not len(indices):
            logger.info("%s: nothing to show: no decision is wrong", name)
            continue
        rows = sample_table(p, indices)
        logger.info("wrote %s", write_table(output / f"{name}.csv", rows))
        logger.info(
            "wrote %s", save_figure(output / f"{name}.png", montage(rows, columns=arguments.montage_cols))
        )
    return 0


def _load(arguments: argparse.Namespace) -> Predictions:
    p = Predictions.load(arguments.run_dir, **target_settings(arguments.run_dir))
    if arguments.metadata_jsonl is None:
        return p
    metadata = read_jsonl(arguments.metadata_jsonl)
    if len(metadata) != len(p):
        raise ValueError(
            f"{arguments.metadata_jsonl}: describes {len(metadata)} frames, but {arguments.run_dir} has {len(p)}"
        )
    return Predictions(
        **{**{name: getattr(p, name) for name in p.__dataclass_fields__}, "metadata": metadata}
    )


def montage(rows: Sequence[Mapping[str, Any]], *, columns: int = 5) -> Any:
    """Draw the frames of a table with truth and prediction above each; an unreadable page is named in its place.

    Args:
        rows: Of :func:`infection_mt.analysis.errors.sample_table`.
        columns: Pictures in a row.
    """
    figure, panels = panel_grid(len(rows), columns=columns, width=2.9, height=3.3)
    for axes, row in zip(panels, rows, strict=True):
        try:
            axes.imshow(read_page(row), cmap="gray", vmin=0, vmax=1)
        except (StackError, OSError) as error:
            logger.warning("%s", error)
            axes.text(0.5, 0.5, "not readable", transform=axes.transAxes, ha="center", color=GRAY)
        axes.set_title(_caption(row), fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def read_page(row: Mapping[str, Any]) -> np.ndarray:
    """Return the frame of a table row, scaled for showing, shape ``[H, W]``.

    Raises:
        OSError: The stack is not there.
        StackError: The page cannot be read.
    """
    path = Path(str(row["path"]))
    with StackReader(path) as reader:
        page = np.asarray(reader.page(int(row["frame_index"])))
    return display_image(page if page.ndim == 2 else page[..., :3].mean(axis=-1))


def _caption(row: Mapping[str, Any]) -> str:
    well, position = well_and_position(str(row["path"]))
    place = f"{well or ''} p{position}".strip() if position else Path(str(row["path"])).stem
    truth = "infected" if row["label"] == 1 else "mock"
    lines = [f"{place}, {row['hours_since_start']:g} h, {truth}"]
    if np.isfinite(row["cls_prob"]):
        lines.append(f"P(infected) {row['cls_prob']:.3f}")
    if np.isfinite(row["time_pred"]):
        lines.append(f"time {row['time_pred']:.1f} h, true {row['time_target']:.1f} h")
    return "\n".join(lines)
