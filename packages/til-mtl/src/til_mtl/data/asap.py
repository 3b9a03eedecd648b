"""ASAP's XML annotations: polygons, rectangles and dots in level-0 pixels, in named groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from til_mtl.errors import DataError

ROI_GROUP = "roi"


@dataclass(frozen=True)
class AsapAnnotation:
    """One annotation.

    Attributes:
        name: As in the file.
        kind: ``Polygon``, ``Rectangle``, ``Dot``, ``Spline``, ….
        group: What it shows, such as ``roi`` or ``lymphocytes and plasma cells``; lower case.
        points: float64 [n, 2], (x, y) in level-0 pixels.
    """

    name: str
    kind: str
    group: str
    points: np.ndarray

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in whole pixels, all of it inside."""
        low, high = np.floor(self.points.min(axis=0)), np.ceil(self.points.max(axis=0))
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the bounds, (x, y)."""
        x, y = (self.points.min(axis=0) + self.points.max(axis=0)) / 2
        return float(x), float(y)


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file.

    Args:
        path: The file.

    Returns:
        The root element.

    Raises:
        DataError: No such file, no XML, or one that declares entities.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    if b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        raise DataError(
            f"{path}: declares a document type or entities, which annotations do not need: not read"
        )
    try:
        return ElementTree.fromstring(content)  # noqa: S314 - without entities there is nothing to expand
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not XML ({error}); it is damaged or cut off: copy it again") from error


def read_asap(path: Path | str) -> list[AsapAnnotation]:
    """Read the annotations of a slide.

    Args:
        path: ``<ASAP_Annotations>`` file.

    Returns:
        The annotations in file order; those without coordinates are left out.

    Raises:
        DataError: As `parse_xml`, for another document, and for coordinates that are no numbers.
    """
    path = Path(path)
    root = parse_xml(path)
    if root.tag != "ASAP_Annotations":
        raise DataError(f"{path}: expected <ASAP_Annotations>, found <{root.tag}>")
    found: list[AsapAnnotation] = []
    for element in root.iter("Annotation"):
        name = element.get("Name", "")
        try:
            ordered = sorted(element.iter("Coordinate"), key=lambda each: float(each.get("Order", "0")))
            points = np.array([[float(each.attrib["X"]), float(each.attrib["Y"])] for each in ordered])
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path}: annotation {name!r}: coordinates need Order, X and Y ({error})"
            ) from error
        if len(points):
            group = element.get("PartOfGroup", "").strip().lower()
            found.append(AsapAnnotation(name, element.get("Type", ""), group, points))
    return found
