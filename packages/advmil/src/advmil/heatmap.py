"""Attention over a slide: picture, QuPath GeoJSON, OME-TIFF and table."""

from __future__ import annotations

import argparse
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from advmil.attention import PatchAttention, attend, percentile_ranks, write_attention
from advmil.data.regions import REGION, SIDE, typical_step
from advmil.errors import DataError
from advmil.new_bags import (
    FEATURE_SUFFIXES,
    SlideBag,
    assemble_patient,
    find_beside,
    find_coordinates,
    read_slide_bag,
)
from medshared.batch import ITEM_ERRORS
from medshared.files import write_bytes

if TYPE_CHECKING:
    from medshared.slides import Slide

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
PICTURE_PX = 1600
COLOURS = "viridis"  # perceptually uniform, and far from the pink of the stain
OPACITY = 0.55
FINEST = 8  # cells of the map along a patch, at most


class HeatmapFiles(NamedTuple):
    """What was written for one slide.

    Attributes:
        picture: ``<slide>.png``, the slide with percentile ranks in colour.
        geojson: ``<slide>.geojson``, one square a patch (or region) for QuPath.
        ome_tiff: ``<slide>.ome.tiff``, attention at the resolution of the patches.
        table: ``<slide>.csv``, one row a patch.
    """

    picture: Path
    geojson: Path
    ome_tiff: Path
    table: Path


@dataclass(frozen=True)
class AttentionMap:
    """Attention on a regular grid over the slide.

    Attributes:
        weights: Mean weight of the patches that cover a cell, float32 ``[rows, columns]``; NaN where none does.
        ranks: The same of the percentile ranks.
        origin: (x, y) of the first cell's corner in level-0 pixels; less than a cell each.
        cell: Side of a cell in level-0 pixels.
    """

    weights: NDArray[np.float32]
    ranks: NDArray[np.float32]
    origin: tuple[float, float]
    cell: float


def heatmap_of_slide(
    run_folder: Path | Sequence[Path],
    slide: Path,
    features: Path,
    coordinates: Path | None,
    output: Path,
    *,
    spacing_um: float | None = None,
    device: str = "cpu",
) -> HeatmapFiles:
    """Draw the attention of a trained model over one slide, taken by itself.

    Args:
        run_folder: Run directory; of several, the mean of their weights.
        slide: The slide.
        features: Its features, ``.pt`` or ``.h5``.
        coordinates: CLAM file of the coordinates, for features that have none; may be null for others.
        output: Folder of the four files, which carry the slide's name.
        spacing_um: µm per pixel of level 0, in place of what the slide says.
        device: Of the network.

    Returns:
        The files; the table, written last, marks that all are there.

    Raises:
        DataError: Features, coordinates and slide do not belong together.
        medshared.slides.SlideError: The slide cannot be read.
    """
    from advmil.run_files import load_model
    from medshared.gpu import select_device

    folders = [run_folder] if isinstance(run_folder, Path) else list(run_folder)
    chosen = select_device(device)
    models = [load_model(folder, chosen) for folder in folders]
    return _draw(models, slide, features, coordinates, output, spacing_um, chosen)


def _draw(
    models: Sequence[Any],
    slide: Path,
    features: Path,
    coordinates: Path | None,
    output: Path,
    spacing_um: float | None,
    device: Any,
) -> HeatmapFiles:
    from medshared.slides import open_slide

    bag = read_slide_bag(features, coordinates, slide.stem)
    if bag.coordinates is None:
        raise DataError(
            f"{features}: no coordinates of the patches: give --coordinates, or h5 files with them"
        )
    with open_slide(slide, spacing_um) as opened:
        bags = [assemble_patient(model.run.config.resolved(), slide.stem, [bag]) for model in models]
        attention = attend(models, bags, device)
        xy, size = _places(opened, bag, attention)
        grid = attention_map(attention, xy, size, opened.dimensions)
        picture = draw_overlay(opened, grid)
        spacing = opened.spacing_um
    if spacing is None:
        logger.warning("%s: µm per pixel unknown: the OME-TIFF has no physical size (--spacing-um)", slide)
    by_region = all(model.run.config.bcb_mode == "patch" for model in models)
    files = HeatmapFiles(
        *(output / f"{slide.stem}{suffix}" for suffix in (".png", ".geojson", ".ome.tiff", ".csv"))
    )
    content = ome_tiff(grid, spacing, slide.stem)
    write_bytes(files.picture, picture)
    write_bytes(files.ome_tiff, content)
    write_squares(files.geojson, attention, xy, size, by_region)
    write_attention(files.table, attention, slide.stem)
    return files


