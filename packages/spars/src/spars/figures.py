"""Pictures of a run: curves of training, methods against each other, and what was found in a volume."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by the colour-blind, on white and on grey: blue, orange (Okabe and Ito).
TRUTH, FOUND = "#56b4e9", "#e69f00"
LEARNER, OTHER = "#0072b2", "#d55e00"
_COLOUR_OF = {"learner": LEARNER, "opponent": OTHER, "training": LEARNER, "validation": OTHER}
_DPI = 110
_ROUGH = 60  # points of a curve from which a running mean is drawn over it
_HU_SHOWN = (-100.0, 250.0)

# Panels of a training curve: title, and columns with their names.
GAME_PANELS = (
    ("windows newly found per step", {"found_per_step": "learner"}),
    ("mean score of the window", {"mean_score1": "learner", "mean_score2": "opponent"}),
    ("share of games won", {"win_rate": "learner"}),
    ("last reward of an iteration", {"last_reward": "learner"}),
    ("Dice of the map", {"dice": "learner"}),
)
CLASSIFIER_PANELS = (
    ("loss", {"train_loss": "training", "val_loss": "validation"}),
    ("AUC of windows", {"val_auc": "validation"}),
    ("accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}),
)


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A volume to look at, in canonical axes (right, front, up).

    Attributes:
        name: Of the case.
        image: HU ``[X, Y, Z]``.
        spacing: Of the voxels, in millimetres.
        prediction: bool ``[X, Y, Z]``.
        truth: bool ``[X, Y, Z]``; null = not known.
        probability: float ``[X, Y, Z]`` in [0, 1]; null = none.
        note: Below the name, such as the Dice.
    """

    name: str
    image: NDArray[Any]
    spacing: tuple[float, float, float]
    prediction: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None = None
    probability: NDArray[Any] | None = None
    note: str = ""

    @property
    def middle(self) -> tuple[int, int, int]:
        """The slices, one for each axis, with the most tumour; where there is none, with the most found."""
        for mask in (self.truth, self.prediction):
            if mask is not None and mask.any():
                x, y, z = (
                    int(mask.sum(axis=tuple(b for b in range(3) if b != axis)).argmax()) for axis in range(3)
                )
                return x, y, z
        x, y, z = (n // 2 for n in self.image.shape)
        return x, y, z


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=_DPI)


def save_figure(path: Path, figure: Figure) -> Path:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return write_bytes(path, buffer.getvalue())


# ---------------------------------------------------------------------- training


def draw_curves(
    rows: Sequence[Mapping[str, Any]], panels: Sequence[tuple[str, Mapping[str, str]]], x: str
) -> Figure | None:
    """Draw the panels for which there are numbers; a long curve gets its running mean.

    Args:
        rows: Of ``curve.csv`` or ``metrics.csv``; missing and undefined values are passed over.
        panels: `GAME_PANELS` or `CLASSIFIER_PANELS`.
        x: Column of the horizontal axis.

    Returns:
        The figure, or null where no panel has a number.
    """
    drawn = []
    for title, columns in panels:
        found = {name: _points(rows, x, column) for column, name in columns.items()}
        found = {name: points for name, points in found.items() if len(points)}
        if found:
            drawn.append((title, found))
    if not drawn:
        return None
    n = len(drawn)
    figure = _figure(3.3 * n + 0.3, 2.9)
    for axis, (title, found) in zip(figure.subplots(1, n, squeeze=False)[0], drawn, strict=True):
        for name, points in found.items():
            _curve(axis, points, name, _COLOUR_OF[name])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(x.replace("_", " "))
        axis.grid(alpha=0.25)
        if len(found) > 1:
            axis.legend(frameon=False, fontsize=8)
    return figure


def _points(rows: Sequence[Mapping[str, Any]], x: str, column: str) -> NDArray[np.float64]:
    pairs: list[tuple[Any, Any]] = [(row.get(x), row.get(column)) for row in rows]
    kept = [(float(a), float(b)) for a, b in pairs if _is_number(a) and _is_number(b)]
    return np.array(kept).reshape(-1, 2)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(float(value))


