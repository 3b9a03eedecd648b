"""The three kinds of panel that the studies draw: lines with a spread, grouped bars, boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from infection_mt.analysis.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, GRAY)
Summary = tuple[ArrayLike, ArrayLike | None]  # means and, if any, standard deviations


def panel_grid(
    n: int, *, columns: int = 3, width: float = 5.5, height: float = 4.2
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` panels in rows of at most ``columns``.

    Args:
        n: At least 1.
        columns: In a row.
        width: Of a panel in inches.
        height: Of a panel in inches.
    """
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = new_figure(width * columns, height * rows, 150)
    axes: list[Axes] = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for spare in axes[n:]:
        spare.set_visible(False)
    return figure, axes[:n]


def line_panel(
    axes: Axes,
    x: ArrayLike,
    series: Mapping[str, Summary],
    *,
    title: str,
    x_label: str,
    y_label: str,
    points: bool = True,
    colors: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw one line a series with a band of one standard deviation; undefined values are gaps.

    Args:
        axes: Where to.
        x: ``[N]``.
        series: Name → (means ``[N]``, standard deviations ``[N]`` or None).
        title: Above the panel.
        x_label: Below it.
        y_label: Left of it.
        points: Mark the values.
        colors: Of the series.
        limits: Values that the metric can take; bands and axis end there.
    """
    at = np.asarray(x, dtype=np.float64)
    for (name, (mean, spread)), color in zip(series.items(), colors or _colors(len(series)), strict=False):
        y = as_floats(mean)
        marker = "o" if points or len(at) == 1 else None
        axes.plot(at, y, color=color, marker=marker, markersize=4, linewidth=1.8, label=name)
        if spread is not None:
            s = as_floats(spread)
            low, high = (-np.inf, np.inf) if limits is None else limits
            band = np.maximum(y - s, low), np.minimum(y + s, high)
            axes.fill_between(at, *band, color=color, alpha=0.15, linewidth=0)
    style_axes(axes, title, x_label, y_label)
    if limits is not None:
        low, high = axes.get_ylim()
        # A little room, so that a line at the limit does not lie on the border.
        room = 0.04 * (min(high, limits[1]) - max(low, limits[0]))
        axes.set_ylim(max(low, limits[0] - room), min(high, limits[1] + room))
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)


def bar_panel(
    axes: Axes,
    categories: Sequence[str],
    series: Mapping[str, Summary],
    *,
    title: str,
    y_label: str,
    colors: Sequence[str] | None = None,
    decimals: int | None = None,
) -> None:
    """Draw one group of bars a category, one bar a series, with standard deviations as whiskers.

    Args:
        axes: Where to.
        categories: Names of the groups.
        series: Name → (heights, standard deviations or None), one a category; NaN leaves a bar out.
        title: Above the panel.
        y_label: Left of it.
        colors: Of the series.
        decimals: Write the heights over the bars with so many decimals.
    """
    width = 0.8 / max(len(series), 1)
    chosen = colors or _colors(len(series))
    for i, ((name, (height, spread)), color) in enumerate(zip(series.items(), chosen, strict=False)):
        x = np.arange(len(categories)) + (i - (len(series) - 1) / 2) * width
        h = as_floats(height)
        error = None if spread is None else np.nan_to_num(as_floats(spread))
        bars = axes.bar(x, h, 0.92 * width, color=color, yerr=error, capsize=3, label=name, ecolor=GRAY)
        if decimals is not None:
            labels = ["" if np.isnan(v) else f"{v:.{decimals}f}" for v in h]
            crowded = len(categories) * len(series) > 8
            axes.bar_label(bars, labels, fontsize=8, padding=3, rotation=90 if crowded else 0)
    axes.set_xticks(range(len(categories)), list(categories))
    axes.set_xlim(-0.6, len(categories) - 0.4)
    style_axes(axes, title, "", y_label)
    axes.grid(False, axis="x")
    axes.margins(y=0.12)
    if len(series) > 1:
        # Above the bars, which begin at 0 and may be of any height.
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        axes.legend(frameon=False, fontsize=9, ncols=min(len(series), 4), loc="upper center")


def box_panel(
    axes: Axes,
    groups: Mapping[str, ArrayLike],
    *,
    title: str,
    y_label: str,
    colors: Sequence[str] | None = None,
) -> None:
    """Draw one box a group: quartiles, median, whiskers at 1.5 quartile ranges; empty groups stay empty.

    Args:
        axes: Where to.
        groups: Name → values.
        title: Above the panel.
        y_label: Left of it.
        colors: Of the boxes.
    """
    values = [v[np.isfinite(v)] for v in (as_floats(group) for group in groups.values())]
    drawn: dict[str, Any] = axes.boxplot(
        values, patch_artist=True, widths=0.6, medianprops={"color": "black"}, flierprops={"markersize": 2.5}
    )
    chosen = list(colors or [BLUE] * len(values))
    for box, color in zip(drawn["boxes"], chosen, strict=False):
        box.set(facecolor=color, alpha=0.6)
    many = len(groups) > 6
    names = [f"{name}\nn = {len(v)}" if not many else name for name, v in zip(groups, values, strict=True)]
    axes.set_xticks(range(1, len(names) + 1), names, rotation=60 if many else 0, fontsize=8 if many else 9)
    style_axes(axes, title, "", y_label)
    axes.grid(False, axis="x")


def as_floats(values: ArrayLike) -> np.ndarray:
    """Return float64 values; None becomes NaN."""
    return np.array([np.nan if v is None else float(v) for v in np.ravel(np.asarray(values, dtype=object))])


def _colors(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]