def _places(slide: Slide, bag: SlideBag, attention: PatchAttention) -> tuple[Floats, float]:
    """Return corners and side of the patches in level-0 pixels, checked against the slide."""
    xy = attention.coordinates
    if xy is None or bag.coordinates is None:
        raise DataError(f"{bag.bag.path}: no coordinates of the patches")
    size = bag.patch_size or typical_step(bag.coordinates)
    if not bag.in_pixels:
        xy, size = xy / slide.require_spacing(), size / slide.require_spacing()
    if not np.isfinite(xy).all() or (xy < 0).any() or (xy >= np.asarray(slide.dimensions)).any():
        worst = xy.max(axis=0).astype(int).tolist()
        raise DataError(
            f"{bag.bag.path}: patches lie at up to {worst}, outside {slide.path.name} of "
            f"{slide.dimensions[0]} x {slide.dimensions[1]} pixels: the coordinates are another slide's"
        )
    return xy, size


def attention_map(
    attention: PatchAttention, xy: Floats, size: float, dimensions: tuple[int, int]
) -> AttentionMap:
    """Lay attention on a grid over the slide; where patches overlap, the mean counts.

    A cell is a patch where the patches lie side by side, else their common step (at the finest an eighth of a
    patch, to which the corners of patches on no common grid are rounded).

    Args:
        attention: Of the patches.
        xy: Top left corners in level-0 pixels, ``[n, 2]``.
        size: Side of a patch in level-0 pixels.
        dimensions: (width, height) of the slide.
    """
    whole = np.rint(xy).astype(np.int64)
    side = max(1, round(size))
    steps = np.append((whole - whole.min(axis=0)).ravel(), side)
    common = int(np.gcd.reduce(steps))
    cell = float(common) if common * FINEST >= side else side / FINEST
    origin = whole.min(axis=0) % cell
    shape = tuple(math.ceil((edge - start) / cell) for edge, start in zip(dimensions, origin, strict=True))
    first = np.rint((whole - origin) / cell).astype(np.int64)
    rank = attention.rank
    across = max(1, round(side / cell))
    total, ranks, count = (np.zeros((shape[1], shape[0])) for _ in range(3))
    for dx in range(across):
        for dy in range(across):
            place = first + np.array([dx, dy])
            inside = (place < shape).all(axis=1)
            index = (place[inside, 1], place[inside, 0])
            np.add.at(total, index, attention.weight[inside])
            np.add.at(ranks, index, rank[inside])
            np.add.at(count, index, 1.0)
    with np.errstate(invalid="ignore"):
        weights, percentiles = (np.asarray(each / count, dtype=np.float32) for each in (total, ranks))
    return AttentionMap(weights, percentiles, (float(origin[0]), float(origin[1])), cell)


