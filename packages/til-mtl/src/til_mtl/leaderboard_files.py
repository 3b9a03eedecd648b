"""What leaderboard 1 compares: annotated regions of TIGER, and predictions for them.

Truth is read from any folder of the TIGER download (or one laid out alike): every ``masks/<roi>.png`` below it, and
the cells of every ``*coco*.json``. Predictions lie in one folder, named after the regions::

    <pred>/<roi>.png     8-bit labels: 1 tumour, 2 (or 6) stroma, anything else rest
    <pred>/<roi>.json    {"type": "Multiple points", "points": [{"point": [x_mm, y_mm, z], "probability": p}, …]}

with millimetres from the region's corner: x_mm = x_px · mpp / 1000. A folder that ``predict.py`` wrote is taken as
well: the regions are then cut from ``<pred>/<slide>/segmentation.tif`` and ``detected-lymphocytes.json``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medshared.files import read_json
from til_mtl.data.images import read_labels
from til_mtl.data.label_tiff import read_label_rectangle
from til_mtl.data.tiger import RegionName, parse_region_name, read_cell_boxes
from til_mtl.errors import DataError
from til_mtl.prepare.cells import box_centres, clip_status

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
_TRUTH = {1: 0, 2: 1, 6: 1, 3: 2, 4: 2, 5: 2, 7: 2}  # label → 0 tumour, 1 stroma, 2 rest; 0 is not annotated
NOT_ANNOTATED = 255


class CellRegion(NamedTuple):
    """Annotated cells of one region.

    Attributes:
        size: (width, height) in pixels.
        centres: float64 ``[m, 2]``, (x, y) in the region's pixels, in file order.
    """

    size: tuple[int, int]
    centres: Floats


class Truth(NamedTuple):
    """Annotated regions by name.

    Attributes:
        masks: Files of tissue labels.
        cells: Regions whose cells are annotated, also those without any.
    """

    masks: Mapping[str, Path]
    cells: Mapping[str, CellRegion]


def find_truth(folder: Path) -> Truth:
    """Find masks and cells below a folder.

    Raises:
        DataError: Nothing is there, or a file cannot be used.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --truth is a folder with masks/*.png and tiger-coco.json")
    masks: dict[str, Path] = {}
    own = [folder] if any(folder.glob("*.png")) else []
    for place in [*own, *sorted(each for each in folder.rglob("masks") if each.is_dir())]:
        for file in sorted(place.glob("*.png")):
            if file.stem in masks:
                raise DataError(f"{file}: the region has a mask already, {masks[file.stem]}; give one folder")
            masks[file.stem] = file
    cells: dict[str, CellRegion] = {}
    for file in sorted(folder.rglob("*coco*.json")):
        cells.update(read_cell_regions(file))
    if not masks and not cells:
        raise DataError(f"{folder}: no masks/<region>.png and no tiger-coco.json below it")
    return Truth(masks, cells)


def read_cell_regions(path: Path) -> dict[str, CellRegion]:
    """Read the cells of TIGER's COCO file, by region.

    Raises:
        DataError: Naming the entry that does not fit.
    """
    table = read_cell_boxes(path)
    wrong = next(iter([*table.loose, *table.problems.values()]), None)
    if wrong is not None:
        raise DataError(wrong)
    regions = {}
    for name, boxes in table.boxes.items():
        if name not in table.sizes:
            raise DataError(f"{path}: the image {name!r} lacks width or height")
        width, height = table.sizes[name]
        _, outside = clip_status(boxes, (height, width))
        if len(outside):
            box = boxes[outside[0]].tolist()
            raise DataError(f"{path}: box {box} lies outside {name} of {width} x {height} px")
        regions[name] = CellRegion(table.sizes[name], box_centres(boxes))
    return regions


def read_truth_mask(path: Path) -> NDArray[np.uint8]:
    """Read a region's tissue: 0 tumour, 1 stroma, 2 rest, 255 not annotated."""
    labels = read_labels(path)
    table = np.full(256, NOT_ANNOTATED, np.uint8)
    for label, kind in _TRUTH.items():
        table[label] = kind
    unknown = [int(each) for each in np.unique(labels) if each and int(each) not in _TRUTH]
    if unknown:
        raise DataError(f"{path}: labels {unknown[:5]} are not TIGER's: expected 0 (not annotated) to 7")
    return table[labels]


class Predictions:
    """Predicted tissue and cells of regions, from files by region or from those of whole slides."""

    def __init__(self, folder: Path, mpp: float, truth: Truth) -> None:
        """Look into the folder.

        Args:
            folder: As the module says.
            mpp: µm per pixel of the regions.
            truth: Whose regions are asked for.
        """
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; --pred holds <region>.png and <region>.json")
        self.folder, self.mpp = folder, mpp

        def has(names: Iterable[str], suffix: str, of_slides: str) -> bool:
            by_region = any((folder / f"{name}{suffix}").is_file() for name in names)
            return by_region or any(folder.glob(of_slides))

        self.has_tissue = has(truth.masks, ".png", "*/segmentation.tif")
        self.has_cells = has(truth.cells, ".json", "*/detected-lymphocytes.json")
        if not self.has_tissue and not self.has_cells:
            raise DataError(
                f"{folder}: no <region>.png and no <region>.json of any annotated region, and no output of predict.py; "
                "name the files after the regions, such as 104S_[100, 200, 612, 712].png"
            )

    def tissue(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a region's predicted tissue, uint8 [H, W]: 0 tumour, 1 stroma, 2 rest."""
        file = self.folder / f"{name}.png"
        if file.is_file():
            labels = read_labels(file)
            if (labels.shape[1], labels.shape[0]) != size:
                raise DataError(
                    f"{file}: {labels.shape[1]} x {labels.shape[0]} px, but the region has {size[0]} x {size[1]}"
                )
        else:
            labels = self._cut(name, size)
        table = np.full(256, 2, np.uint8)
        table[1], table[2], table[6] = 0, 1, 1
        return table[labels]

    def cells(self, name: str) -> Floats:
        """Return a region's predicted cells, float64 [n, 3]: x and y in the region's pixels, probability."""
        file = self.folder / f"{name}.json"
        if file.is_file():
            points = read_points(file)
            points[:, :2] *= 1000 / self.mpp
            return points
        place = self._place(name, ".json")
        file = self.folder / place.slide / "detected-lymphocytes.json"
        if not file.is_file():
            raise DataError(f"{file}: missing, and there is no {name}.json either; predict this region, too")
        points = read_points(file)
        scale = self._slide_facts(place.slide)["mpp_level0"]
        points[:, :2] = points[:, :2] * 1000 / scale - (place.x, place.y)
        inside = ((points[:, :2] >= 0) & (points[:, :2] < (place.width, place.height))).all(axis=1)
        return points[inside]

    def _place(self, name: str, suffix: str) -> RegionName:
        try:
            return parse_region_name(name)
        except DataError as error:
            raise DataError(
                f"{self.folder / (name + suffix)}: no such prediction of an annotated region"
            ) from error

    def _slide_facts(self, slide: str) -> dict[str, Any]:
        return _read_json(self.folder / slide / "slide.json")

    def _cut(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Cut a region from a slide's map; pixels of another size are taken by the nearest."""
        place = self._place(name, ".png")
        file = self.folder / place.slide / "segmentation.tif"
        if not file.is_file():
            raise DataError(f"{file}: missing, and there is no {name}.png either; predict this region, too")
        step = float(self._slide_facts(place.slide)["level0_px"])
        columns = ((np.arange(size[0]) + place.x + 0.5) / step).astype(int)
        rows = ((np.arange(size[1]) + place.y + 0.5) / step).astype(int)
        extent = (int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
        labels = read_label_rectangle(file, int(columns[0]), int(rows[0]), *extent)
        return labels[rows - rows[0]][:, columns - columns[0]]


def read_points(path: Path) -> Floats:
    """Read points in the challenge's form.

    Returns:
        float64 ``[n, 3]``: x and y in mm, probability.

    Raises:
        DataError: Naming the point that does not fit.
    """
    content = _read_json(path)
    listed = content.get("points") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise DataError(f'{path}: expected {{"type": "Multiple points", "points": […]}}')
    rows = []
    for number, entry in enumerate(listed):
        try:
            row = (float(entry["point"][0]), float(entry["point"][1]), float(entry["probability"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{path}: point {number}: expected a point [x_mm, y_mm, z] and a probability, found "
                f"{json.dumps(entry)[:80]}"
            ) from error
        if not all(map(math.isfinite, row)):
            raise DataError(f"{path}: point {number} holds values that are no numbers")
        rows.append(row)
    return np.asarray(rows, np.float64).reshape(-1, 3)


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:
        raise DataError(str(error)) from error
