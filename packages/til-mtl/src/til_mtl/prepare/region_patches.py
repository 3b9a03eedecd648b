"""One region becomes patches: framed, cut on a grid, written with their masks and cell centres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medshared.files import read_json, write_json
from medshared.leases import sidecar_path
from medshared.tables import write_table
from til_mtl.config import IGNORE_INDEX, TISSUES, PatchTask
from til_mtl.data.images import write_png
from til_mtl.data.tiger import RegionName, tissue_classes
from til_mtl.errors import DataError
from til_mtl.prepare.cells import box_centres, clip_status, rasterise_cells
from til_mtl.prepare.grid import tile_starts
from til_mtl.prepare.options import PrepareOptions
from til_mtl.prepare.regions import Region, RegionPixels, find_slide, read_region, read_slide, slide_spacing

WHITE = 255


@dataclass(frozen=True)
class PatchRow:
    """One patch in the record of its region: the manifest's columns but split and fold, and the cell centres."""

    patch: str
    task: PatchTask
    x: int
    y: int
    width: int
    height: int
    mpp: float
    n_cells: int
    frac_other: float
    frac_tumor: float
    frac_stroma: float
    frac_ignored: float
    points: list[list[float]]


class _Framed(NamedTuple):
    """A region made at least as large as a patch.

    ``inside`` marks the region's own pixels; ``x`` and ``y`` are those of the frame in the slide, ``boxes`` are in
    pixels of the frame, and ``added`` is the label of added pixels in cell masks.
    """

    image: np.ndarray
    labels: np.ndarray
    inside: np.ndarray
    boxes: np.ndarray
    x: int
    y: int
    added: int


def pool_folder(out: Path, task: str, kind: str) -> Path:
    """Return where patches lie whatever their fold: ``<out>/patches/<task>/{img,mask,points}``."""
    return out / "patches" / task / kind


def write_region(region: Region, options: PrepareOptions, record: Path) -> str:
    """Cut a region, write its patches, and last the record of them.

    Args:
        region: The region.
        options: All settings.
        record: JSON file of the patches made.

    Returns:
        A word on what was made.

    Raises:
        DataError: Unusable files, a cell wholly outside the region.
    """
    pixels = read_region(region)
    boxes = np.empty((0, 4)) if region.boxes is None else region.boxes
    clipped, outside = clip_status(boxes, pixels.labels.shape)
    if len(outside):
        x, y, width, height = boxes[outside[0]]
        raise DataError(
            f"{region.name}: cell box [{x:g}, {y:g}, {width:g}, {height:g}] lies wholly outside the region of "
            f"{pixels.labels.shape[1]} x {pixels.labels.shape[0]} pixels ({len(outside)} such boxes): boxes are in "
            "pixels of the region, not of the slide"
        )
    framed = _frame(region, pixels, boxes, options)
    mpp = _spacing(region, options)
    # From here on the files are no longer those of an earlier record, even if this is interrupted.
    sidecar_path(record).unlink(missing_ok=True)
    rows = [
        row for task in _tasks(region, options) for row in _write_task(region, framed, task, mpp, options)
    ]
    _remove_old(record, options.out, {(row.task, row.patch) for row in rows})
    content = {"region": region.name, "slide": region.place.slide, "clipped_boxes": clipped}
    write_json(record, {**content, "patches": [asdict(row) for row in rows]})
    warning = f"; {clipped} cell boxes stick out of the region and are clipped" if clipped else ""
    return f"{len(rows)} patches{warning}"


def read_record(record: Path) -> dict[str, Any]:
    """Return what `write_region` recorded."""
    return read_json(record)


def missing_files(record: Path, out: Path) -> list[str]:
    """Return the patches of a record whose files are gone; empty without a record."""
    try:
        rows = read_record(record)["patches"]
    except (OSError, ValueError, KeyError):
        return []
    return [
        f"{row['task']}/{row['patch']}"
        for row in rows
        if not all((pool_folder(out, row["task"], kind) / f"{row['patch']}.png").is_file() for kind in ("img", "mask"))
    ]  # fmt: skip


def _tasks(region: Region, options: PrepareOptions) -> list[PatchTask]:
    if region.kind == "tissue-bcss":
        return ["segmentation"]
    return ["segmentation", "detection"] if options.tissue_from_cells else ["detection"]


def _spacing(region: Region, options: PrepareOptions) -> float:
    if region.whole:
        return slide_spacing(region.image) or options.mpp
    if options.slides is not None:
        return slide_spacing(find_slide(options.slides, region.place.slide)) or options.mpp
    return options.mpp


