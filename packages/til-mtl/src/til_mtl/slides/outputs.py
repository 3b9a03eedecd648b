"""The files of one slide: the challenge's outputs, and what QuPath opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medshared.files import atomic_open, write_text
from til_mtl.peaks import Candidates
from til_mtl.slides.overlay import COLOURS
from til_mtl.slides.tallies import TISSUES, Tallies
from til_mtl.til_score import OTHER, STROMA, TUMOR

QUPATH_NAMES = {0: "Background", TUMOR: "Tumor", STROMA: "Stroma", OTHER: "Other"}
_Z_MM = 0.5009999871253967  # third coordinate of the challenge's points
_SPECK = 16  # blocks; smaller regions are not drawn for QuPath
_PART = 20_000  # cells turned into text at a time


def write_detections(path: Path, cells: Candidates, mpp: float) -> Path:
    """Write cells as the challenge wants them: points in mm with their probability.

    Args:
        path: ``detected-lymphocytes.json``.
        cells: In pixels of the map.
        mpp: µm per pixel of the map.
    """
    with atomic_open(path, "w") as handle:
        handle.write('{"type":"Multiple points","version":{"major":1,"minor":0},"points":[')
        separator = ""
        for part in _parts(cells):
            points = [
                {"point": [x, y, _Z_MM], "probability": p}
                for x, y, p in zip(
                    (part.x * mpp / 1000).tolist(),
                    (part.y * mpp / 1000).tolist(),
                    part.p.tolist(),
                    strict=True,
                )
            ]
            handle.write(separator + json.dumps(points, separators=(",", ":"))[1:-1])
            separator = ","
        handle.write("]}\n")
    return path


def _parts(cells: Candidates) -> Iterator[Candidates]:
    for start in range(0, len(cells.x), _PART):
        yield cells.pick(np.arange(start, min(start + _PART, len(cells.x))))


def write_score(path: Path, score: float) -> Path:
    """Write ``til-score.json``: the bare number, or null."""
    return write_text(path, json.dumps(score if np.isfinite(score) else None) + "\n")


def write_cells_geojson(path: Path, cells: Candidates, level0_px: float) -> Path:
    """Write cells for QuPath: a detection each, classified by the tissue it lies on, in level-0 pixels.

    Args:
        path: ``cells.geojson``.
        cells: In pixels of the map; their value is the tissue.
        level0_px: Level-0 pixels of one pixel of the map.
    """
    classes = {
        value: {"name": f"Lymphocyte: {name}", "color": list(COLOURS.get(value, (128, 128, 128)))}
        for value, name in QUPATH_NAMES.items()
    }
    with atomic_open(path, "w") as handle:
        handle.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for part in _parts(cells):
            # The middle of the pixel, so that points do not shift where pixels are large.
            points = np.round((np.stack([part.x, part.y], axis=1) + 0.5) * level0_px, 2).tolist()
            features = [
                {
                    "type": "Feature",
                    "geometry": {"type": "Point", "coordinates": point},
                    "properties": {
                        "objectType": "detection",
                        "classification": classes[value],
                        "measurements": {"Probability": round(p, 4)},
                    },
                }
                for point, value, p in zip(points, part.value.tolist(), part.p.tolist(), strict=True)
            ]
            lines = (json.dumps(feature, separators=(",", ":")) for feature in features)
            handle.write(separator + ",\n".join(lines))
            separator = ",\n"
        handle.write("\n]}\n")
    return path


def write_tissue_geojson(path: Path, tallies: Tallies, level0_px: float) -> Path:
    """Write the borders of the tissues for QuPath, as fine as the coarse map is.

    Args:
        path: ``tissue.geojson``.
        tallies: Of the slide.
        level0_px: Level-0 pixels of one pixel of the map.
    """
    from medshared.slides import Contour, TissueMask, write_geojson

    coarse = tallies.coarse_map()
    scale = tallies.block * level0_px
    contours: list[Contour] = []
    properties: list[dict[str, Any]] = []
    for value in TISSUES:
        found = TissueMask(coarse == value, (scale, scale)).contours(_SPECK * scale**2, _SPECK * scale**2)
        contours += found
        named = {"name": QUPATH_NAMES[value], "color": list(COLOURS[value])}
        properties += [{"classification": named, "isLocked": True}] * len(found)
    return write_geojson(path, contours, properties)
