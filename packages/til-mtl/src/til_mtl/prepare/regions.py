"""Annotated regions of the download, from their own images or cut out of whole slides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from til_mtl.data.asap import ROI_GROUP, AsapAnnotation, read_asap
from til_mtl.data.images import SUFFIXES, read_image, read_labels, read_size
from til_mtl.data.label_tiff import read_label_rectangle
from til_mtl.data.tiger import CELLS, CellBoxes, RegionName, parse_region_name, read_cell_boxes
from til_mtl.errors import DataError
from til_mtl.prepare.options import PrepareOptions

Kind = Literal["tissue-bcss", "tissue-cells"]
KINDS: tuple[Kind, ...] = ("tissue-bcss", "tissue-cells")
COCO = "tiger-coco.json"
_MARKER_PX = 16  # edge of a cell's box where the annotation is a dot
_SLIDE_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs")


@dataclass(frozen=True)
class Region:
    """One annotated rectangle.

    Attributes:
        name: ``<slide>_[x1, y1, x2, y2]``.
        kind: ``tissue-bcss`` has tissue, ``tissue-cells`` tissue and cells.
        place: Slide and rectangle.
        image: Region image, or whole slide.
        mask: Tissue labels of the region, or of the whole slide.
        boxes: float64 [n, 4], cells as x, y, width, height in pixels of the region; ``None`` without cells.
        whole: Image and mask are those of the slide.
        problem: Why it cannot be used, where that is known before reading.
    """

    name: str
    kind: Kind
    place: RegionName
    image: Path
    mask: Path
    boxes: np.ndarray | None = None
    whole: bool = False
    problem: str = ""


class RegionPixels(NamedTuple):
    """What a region shows: image uint8 [H, W, 3] and tissue labels uint8 [H, W], 0 to 7."""

    image: np.ndarray
    labels: np.ndarray


class Found(NamedTuple):
    """Regions in the order of their names, and faults that belong to none as (file, message)."""

    regions: list[Region]
    faults: list[tuple[str, str]]


def find_regions(options: PrepareOptions) -> Found:
    """List the regions of the download.

    Args:
        options: ``tiger`` and ``level``.

    Returns:
        The regions; those that cannot be used say so.

    Raises:
        DataError: No download there.
    """
    root = options.tiger / "wsirois" if (options.tiger / "wsirois").is_dir() else options.tiger
    folder = root / ("roi-level-annotations" if options.level == "roi" else "wsi-level-annotations")
    if not folder.is_dir():
        raise DataError(
            f"{options.tiger}: expected the TIGER download with wsirois/{folder.name}: give its root as --tiger"
        )
    list_kind = _list_images if options.level == "roi" else _list_annotations
    found = Found([], [])
    for kind in KINDS:
        regions, faults = list_kind(folder, kind)
        found.regions.extend(regions)
        found.faults.extend(faults)
    if not found.regions:
        raise DataError(f"{folder}: no regions: expected {' and '.join(KINDS)}")
    return found


def _list_images(folder: Path, kind: Kind) -> Found:
    base = folder / kind
    images = _pictures(base / "images")
    masks = {path.stem: path for path in _pictures(base / "masks")}
    found = Found([], [])
    table = read_cell_boxes(base / COCO) if kind == "tissue-cells" and images else None
    if table is not None:
        names = {path.stem for path in images}
        found.faults.extend((COCO, message) for message in table.loose)
        absent = sorted(set(table.boxes) - names)
        found.faults.extend(
            (name, f"{table.path}: {name!r} has no image in {base / 'images'}") for name in absent
        )
    for image in images:
        try:
            place = parse_region_name(image.stem)
        except DataError as error:
            found.faults.append((image.stem, f"{image}: {error}"))
            continue
        mask = masks.get(image.stem)
        problem = "" if mask else f"{image}: there is no mask {base / 'masks' / image.stem}.*"
        region = Region(image.stem, kind, place, image, mask or image, problem=problem)
        found.regions.append(_with_boxes(region, table) if table is not None else region)
    return found


def _with_boxes(region: Region, table: CellBoxes) -> Region:
    if region.name in table.problems:
        return replace(region, problem=table.problems[region.name])
    if region.name not in table.boxes:
        missing = f"{table.path}: no entry for {region.image.name}: whether it has cells is unknown"
        return replace(region, problem=region.problem or missing)
    return replace(region, boxes=table.boxes[region.name])


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _list_annotations(folder: Path, kind: Kind) -> Found:
    found = Found([], [])
    for path in sorted((folder / f"annotations-{kind}-xmls").glob("*.xml")):
        try:
            annotations = read_asap(path)
            image = find_slide(folder / "images", path.stem)
        except DataError as error:
            found.faults.append((path.stem, str(error)))
            continue
        mask = folder / f"annotations-{kind}-masks" / f"{path.stem}.tif"
        rectangles = [each.bounds for each in annotations if each.group == ROI_GROUP]
        if not rectangles:
            found.faults.append((path.stem, f"{path}: no annotation of the group 'roi'"))
        for x1, y1, x2, y2 in sorted(set(rectangles)):
            place = RegionName(path.stem, x1, y1, x2 - x1, y2 - y1)
            boxes = _cells_in(annotations, place) if kind == "tissue-cells" else None
            name = f"{path.stem}_[{x1}, {y1}, {x2}, {y2}]"
            problem = "" if x2 > x1 and y2 > y1 else f"{path}: the region {name!r} is empty"
            found.regions.append(Region(name, kind, place, image, mask, boxes, True, problem))
    return found


def _cells_in(annotations: Iterable[AsapAnnotation], place: RegionName) -> np.ndarray:
    """Return the cells whose centre lies in a rectangle, in pixels of it."""

    def boxes() -> Iterator[list[float]]:
        for each in annotations:
            x, y = each.centre
            if each.group != CELLS:
                continue
            if not (place.x <= x < place.x + place.width and place.y <= y < place.y + place.height):
                continue
            width, height = np.ptp(each.points, axis=0)
            width, height = (width, height) if min(width, height) > 0 else (_MARKER_PX, _MARKER_PX)
            yield [x - width / 2 - place.x, y - height / 2 - place.y, float(width), float(height)]

    return np.array(list(boxes()), dtype=np.float64).reshape(-1, 4)


def find_slide(folder: Path, slide: str) -> Path:
    """Return the file of a whole slide.

    Raises:
        DataError: Naming slide and folder.
    """
    for suffix in _SLIDE_SUFFIXES:
        path = folder / f"{slide}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{folder}: no slide {slide}.tif: expected the whole slides of the regions here")


def read_region(region: Region) -> RegionPixels:
    """Read the pixels of a region and compare all sizes.

    Args:
        region: One that has no problem.

    Returns:
        Image and labels.

    Raises:
        DataError: Its problem, unreadable files, or sizes that do not agree.
        SlideError: An unreadable slide.
    """
    if region.problem:
        raise DataError(region.problem)
    place = region.place
    if region.whole:
        image = read_slide(region.image, place)
        labels = read_label_rectangle(region.mask, place.x, place.y, place.width, place.height)
        return RegionPixels(image, labels)
    for path in (region.image, region.mask):
        size = read_size(path)
        if size != (place.width, place.height):
            raise DataError(
                f"{path}: {size[0]} x {size[1]} pixels, but the name says {place.width} x {place.height}: the image, "
                "its mask and its name must fit together"
            )
    return RegionPixels(read_image(region.image), read_labels(region.mask))


def read_slide(path: Path, place: RegionName) -> np.ndarray:
    """Return a rectangle of a slide at level 0, uint8 [H, W, 3]; beyond its borders the background colour.

    Raises:
        SlideError: An unreadable slide or tile.
    """
    from medshared.slides import open_slide

    with open_slide(path, fast=False) as slide:
        return slide.read_level((place.x, place.y), 0, (place.width, place.height))


def slide_spacing(path: Path) -> float | None:
    """Return µm per pixel of a slide, ``None`` where it does not tell."""
    from medshared.slides import open_slide

    with open_slide(path, fast=False) as slide:
        return slide.spacing_um