def _curve(axis: Axes, points: NDArray[np.float64], name: str, colour: str) -> None:
    if len(points) < _ROUGH:
        axis.plot(points[:, 0], points[:, 1], color=colour, marker="o", markersize=2.5, lw=1.2, label=name)
        return
    width = max(5, len(points) // 20)
    kernel = np.ones(width) / width
    axis.plot(points[:, 0], points[:, 1], color=colour, lw=0.6, alpha=0.3)
    middle = points[(width - 1) // 2 :][: len(points) - width + 1, 0]
    axis.plot(middle, np.convolve(points[:, 1], kernel, "valid"), color=colour, lw=1.6, label=name)


def draw_win_rates(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how the learner fared against each frozen copy that is left in the pool.

    Args:
        rows: Of ``opponents.csv``.
    """
    figure = _figure(max(3.6, 0.6 * len(rows) + 1.6), 2.9)
    axis = figure.subplots()
    places = np.arange(len(rows))
    left = np.zeros(len(rows))
    parts = (("wins", LEARNER, "won"), ("draws", "0.8", "even"), ("losses", OTHER, "lost"))
    games = np.array([sum(int(row[key]) for key, _, _ in parts) for row in rows])
    for key, colour, name in parts:
        share = np.array([int(row[key]) for row in rows]) / games.clip(1)
        axis.bar(places, share, 0.75, left, color=colour, label=name)
        left += share
    for place, n in enumerate(games.tolist()):
        looks = {"ha": "center", "va": "bottom", "fontsize": 7}
        axis.text(place, 0.02, f"n = {n}" if n else "no game", color="white" if n else "0.4", **looks)
    axis.axhline(0.5, color="0.3", lw=0.8, ls=":")
    axis.set(ylim=(0, 1), ylabel="share of games", xlabel="opponent: copy frozen after iteration")
    axis.set_xticks(places, [str(row["iteration"]) for row in rows])
    axis.legend(
        frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2
    )
    return figure


# ---------------------------------------------------------------------- methods


def draw_methods(values: Mapping[str, Mapping[str, float]], shown: str | None = None) -> Figure:
    """Draw the Dice of each method: a box over patients, and every patient as a point.

    Args:
        values: Method → case → Dice.
        shown: The method to set off.
    """
    names = list(values)
    figure = _figure(6.4, 0.34 * len(names) + 1.1)
    axis = figure.subplots()
    places = np.arange(len(names))[::-1]
    rng = np.random.default_rng(0)  # of the scatter across a box
    for place, name in zip(places, names, strict=True):
        dice = np.array(list(values[name].values()))
        colour = FOUND if name == shown else TRUTH
        if len(dice) > 1:
            box = axis.boxplot(
                [dice], positions=[place], orientation="horizontal", widths=0.6, showfliers=False
            )
            for part in (line for lines in box.values() for line in lines):
                part.set(color="0.45", lw=1)
        across = place + rng.uniform(-0.16, 0.16, len(dice))
        axis.scatter(dice, across, s=14, color=colour, edgecolor="0.25", linewidth=0.4, zorder=3)
        axis.scatter([dice.mean()], [place], marker="D", s=26, color="black", zorder=4)
    axis.set_yticks(places, [name.replace("_", " ") for name in names], fontsize=8)
    axis.set(xlabel="Dice (point: patient, diamond: mean, line: median)", xlim=(-0.02, 1.02))
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="x", alpha=0.25)
    return figure


def draw_dice_over_share(
    points: Sequence[tuple[str, float, float, float | None]], shown: str = "agent"
) -> Figure:
    """Draw the Dice that methods reach against the share of windows they score.

    Args:
        points: Name, share in (0, 1], mean Dice and its standard deviation over patients; several of one name, such
            as one agent at several budgets, are joined.
        shown: The method to set off.
    """
    figure = _figure(6.4, 3.4)
    axis = figure.subplots()
    names = list(dict.fromkeys(point[0] for point in points))
    markers = "osD^vP*Xph<>"
    cycle = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "0.35", "#d55e00", "#f0e442", "0.65")
    others = [name for name in names if name != shown]
    beside = _beside(points)
    for name in names:
        mine = sorted((p for p in points if p[0] == name), key=lambda p: p[1])
        number = others.index(name) if name in others else 0
        colour = FOUND if name == shown else cycle[number % len(cycle)]
        axis.errorbar(
            [p[1] * beside[name] for p in mine],
            [p[2] for p in mine],
            [p[3] or 0 for p in mine],
            color=colour,
            marker="o" if name == shown else markers[1 + number % 11],
            markersize=10 if name == shown else 7,
            markeredgecolor="0.2",
            elinewidth=0.8,
            capsize=2,
            ls="-" if len(mine) > 1 else "none",
            label=name.replace("_", " "),
            zorder=4 if name == shown else 3,
        )
    axis.set(xscale="log", xlabel="share of windows scored", ylabel="Dice (bar: sd over patients)")
    low = min(p[1] for p in points)
    axis.set_xlim(min(0.02, low / 1.5), 1.3)
    ticks = [tick for tick in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if tick >= low / 2]
    axis.set_xticks(ticks, [f"{tick:.1%}" if tick < 0.01 else f"{tick:.0%}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _beside(points: Sequence[tuple[str, float, float, float | None]]) -> dict[str, float]:
    """Return factors that put methods of the same share next to each other instead of on top."""
    shares: dict[float, list[str]] = {}
    for name, share, *_ in points:
        group = shares.setdefault(round(math.log10(share), 1), [])
        if name not in group:
            group.append(name)
    largest = sorted(shares.values(), key=len)  # a method is placed by the largest group that it is in
    return {
        name: 10 ** (0.03 * (k - (len(group) - 1) / 2)) for group in largest for k, name in enumerate(group)
    }


# ---------------------------------------------------------------------- volumes


def draw_montage(cases: Sequence[ShownCase]) -> Figure:
    """Draw three planes of each case through the largest cross-sections of its tumour, with outlines.

    Args:
        cases: One a row.
    """
    figure = _figure(8.2, 2.75 * len(cases) + 0.45)
    grid = figure.subplots(len(cases), 3, squeeze=False)
    for row, case in zip(grid, cases, strict=True):
        for axis, plane in zip(row, (2, 1, 0), strict=True):
            _show_slice(axis, case, plane)
            _outline(axis, case, case.truth, plane, TRUTH)
            _outline(axis, case, case.prediction, plane, FOUND)
        row[0].set_ylabel(f"{case.name}\n{case.note}".strip(), fontsize=9)
    for axis, title in zip(grid[0], ("axial", "coronal", "sagittal"), strict=True):
        axis.set_title(title, fontsize=10)
    _explain(figure, truth=any(case.truth is not None for case in cases))
    return figure


def draw_probability(case: ShownCase, label: str = "probability") -> Figure:
    """Draw the probability map of a case in three planes, with the outlines of truth and segmentation.

    Args:
        case: With a probability map.
        label: Of the colours.

    Raises:
        ValueError: The case has no probability map.
    """
    if case.probability is None:
        raise ValueError(f"{case.name}: has no probability map to draw")
    figure = _figure(8.6, 3.3)
    axes = figure.subplots(1, 3)
    shown = None
    for axis, plane, title in zip(axes, (2, 1, 0), ("axial", "coronal", "sagittal"), strict=True):
        extent, aspect = _show_slice(axis, case, plane)
        values = _slice(case.probability, case, plane)
        shown = axis.imshow(
            np.ma.masked_less(values, 0.02),
            cmap="magma",
            vmin=0,
            vmax=1,
            alpha=0.65,
            origin="lower",
            extent=extent,
            aspect=aspect,
        )
        _outline(axis, case, case.truth, plane, TRUTH)
        _outline(axis, case, case.prediction, plane, FOUND)
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel(f"{case.name}\n{case.note}".strip(), fontsize=9)
    assert shown is not None  # noqa: S101 - there are three planes
    figure.colorbar(shown, ax=list(axes), shrink=0.8, label=label)
    _explain(figure, truth=case.truth is not None)
    return figure


def _slice(array: NDArray[Any], case: ShownCase, plane: int) -> NDArray[Any]:
    """Return a plane with rows upwards and columns to the right."""
    return np.take(array, case.middle[plane], axis=plane).T


def _show_slice(axis: Axes, case: ShownCase, plane: int) -> tuple[tuple[float, float, float, float], float]:
    across, up = (other for other in range(3) if other != plane)
    low, high = _HU_SHOWN
    values = _slice(case.image, case, plane).astype(np.float32)
    if values.max() <= 1 and values.min() >= 0:
        low, high = 0.0, 1.0
    size = values.shape
    extent, aspect = (-0.5, size[1] - 0.5, -0.5, size[0] - 0.5), case.spacing[up] / case.spacing[across]
    axis.imshow(values, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, aspect=aspect)
    # Square panels of one size in millimetres, black where the volume ends, so that all line up.
    half = max(n * mm for n, mm in zip(case.image.shape, case.spacing, strict=True)) / 2
    for limits, n, mm in ((axis.set_xlim, size[1], across), (axis.set_ylim, size[0], up)):
        middle, reach = (n - 1) / 2, half / case.spacing[mm]
        limits(middle - reach, middle + reach)
    axis.set(xticks=[], yticks=[], facecolor="black", autoscale_on=False)
    return extent, aspect


def _outline(axis: Axes, case: ShownCase, mask: NDArray[np.bool_] | None, plane: int, colour: str) -> None:
    if mask is None:
        return
    values = _slice(mask, case, plane)
    if values.any():
        # A rim of zeros closes outlines at the border of the volume.
        places = [np.arange(-1, n + 1) for n in (values.shape[1], values.shape[0])]
        axis.contour(*places, np.pad(values, 1).astype(float), [0.5], colors=[colour], linewidths=1.6)


def _explain(figure: Figure, *, truth: bool) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=FOUND, lw=2, label="segmentation")]
    if truth:
        lines.insert(0, Line2D([], [], color=TRUTH, lw=2, label="tumour (truth)"))
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
