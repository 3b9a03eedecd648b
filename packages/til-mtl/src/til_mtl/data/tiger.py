"""The TIGER download: names, tissue labels, cell boxes, scores."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medshared.files import read_json
from medshared.tables import Column, read_table
from til_mtl.config import IGNORE_INDEX
from til_mtl.data.asap import parse_xml
from til_mtl.errors import DataError

# Label in the download → name; 0 is not annotated.
TISSUE_LABELS = (
    "unannotated",
    "invasive tumor",
    "tumor-associated stroma",
    "in-situ tumor",
    "healthy glands",
    "necrosis not in-situ",
    "inflamed stroma",
    "rest",
)
_CLASS_OF_LABEL = (0, 1, 2, 0, 0, 0, 2, 0)
CELLS = "lymphocytes and plasma cells"
_REGION = re.compile(r"^(?P<slide>.+)_\[\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*\]$")
_SCORE_COLUMNS = ("tils-score", "tils-scores")
_SLIDE_SUFFIX = re.compile(r"\.(tiff?|svs|ndpi|mrxs)$", re.IGNORECASE)


class RegionName(NamedTuple):
    """What a region's file name tells: slide, and rectangle in level-0 pixels of it."""

    slide: str
    x: int
    y: int
    width: int
    height: int


def parse_region_name(name: str) -> RegionName:
    """Read the name of a region.

    Args:
        name: ``<slide>_[x1, y1, x2, y2]``, without extension.

    Returns:
        Slide and rectangle.

    Raises:
        DataError: For another name or an empty rectangle.

    Example:
        >>> parse_region_name("104S_[100, 200, 400, 600]")
        RegionName(slide='104S', x=100, y=200, width=300, height=400)
    """
    match = _REGION.match(name)
    if match is None:
        raise DataError(f"{name!r}: regions are named <slide>_[x1, y1, x2, y2], as in the download")
    x1, y1, x2, y2 = (int(value) for value in match.groups()[1:])
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{name!r}: the rectangle is empty: expected x1 < x2 and y1 < y2")
    return RegionName(match["slide"], x1, y1, x2 - x1, y2 - y1)


def source_of(slide: str) -> str:
    """Return the hospital or cohort of a slide: TCGA, RUMC, JB, or ``other``."""
    if slide.upper().startswith("TCGA-"):
        return "TCGA"
    if re.match(r"TC_S\d+_P\d+", slide, re.IGNORECASE):
        return "RUMC"
    return "JB" if re.match(r"^\d+[SB]$", slide, re.IGNORECASE) else "other"


def patient_of(slide: str) -> str:
    """Return what slides of one patient have in common; other names stand for a patient of their own.

    Example:
        >>> patient_of("TCGA-A1-A0SK-01Z-00-DX1.4B1F"), patient_of("TC_S01_P000004_C0001_B103"), patient_of("104S")
        ('TCGA-A1-A0SK', 'TC_S01_P000004', 'JB-104')
    """
    kinds = {"TCGA": r"(TCGA-[^-]+-[^-]+)", "RUMC": r"(TC_S\d+_P\d+)", "JB": r"(\d+)"}
    source = source_of(slide)
    match = re.match(kinds[source], slide, re.IGNORECASE) if source in kinds else None
    if match is None:
        return slide
    return f"JB-{match[1]}" if source == "JB" else match[1]


def tissue_classes(
    labels: np.ndarray, unannotated: int = IGNORE_INDEX, *, path: Path | str = ""
) -> np.ndarray:
    """Return the method's classes of the download's tissue labels.

    Invasive tumour (1) is tumour, tumour-associated and inflamed stroma (2, 6) are stroma, all else annotated is
    other.

    Args:
        labels: uint8, values 0 to 7.
        unannotated: What 0 becomes: 250 (left out) or 0 (other).
        path: File that they come from, for the message.

    Returns:
        uint8 of the same shape: 0, 1, 2 and perhaps 250.

    Raises:
        DataError: For labels above 7.
    """
    if labels.size and labels.max() >= len(TISSUE_LABELS):
        raise DataError(
            f"{path}: tissue label {int(labels.max())}: the download has labels 0 (not annotated) to 7 (rest)"
        )
    table = np.array(_CLASS_OF_LABEL, np.uint8)
    table[0] = unannotated
    return table[labels]


@dataclass
class CellBoxes:
    """``tiger-coco.json``.

    Attributes:
        path: The file.
        boxes: Name of a region (no folder, no extension) → float64 [n, 4], x, y, width, height in its pixels.
        sizes: Name of a region → its width and height in pixels, where the file says so.
        problems: Name of a region → what is wrong with its entries.
        loose: What is wrong with entries that belong to no region.
    """

    path: Path
    boxes: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)


