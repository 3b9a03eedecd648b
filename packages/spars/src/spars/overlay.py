"""Segmentation and truth as surfaces in space: HTML pages that turn with the mouse, and pictures of them.

Pages need the extra ``overlay`` (plotly, scikit-image) and hold all that they show: they open without a network.
Pictures are drawn with matplotlib, so that no browser is needed to make them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_text
from spars.errors import DataError
from spars.figures import FOUND, TRUTH, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

# The original's names.
PREDICTION_NAME = "final_predictions_3d"
BOTH_NAME = "predicted_and_ground_truth_labels_3d"
_HINT = "3-D overlays need plotly and scikit-image: pip install 'spars[overlay]'"
_MOST_VOXELS = 500_000  # of a box that is meshed voxel by voxel; larger ones are meshed more coarsely
_OPAQUE, _CLEAR = 0.95, 0.2  # the truth is seen through the segmentation


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface of triangles.

    Attributes:
        points: float64 ``[n, 3]`` in millimetres, or voxels where the affine is the identity.
        triangles: int64 ``[m, 3]``, rows of points.
        colour: As HTML writes it.
        opacity: In [0, 1].
    """

    points: NDArray[np.float64]
    triangles: NDArray[np.int64]
    colour: str = FOUND
    opacity: float = _OPAQUE


def find_surface(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Surface:
    """Return the surface of a mask by marching cubes.

    Args:
        mask: bool ``[X, Y, Z]``; an empty one has an empty surface.
        affine: float64 ``[4, 4]``, voxel index to millimetres.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError(_HINT) from error
    if mask.ndim != 3:
        raise DataError(f"a surface needs a mask of three axes, found shape {list(mask.shape)}")
    places = np.argwhere(mask)
    if not len(places):
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    low, high = places.min(axis=0), places.max(axis=0) + 1
    box = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    stride = max(1, int(np.ceil((box.size / _MOST_VOXELS) ** (1 / 3))))
    # Empty voxels around it close the surface; enough of them that a coarse mesh meets them too.
    padded = np.pad(box, stride + 1).astype(np.float32)
    points, triangles, _, _ = marching_cubes(padded, 0.5, step_size=stride)
    voxels = points.astype(np.float64) + low - (stride + 1)
    return Surface(voxels @ affine[:3, :3].T + affine[:3, 3], triangles.astype(np.int64))


def write_overlay(path: Path, surfaces: Mapping[str, Surface], title: str, unit: str = "mm") -> Path:
    """Write surfaces as one HTML page that needs nothing else.

    Args:
        path: The page.
        surfaces: By name, inner ones first.
        title: Of the page.
        unit: Of the axes.

    Raises:
        ImportError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError(_HINT) from error
    shown = [
        go.Mesh3d(
            **dict(zip("xyz", surface.points.T.round(2), strict=True)),
            **dict(zip("ijk", surface.triangles.T, strict=True)),
            color=surface.colour,
            opacity=surface.opacity,
            name=name,
            showlegend=True,
            hoverinfo="name",
        )
        for name, surface in surfaces.items()
        if len(surface.triangles)
    ]
    note = "" if shown else "<br>nothing was segmented"
    axes = {f"{a}axis": {"title": f"{a} ({unit})"} for a in "xyz"}
    figure = go.Figure(shown)
    figure.update_layout(
        title=title + note, scene={**axes, "aspectmode": "data"}, margin={"l": 0, "r": 0, "t": 60, "b": 0}
    )
    page = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    return write_text(path, page)


def draw_surfaces(surfaces: Mapping[str, Surface], title: str, unit: str = "mm") -> Figure:
    """Draw surfaces from two sides.

    Args:
        surfaces: By name, inner ones first.
        title: Of the picture.
        unit: Of the axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(8.4, 4.2), layout="constrained", dpi=110)
    points = [surface.points for surface in surfaces.values() if len(surface.points)]
    everything = np.concatenate(points) if points else np.array([[0.0] * 3, [1.0] * 3])
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.05 * float((high - low).max()) + 1e-6
    for column, turn in enumerate((-60, 30), start=1):
        axis: Any = figure.add_subplot(1, 2, column, projection="3d")
        axis.computed_zorder = False  # in the order given: what is clear comes last
        for surface in surfaces.values():
            if len(surface.triangles):
                looks = {"color": surface.colour, "alpha": surface.opacity, "linewidth": 0}
                axis.plot_trisurf(*surface.points.T, triangles=surface.triangles, **looks)
        for name, a, b in zip("xyz", low - margin, high + margin, strict=True):
            getattr(axis, f"set_{name}lim")(a, b)
            getattr(axis, f"set_{name}label")(f"{name} ({unit})", fontsize=8)
        axis.set_box_aspect(high - low + 2 * margin)
        axis.tick_params(labelsize=7)
        axis.locator_params(nbins=4)
        axis.view_init(elev=22, azim=turn)
    figure.suptitle(title if points else f"{title}: nothing was segmented", fontsize=11)
    names = [Patch(color=surface.colour, label=name) for name, surface in surfaces.items()]
    figure.legend(handles=names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return figure


def write_overlays(
    folder: Path,
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    affine: NDArray[np.float64],
    name: str,
    unit: str = "mm",
) -> list[Path]:
    """Write the segmentation, and it together with the truth, under the original's names.

    The original shows voxels whose sum of scores is exactly 1, and counts them; here the segmentation is shown.

    Args:
        folder: Of the files: ``final_predictions_3d`` and, with a truth,
            ``predicted_and_ground_truth_labels_3d``, each as ``.html`` and ``.png``.
        prediction: bool ``[X, Y, Z]``.
        truth: Same shape; null = not known.
        affine: float64 ``[4, 4]``, voxel index to ``unit``.
        name: Of the case.
        unit: Of the axes.

    Returns:
        The files.

    Raises:
        ImportError: plotly or scikit-image is not installed.
    """
    logger.info("Number of voxels with cancer: %d", np.count_nonzero(prediction))
    found = find_surface(prediction, affine)
    pages: Sequence[tuple[str, str, Mapping[str, Surface]]] = [
        (PREDICTION_NAME, f"{name}: segmentation", {"segmentation": found})
    ]
    if truth is not None:
        inner = replace(find_surface(truth, affine), colour=TRUTH)
        both = {"tumour (truth)": inner, "segmentation": replace(found, opacity=_CLEAR)}
        pages = [*pages, (BOTH_NAME, f"{name}: segmentation and truth", both)]
    files = []
    for file, title, surfaces in pages:
        files.append(write_overlay(folder / f"{file}.html", surfaces, title, unit))
        files.append(save_figure(folder / f"{file}.png", draw_surfaces(surfaces, title, unit)))
    return files
