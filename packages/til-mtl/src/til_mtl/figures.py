"""Pictures of a run: what the network saw, what was annotated, what it said."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_bytes
from til_mtl.config import IGNORE_INDEX

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medshared.metrics.detection import FrocCurve

# RGB of other, tumour, stroma; readable for people who do not tell red from green.
COLOURS = np.array([[180, 180, 180], [213, 94, 0], [0, 114, 178]], dtype=np.uint8)
TRUE_CELL, FOUND_CELL = "#00e676", "#ffd400"  # both stand out on dark nuclei


def tissue_overlay(
    image: NDArray[np.uint8], classes: NDArray[np.integer], opacity: float = 0.45
) -> NDArray[np.uint8]:
    """Lay the colours of the tissue classes over an image.

    Args:
        image: uint8 [H, W, 3].
        classes: [H, W], 0 other, 1 tumour, 2 stroma; pixels that nobody annotated stay as they are.
        opacity: 0–1.
    """
    known = (classes != IGNORE_INDEX) & (classes < len(COLOURS))
    colours = COLOURS[np.where(known, classes, 0)]
    mixed = (1 - opacity) * image + opacity * colours
    return np.where(known[..., None], mixed, image).round().astype(np.uint8)


def draw_patches(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw patches, one a row: image, annotation, prediction.

    Args:
        rows: Each with ``image`` [H, W, 3]; ``truth`` and ``prediction`` as class maps [H, W] for tissue, or as points
            [n, 2+] for cells; and ``name``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 2.2 * len(rows)), layout="constrained", dpi=110)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, key in zip(line, ("image", "truth", "prediction"), strict=True):
            value = row["image"] if key == "image" else row[key]
            if key == "image":
                axis.imshow(row["image"])
                axis.set_ylabel(row["name"][-18:], fontsize=7)
            elif value.ndim == 2 and value.shape == row["image"].shape[:2]:
                axis.imshow(tissue_overlay(row["image"], value))
            else:
                axis.imshow(row["image"])
                colour = TRUE_CELL if key == "truth" else FOUND_CELL
                # Points count from the corner of a pixel, pictures from its centre.
                axis.scatter(
                    value[:, 0] - 0.5,
                    value[:, 1] - 0.5,
                    s=34,
                    linewidths=1.4,
                    facecolors="none",
                    edgecolors=colour,
                )
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], ("image", "annotated", "predicted"), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def draw_learning(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Figure:
    """Draw values of ``metrics.csv`` over epochs, training and validation together.

    Args:
        rows: Of the table.
        keys: Names without ``train_`` and ``val_``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(keys), 2.8), layout="constrained", dpi=110)
    for axis, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        for part, colour in (("train", "0.55"), ("val", "#b3541e")):
            points = [
                (row["step"], row[f"{part}_{key}"])
                for row in rows
                if isinstance(row.get(f"{part}_{key}"), float)
            ]
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, marker="o", markersize=3, color=colour, label=part)
        axis.set(title=key, xlabel="step")
        if axis.lines:
            axis.legend(frameon=False, fontsize=8)
    return figure


def draw_froc(curves: Mapping[str, FrocCurve]) -> Figure:
    """Draw FROC curves as the staircases that they are.

    Args:
        curves: Name → curve.
    """
    from matplotlib.figure import Figure

    from medshared.metrics.detection import TARGETS, froc_score

    figure = Figure(figsize=(4.8, 3.6), layout="constrained", dpi=110)
    axis = figure.subplots()
    for name, curve in curves.items():
        shown = curve.false_positives <= max(TARGETS)
        x = np.concatenate([[0.0], curve.false_positives[shown]])
        y = np.concatenate([[0.0], curve.sensitivities[shown]])
        # The stair goes on to the right edge at the height it has there.
        x, y = np.append(x, max(TARGETS)), np.append(y, y[-1])
        axis.step(x, y, where="post", label=f"{name} ({froc_score(curve):.3f})")
    for target in TARGETS:
        axis.axvline(target, color="0.85", linewidth=0.8, zorder=0)
    axis.set(xlabel="false positives per mm²", ylabel="sensitivity", xlim=(0, max(TARGETS)), ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize=8)
    return figure


def save_figure(path: Path, figure: Figure) -> Path:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())