def read_cell_boxes(path: Path | str) -> CellBoxes:
    """Read the cell boxes of the regions; one bad entry does not spoil the others.

    Args:
        path: COCO file with ``images``, ``annotations`` and ``categories``; if it lists no categories, every box is a
            cell.

    Returns:
        The boxes, and the faults by region.

    Raises:
        DataError: No such file, no JSON, or one of the three lists is missing.
    """
    path = Path(path)
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: the cells of tissue-cells come from it") from None
    except ValueError as error:
        raise DataError(str(error)) from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise DataError(f"{path}: expected an object with the lists {', '.join(keys)}")
    table = CellBoxes(path)
    names = _coco_images(table, content["images"])
    wanted = None
    if content["categories"]:
        wanted = {
            entry.get("id")
            for entry in content["categories"]
            if isinstance(entry, dict) and str(entry.get("name", "")).strip().lower() == CELLS
        }
    found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    lost: dict[str, list[int]] = {}
    for number, entry in enumerate(content["annotations"]):
        image = entry.get("image_id") if isinstance(entry, dict) else None
        if image in names:
            _take_box(table, number, entry, names[image], wanted, found)
        else:
            lost.setdefault(repr(image), []).append(number)
    for image, numbers in lost.items():
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        table.loose.append(
            f"{path}: annotations[{numbers[0]}]{more}: image_id {image} is unknown; the {len(names)} images have "
            "other ids"
        )
    table.boxes = {name: np.array(each, dtype=np.float64).reshape(-1, 4) for name, each in found.items()}
    return table


def _coco_images(table: CellBoxes, images: Sequence[Any]) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for number, entry in enumerate(images):
        if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("file_name"), str):
            table.loose.append(f"{table.path}: images[{number}] lacks id or file_name")
            continue
        name = Path(entry["file_name"].replace("\\", "/")).stem
        if entry["id"] in names or name in names.values():
            table.problems[name] = f"{table.path}: images[{number}] repeats id {entry['id']} or file {name!r}"
        names[entry["id"]] = name
        width, height = entry.get("width"), entry.get("height")
        if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
            table.sizes[name] = (width, height)
    return names


def _take_box(
    table: CellBoxes,
    number: int,
    entry: Mapping[str, Any],
    name: str,
    categories: set[Any] | None,
    found: dict[str, list[list[float]]],
) -> None:
    """Put one annotation where it belongs, or note what is wrong with it."""
    box = entry.get("bbox")
    if categories is not None and entry.get("category_id") not in categories:
        problem = f"category_id {entry.get('category_id')!r} is not {CELLS!r}"
    elif not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
        problem = f"bbox must be [x, y, width, height], found {box!r}"
    elif not all(math.isfinite(value) for value in box) or min(box[2:]) <= 0:
        problem = f"bbox {box!r} has no area"
    else:
        found[name].append([float(value) for value in box])
        return
    table.problems.setdefault(name, f"{table.path}: annotations[{number}]: {problem}")


def read_til_scores(path: Path | str) -> dict[str, float]:
    """Read the visual TIL scores of slides.

    Args:
        path: CSV with the columns ``image-id`` and ``tils-score`` (or ``tils-scores``), or an XML file whose
            elements carry both, as attributes or as children.

    Returns:
        Slide (without extension) → percentage, 0 to 100, in the order of the file.

    Raises:
        TableError: A table without these columns or with other cells.
        DataError: A slide given twice, an empty list, an XML file without scores.
    """
    path = Path(path)
    pairs = _xml_scores(path) if path.suffix.lower() == ".xml" else _csv_scores(path)
    scores: dict[str, float] = {}
    for name, score in pairs:
        slide = _SLIDE_SUFFIX.sub("", name)
        if slide in scores:
            raise DataError(f"{path}: slide {slide!r} is given twice")
        if not 0 <= score <= 100:
            raise DataError(f"{path}: slide {slide!r} has a score of {score:g}: expected 0 to 100")
        scores[slide] = score
    if not scores:
        raise DataError(f"{path}: no scores: expected image-id and tils-score")
    return scores


def _csv_scores(path: Path) -> list[tuple[str, float]]:
    columns = [Column(name, "float", required=False, minimum=0, maximum=100) for name in _SCORE_COLUMNS]
    table = read_table(path, [Column("image-id"), *columns])
    present = [name for name in _SCORE_COLUMNS if name in table.columns]
    if len(present) != 1:
        raise DataError(
            f"{path}:1: expected the columns image-id and tils-score, found {list(table.columns)}"
        )
    scores = table[present[0]].tolist()
    empty = [row for row, score in enumerate(scores, start=2) if math.isnan(score)]
    if empty:
        raise DataError(
            f"{path}:{empty[0]}: column {present[0]!r} is empty: leave out slides without a score"
        )
    return list(zip(table["image-id"].tolist(), scores, strict=True))


def _xml_scores(path: Path) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for element in parse_xml(path).iter():
        values = {**{child.tag: (child.text or "") for child in element}, **element.attrib}
        score = next((values[name] for name in _SCORE_COLUMNS if name in values), None)
        if score is None or "image-id" not in values:
            continue
        try:
            found.append((values["image-id"].strip(), float(score)))
        except ValueError:
            raise DataError(
                f"{path}: slide {values['image-id']!r}: expected a number, found {score!r}"
            ) from None
    return found
