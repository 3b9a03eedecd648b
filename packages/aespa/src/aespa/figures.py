"""Pictures: Dice by round, masks over images, proposals, and the course of training."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by the colour-blind, on grey too (Okabe and Ito).
TRUTH, FOUND = "#56b4e9", "#e69f00"
INSIDE, OUTSIDE = "#009e73", "#d55e00"
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
_DPI = 110


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a grid.

    Attributes:
        image: ``[H, W]`` or ``[H, W, 3]``.
        title: Above it.
        found: bool ``[H, W]``, filled; null = none.
        truth: bool ``[H, W]``, outlined; null = none.
        clicks: (x, y, label) of each click.
        heat: float ``[H, W]`` in [0, 1] instead of the image; null = the image.
    """

    image: NDArray[Any]
    title: str = ""
    found: NDArray[np.bool_] | None = None
    truth: NDArray[np.bool_] | None = None
    clicks: Sequence[tuple[float, float, int]] = field(default_factory=tuple)
    heat: NDArray[np.floating[Any]] | None = None


def draw_rounds(curves: Mapping[str, Sequence[float]], levels: Mapping[str, float]) -> Figure:
    """Draw Dice by round.

    Args:
        curves: Name → mean Dice of every round; they may have different lengths.
        levels: Name → Dice of what knows no rounds, drawn as a dashed line.
    """
    figure = _figure((7.2, 4.2))
    axes = figure.add_subplot()
    for i, (name, values) in enumerate(curves.items()):
        axes.plot(range(len(values)), values, marker="o", color=_COLOURS[i % len(_COLOURS)], label=name)
    for i, (name, value) in enumerate(levels.items()):
        axes.axhline(value, color="0.35", linestyle=("--", ":", "-.")[i % 3], label=name)
    axes.set(xlabel="round", ylabel="Dice to the followed rater")
    axes.set_xticks(range(max(map(len, curves.values()), default=1)))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure


def draw_grid(rows: Sequence[Sequence[Panel]], row_titles: Sequence[str] = ()) -> Figure:
    """Draw pictures in a grid: masks filled in orange, the followed rater outlined in blue, clicks as dots.

    Args:
        rows: Panels row by row.
        row_titles: On the left of every row.
    """
    n_columns = max(map(len, rows))
    figure = _figure((1.75 * n_columns + 0.4, 2.05 * len(rows)))
    grid = np.atleast_2d(figure.subplots(len(rows), n_columns, squeeze=False))
    for i, panels in enumerate(rows):
        for j in range(n_columns):
            axes = grid[i, j]
            axes.set_xticks([])
            axes.set_yticks([])
            if j >= len(panels):
                axes.axis("off")
                continue
            _draw_panel(axes, panels[j])
        if i < len(row_titles):
            grid[i, 0].set_ylabel(row_titles[i], fontsize=9)
    figure.tight_layout(pad=0.4, h_pad=0.9)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.colors import to_rgb

    if panel.heat is not None:
        axes.imshow(panel.heat, cmap="magma", vmin=0, vmax=1)
    else:
        axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255)
    if panel.found is not None:
        shade = np.zeros((*panel.found.shape, 4))
        shade[..., :3] = to_rgb(FOUND)
        shade[..., 3] = 0.45 * panel.found
        axes.imshow(shade)
    if panel.truth is not None and panel.truth.any():
        axes.contour(panel.truth.astype(float), levels=[0.5], colors=[TRUTH], linewidths=1.2)
    for x, y, label in panel.clicks:
        colour, marker = (INSIDE, "+") if label else (OUTSIDE, "x")
        axes.plot(x, y, marker=marker, color=colour, markersize=6, markeredgewidth=1.8)
    axes.set_title(panel.title, fontsize=8)


def draw_training(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the course of a training.

    Args:
        rows: Of ``metrics.csv``.
    """
    figure = _figure((8.4, 3.2))
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["train_loss"] for row in rows], color=_COLOURS[0], marker=".")
    left.set(xlabel="epoch", ylabel="training loss, sum over rounds")
    validated = [row for row in rows if "val_dice" in row]
    n = 0
    while validated and f"val_dice_r{n}" in validated[0]:
        n += 1
    for number in range(n):
        values = [row.get(f"val_dice_r{number}", math.nan) for row in validated]
        shade = 0.25 + 0.75 * number / max(n - 1, 1)
        right.plot(
            [row["epoch"] for row in validated],
            values,
            marker=".",
            color=_COLOURS[0],
            alpha=shade,
            label=f"round {number}",
        )
    right.set(xlabel="epoch", ylabel="Dice, validation")
    if n:
        right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def save_figure(path: Path, figure: Figure) -> Path:
    """Write a figure as PNG, atomically, and return its path."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(path, buffer.getvalue())


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size)