def overlay(image: NDArray[np.uint8], grid: AttentionMap, dimensions: tuple[int, int]) -> NDArray[np.uint8]:
    """Blend a thumbnail with the colours of the percentile ranks; what no patch covers stays as it is.

    Args:
        image: The whole slide, uint8 ``[height, width, 3]``.
        grid: Attention.
        dimensions: (width, height) of the slide.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    scale = np.asarray(dimensions) / (width, height)
    columns, rows = (
        np.floor(((np.arange(n) + 0.5) * s - o) / grid.cell).astype(np.int64)
        for n, s, o in zip((width, height), scale, grid.origin, strict=True)
    )
    limits = grid.ranks.shape
    shown = grid.ranks[np.clip(rows, 0, limits[0] - 1)][:, np.clip(columns, 0, limits[1] - 1)].copy()
    shown[(rows < 0) | (rows >= limits[0])] = np.nan
    shown[:, (columns < 0) | (columns >= limits[1])] = np.nan
    covered = np.isfinite(shown)
    colours = colormaps[COLOURS](np.where(covered, shown, 0) / 100)[..., :3] * 255
    blended = np.where(covered[..., None], (1 - OPACITY) * image + OPACITY * colours, image)
    return np.rint(blended).astype(np.uint8)


def draw_overlay(slide: Slide, grid: AttentionMap) -> bytes:
    """Return a PNG of the slide with percentile ranks in colour, beside a colour bar."""
    from matplotlib.figure import Figure

    image = _thumbnail(slide)
    height, width = image.shape[:2]
    # One picture pixel a thumbnail pixel, with room for the colour bar to the right.
    inches = (max(width, 300) / 100 + 1.2, max(height, 300) / 100)
    figure = Figure(figsize=inches, dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(overlay(image, grid, slide.dimensions), interpolation="nearest")
    axes.set_axis_off()
    bar = axes.imshow(np.full((1, 1), np.nan), cmap=COLOURS, vmin=0, vmax=100, extent=(0, width, height, 0))
    figure.colorbar(bar, ax=axes, label="attention, percentile within the slide", shrink=0.7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _thumbnail(slide: Slide) -> NDArray[np.uint8]:
    """Return the whole slide at the size of the picture; parts that cannot be decoded are left as background."""
    from medshared.slides import FaultList, TileError, read_overview

    try:
        return slide.thumbnail(PICTURE_PX)
    except TileError:
        faults = FaultList(slide.path)
        image, _ = read_overview(slide, max(slide.dimensions) / PICTURE_PX, faults)
        logger.warning("%s: %d parts of the picture cannot be decoded", slide.path, len(faults))
        return image


def ome_tiff(grid: AttentionMap, spacing_um: float | None, name: str) -> bytes:
    """Return a float32 OME-TIFF of the weights at the resolution of the patches.

    The size of a cell and the place of the first one are given in µm where the slide's spacing is known.
    """
    import tifffile

    metadata: dict[str, Any] = {"axes": "YX", "Name": name, "Channel": {"Name": "attention"}}
    if spacing_um is not None:
        edge = grid.cell * spacing_um
        metadata |= {
            "PhysicalSizeX": edge,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": edge,
            "PhysicalSizeYUnit": "µm",
            "Plane": {
                "PositionX": grid.origin[0] * spacing_um,
                "PositionXUnit": "µm",
                "PositionY": grid.origin[1] * spacing_um,
                "PositionYUnit": "µm",
            },
        }
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        writer.write(grid.weights, photometric="minisblack", compression="zlib", metadata=metadata)
    return buffer.getvalue()


def write_squares(
    path: Path, attention: PatchAttention, xy: Floats, size: float, by_region: bool = False
) -> Path:
    """Write one square a patch as detections that QuPath colours by the measurement ``attention``.

    Args:
        path: The file.
        attention: Of the patches.
        xy: Top left corners in level-0 pixels, ``[n, 2]``.
        size: Side of a patch in level-0 pixels.
        by_region: One square a region, where 16 consecutive patches each form one, with the sum of their weights.
    """
    from matplotlib import colormaps

    from medshared.slides import Contour, write_geojson

    corners, weight, side = xy, attention.weight, size
    if by_region and _are_squares(xy, size):
        corners = xy.reshape(-1, REGION, 2).min(axis=1)
        weight, side = weight.reshape(-1, REGION).sum(axis=1), size * SIDE
    rank = percentile_ranks(weight)
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]])
    contours = [Contour(np.rint(corner + square).astype(np.int32)) for corner in corners]
    colours = np.rint(colormaps[COLOURS](rank / 100)[:, :3] * 255).astype(int).tolist()
    properties = [
        {
            "objectType": "detection",
            "color": colour,
            "measurements": {"attention": each, "attention percentile": percentile},
        }
        for colour, each, percentile in zip(colours, weight.tolist(), rank.tolist(), strict=True)
    ]
    return write_geojson(path, contours, properties, name="Attention", colour=(128, 128, 128))


def _are_squares(xy: Floats, size: float) -> bool:
    """Whether each 16 consecutive patches fill a square of 4 x 4."""
    if len(xy) % REGION:
        return False
    cells = (xy.reshape(-1, REGION, 2) - xy.reshape(-1, REGION, 2).min(axis=1, keepdims=True)) / size
    number = cells[..., 0] * SIDE + cells[..., 1]
    return bool((np.sort(number, axis=1) == np.arange(REGION)).all())


def draw_heatmaps(arguments: argparse.Namespace) -> int:
    """Run ``advmil heatmap``; one bad slide does not stop the others.

    Returns:
        Exit code, 1 when a slide failed.
    """
    from advmil.prepare.plan import find_slides
    from advmil.run_files import load_model
    from medshared.gpu import select_device

    device = select_device(arguments.device)
    runs = arguments.run if isinstance(arguments.run, list) else [arguments.run]
    models = [load_model(folder, device) for folder in runs]
    slides: list[Path] = []
    for path in arguments.slides:
        slides += find_slides(path) if path.is_dir() else [path]
    failed = []
    for slide in slides:
        try:
            features = find_beside(arguments.features, slide.stem, FEATURE_SUFFIXES, ("h5_files", "pt_files"))
            if features is None:
                raise DataError(f"{arguments.features}: no features of {slide.stem} (.h5 or .pt) here")
            coordinates = find_coordinates(arguments.coordinates, slide.stem)
            files = _draw(
                models, slide, features, coordinates, arguments.output, arguments.spacing_um, device
            )
            logger.info("%s: %s", slide.name, files.picture)
        except ITEM_ERRORS as error:
            logger.error("%s: %s", slide, error)
            failed.append(slide.name)
    if failed:
        logger.error("%d of %d slides failed: %s", len(failed), len(slides), ", ".join(failed))
    return 1 if failed else 0
