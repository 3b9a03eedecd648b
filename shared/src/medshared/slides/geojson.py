"""Contours as GeoJSON in QuPath's form, out and in."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medshared.files import read_json, to_plain, write_text
from medshared.slides.contours import Contour

if TYPE_CHECKING:
    import numpy.typing as npt

_COLOURS = {"Tissue": (0, 160, 0), "Tumor": (200, 0, 0), "Stroma": (150, 200, 150)}
_LARGEST = 2**31 - 1


class GeojsonError(ValueError):
    """A GeoJSON file that holds no contours in QuPath's form; the message names file and feature."""


class Annotation(NamedTuple):
    """One polygon of a GeoJSON file.

    Attributes:
        contour: in level-0 pixels.
        name: of its classification in QuPath, empty without one.
        properties: all properties of the feature.
    """

    contour: Contour
    name: str
    properties: dict[str, Any]


def write_geojson(
    path: str | os.PathLike[str],
    contours: Sequence[Contour],
    properties: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    name: str = "Tissue",
    colour: tuple[int, int, int] | None = None,
) -> Path:
    """Write contours as annotations that QuPath opens: drag the file onto the slide.

    Args:
        path: the file, ``.geojson``.
        contours: in level-0 pixels.
        properties: further properties of every feature, or one mapping for each; numbers under ``measurements`` are
            shown by QuPath as measurements.
        name: of the classification.
        colour: RGB of the classification.

    Returns:
        The path.

    Raises:
        ValueError: when the number of property mappings differs from the number of contours.
        OSError: naming the file when it cannot be written.
    """
    if properties is None or isinstance(properties, Mapping):
        extra: list[Mapping[str, Any]] = [properties or {}] * len(contours)
    else:
        extra = list(properties)
    if len(extra) != len(contours):
        raise ValueError(f"there are {len(contours)} contours, but properties of {len(extra)}")
    shown = colour or _COLOURS.get(name, (128, 128, 128))
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [_ring(border) for border in (contour.outer, *contour.holes)],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(shown)},
                **to_plain(each),
            },
        }
        for contour, each in zip(contours, extra, strict=True)
    ]
    content = {"type": "FeatureCollection", "features": features}
    return write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def _ring(border: npt.NDArray[np.int32]) -> list[list[int]]:
    """Return a border that ends where it began, as GeoJSON wants it."""
    points = border.tolist()
    return [*points, points[0]]


def read_geojson(path: str | os.PathLike[str]) -> list[Annotation]:
    """Read polygons from a GeoJSON file, as QuPath exports them.

    Accepted are a FeatureCollection, a list of features and a single feature; Polygon and MultiPolygon geometries
    (each part becomes a contour). Points and lines are passed over. Coordinates are rounded to whole pixels.

    Args:
        path: the file.

    Returns:
        The polygons in file order.

    Raises:
        FileNotFoundError: when there is no such file.
        GeojsonError: naming file and feature, for anything else that is wrong.
    """
    path = Path(path)
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise GeojsonError(str(error)) from error
    found = []
    for number, feature in enumerate(_features(path, content)):
        place = f"{path}: feature {number}"
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise GeojsonError(
                f"{place}: expected a GeoJSON Feature with a geometry, found {_shown(feature)}"
            )
        properties = feature.get("properties") or {}
        classification = properties.get("classification") or {}
        name = (
            str(classification.get("name", "")) if isinstance(classification, dict) else str(classification)
        )
        for rings in _polygons(place, feature["geometry"]):
            borders = [_border(place, ring) for ring in rings]
            found.append(Annotation(Contour(borders[0], tuple(borders[1:])), name, dict(properties)))
    return found


def _features(path: Path, content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return content["features"]
    if kind == "Feature":
        return [content]
    raise GeojsonError(
        f"{path}: expected a GeoJSON FeatureCollection, found {_shown(content)}; in QuPath: File › Export objects as "
        "GeoJSON"
    )


def _polygons(place: str, geometry: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the rings of every polygon of a geometry."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        for part in geometry["geometries"]:
            yield from _polygons(place, part)
        return
    if kind in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        return
    if kind not in ("Polygon", "MultiPolygon"):
        raise GeojsonError(f"{place}: expected a Polygon or MultiPolygon, found geometry type {kind!r}")
    polygons: Any = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not all(isinstance(each, list) and each for each in polygons):
        raise GeojsonError(f"{place}: the {kind} has no coordinates")
    yield from polygons


def _border(place: str, ring: Any) -> npt.NDArray[np.int32]:
    try:
        points = [(float(point[0]), float(point[1])) for point in ring]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise GeojsonError(f"{place}: a ring is no list of [x, y] pairs: {_shown(ring)}") from error
    if len(points) > 1 and points[0] == points[-1]:
        points.pop()
    if len(points) < 3:
        raise GeojsonError(f"{place}: a ring has {len(points)} different points, expected at least 3")
    if not all(math.isfinite(value) and abs(value) < _LARGEST for point in points for value in point):
        raise GeojsonError(f"{place}: a ring has coordinates that are no pixels of a slide")
    return np.rint(points).astype(np.int32)


def _shown(value: Any) -> str:
    text = json.dumps(to_plain(value))
    return text if len(text) <= 80 else text[:77] + "..."