def _frame(region: Region, pixels: RegionPixels, boxes: np.ndarray, options: PrepareOptions) -> _Framed:
    """Make a region at least as large as a patch, with tissue from its slide or with white."""
    height, width = pixels.labels.shape
    tall, wide = max(height, options.patch), max(width, options.patch)
    place = region.place
    if (tall, wide) == (height, width):
        inside = np.ones((height, width), bool)
        return _Framed(*pixels, inside, boxes, place.x, place.y, 0)
    slide = region.image if region.whole else None
    if slide is None and options.slides is not None:
        slide = find_slide(options.slides, place.slide)
    left, top = ((wide - width) // 2, (tall - height) // 2) if slide is not None else (0, 0)
    rows, columns = slice(top, top + height), slice(left, left + width)
    if slide is not None:
        image = np.array(
            read_slide(slide, RegionName(place.slide, place.x - left, place.y - top, wide, tall))
        )
    else:
        image = np.full((tall, wide, 3), WHITE, np.uint8)
    labels, inside = np.zeros((tall, wide), np.uint8), np.zeros((tall, wide), bool)
    image[rows, columns], labels[rows, columns], inside[rows, columns] = pixels.image, pixels.labels, True
    moved = boxes + np.array([left, top, 0, 0])
    # White has no cells; what lies round a region on its slide may have some that nobody marked.
    added = 0 if slide is None else IGNORE_INDEX
    return _Framed(image, labels, inside, moved, place.x - left, place.y - top, added)


def _write_task(
    region: Region, framed: _Framed, task: PatchTask, mpp: float, options: PrepareOptions
) -> Iterator[PatchRow]:
    """Write the patches of one task and yield their rows."""
    unannotated = IGNORE_INDEX if options.unannotated == "ignore" else 0
    tissue = tissue_classes(framed.labels, unannotated, path=region.mask)
    tissue[~framed.inside] = IGNORE_INDEX
    shape = (tissue.shape[0], tissue.shape[1])
    mask = tissue
    if task == "detection":
        mask = rasterise_cells(framed.boxes, shape, options.cell_shape, options.cell_size or None)
        mask[~framed.inside] = framed.added
    centres, edge = box_centres(framed.boxes), options.patch
    for top in tile_starts(shape[0], edge, options.step):
        for left in tile_starts(shape[1], edge, options.step):
            tile = slice(top, top + edge), slice(left, left + edge)
            points = centres - (left, top)
            points = points[((points >= 0) & (points < edge)).all(axis=1)]
            if task == "segmentation":
                annotated = (framed.labels[tile] != 0).sum() / max(1, framed.inside[tile].sum())
                if annotated < options.min_annotated:
                    continue
            elif options.faithful and not len(points):
                continue
            name = _patch_name(region.place, left, top)
            _write_patch(options.out, task, name, framed.image[tile], mask[tile], points)
            x, y = framed.x + left, framed.y + top
            shares = _shares(tissue[tile])
            yield PatchRow(name, task, x, y, edge, edge, mpp, len(points), *shares, points.tolist())


def _patch_name(place: RegionName, left: int, top: int) -> str:
    x2, y2 = place.x + place.width, place.y + place.height
    return f"{place.slide}_{place.x}-{place.y}-{x2}-{y2}_{left}-{top}"


def _write_patch(
    out: Path, task: PatchTask, name: str, image: np.ndarray, mask: np.ndarray, points: np.ndarray
) -> None:
    write_png(pool_folder(out, task, "img") / f"{name}.png", image)
    write_png(pool_folder(out, task, "mask") / f"{name}.png", mask)
    if task == "detection":
        import pandas as pd

        write_table(
            pool_folder(out, task, "points") / f"{name}.csv", pd.DataFrame(points, columns=["x", "y"])
        )


def _shares(tissue: np.ndarray) -> tuple[float, float, float, float]:
    """Return the shares of other, tumour, stroma and of pixels without label."""
    counts = np.bincount(tissue.ravel(), minlength=256) / tissue.size
    other, tumor, stroma, ignored = (round(float(counts[k]), 6) for k in (*range(len(TISSUES)), IGNORE_INDEX))
    return other, tumor, stroma, ignored


def _remove_old(record: Path, out: Path, kept: set[tuple[str, str]]) -> None:
    """Remove patches that an earlier run with other settings made of the region."""
    try:
        rows = read_record(record)["patches"]
    except (OSError, ValueError, KeyError):
        return
    for row in rows:
        if (row["task"], row["patch"]) not in kept:
            for kind, suffix in (("img", ".png"), ("mask", ".png"), ("points", ".csv")):
                path = pool_folder(out, row["task"], kind) / f"{row['patch']}{suffix}"
                path.unlink(missing_ok=True)
