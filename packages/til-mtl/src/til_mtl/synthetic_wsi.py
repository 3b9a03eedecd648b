"""Whole slides with annotated regions, as ``wsirois/wsi-level-annotations`` of the download has them.

A slide is one drawing with two annotated rectangles, one of tissue-bcss and one of tissue-cells; the region images
are cut out of it, so both levels of the download show the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np

from medshared.files import write_text
from medshared.slides import write_label_pyramid, write_pyramid
from til_mtl.synthetic import UNIT_PX, Canvas, draw_canvas, on_glass, tissue_labels

BOX_PX = 16  # of a cell's marker, as in the download
_AROUND_PX = 16  # tissue between the regions and round them


class DrawnRegion(NamedTuple):
    """A region: its name in the download, its drawing, and its tissue labels uint8 [H, W], 0 to 7."""

    name: str
    canvas: Canvas
    labels: np.ndarray


def write_annotated_slide(
    folder: Path, slide: str, seed: int, region_px: int, margin_px: int, spacing_um: float
) -> dict[str, DrawnRegion]:
    """Write one slide with its tissue mask, annotation masks and XML files.

    Args:
        folder: ``wsi-level-annotations``.
        slide: Name of the slide.
        seed: Everything follows from it.
        region_px: Edge of the two regions.
        margin_px: Glass round the tissue.
        spacing_um: µm per pixel.

    Returns:
        ``tissue-bcss`` and ``tissue-cells`` → the region.
    """
    generator = np.random.default_rng(seed)
    width, height = 2 * region_px + 3 * _AROUND_PX, region_px + 2 * _AROUND_PX
    canvas = draw_canvas(generator, width, height, round(4.5 * width * height / UNIT_PX**2))
    image, segmentation, _ = on_glass(generator, canvas, margin_px)
    labels = tissue_labels(generator, canvas)
    write_pyramid(
        folder / "images" / f"{slide}.tif", image, spacing_um, "generic", tile_px=128, downsamples=(1, 4),
        quality=95, subsampling=(1, 1), workers=1,
    )  # fmt: skip
    tissue = (segmentation > 0).astype(np.uint8)
    write_label_pyramid(folder / "tissue-masks" / f"{slide}_tissue.tif", tissue, spacing_um)
    found: dict[str, DrawnRegion] = {}
    for number, kind in enumerate(("tissue-bcss", "tissue-cells")):
        left, top = _AROUND_PX + number * (region_px + _AROUND_PX), _AROUND_PX
        x, y = left + margin_px, top + margin_px
        rows, columns = slice(top, top + region_px), slice(left, left + region_px)
        name = f"{slide}_[{x}, {y}, {x + region_px}, {y + region_px}]"
        region = DrawnRegion(name, canvas.crop(left, top, region_px, region_px), labels[rows, columns])
        annotated = np.zeros(segmentation.shape, np.uint8)
        annotated[y : y + region_px, x : x + region_px] = region.labels
        write_label_pyramid(folder / f"annotations-{kind}-masks" / f"{slide}.tif", annotated, spacing_um)
        cells = region.canvas.centres + np.array([x, y]) if kind == "tissue-cells" else np.empty((0, 2))
        xml = asap_xml((x, y, x + region_px, y + region_px), cells)
        write_text(folder / f"annotations-{kind}-xmls" / f"{slide}.xml", xml)
        found[kind] = region
    return found


def asap_xml(rectangle: tuple[int, int, int, int], cells: np.ndarray) -> str:
    """Return ASAP annotations: one region and its cells, in turn as dots and as boxes.

    Args:
        rectangle: Left, top, right, bottom in level-0 pixels.
        cells: [n, 2], centres in level-0 pixels.

    Returns:
        The document.
    """
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "<Annotations>"]
    lines += _annotation("roi 0", "Rectangle", "roi", _corners(*rectangle))
    half = BOX_PX / 2
    for number, (x, y) in enumerate(cells.tolist()):
        dot = number % 2 == 0
        points = [(x, y)] if dot else _corners(x - half, y - half, x + half, y + half)
        kind = "Dot" if dot else "Rectangle"
        lines += _annotation(f"cell {number}", kind, "lymphocytes and plasma cells", points)
    return "\n".join([*lines, "</Annotations>", "<AnnotationGroups />", "</ASAP_Annotations>", ""])


def _corners(x1: float, y1: float, x2: float, y2: float) -> list[tuple[float, float]]:
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _annotation(name: str, kind: str, group: str, points: list[tuple[float, float]]) -> list[str]:
    head = f"<Annotation Name={quoteattr(name)} Type={quoteattr(kind)} PartOfGroup={quoteattr(group)}>"
    places = [f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, (x, y) in enumerate(points)]
    return [head, "<Coordinates>", *places, "</Coordinates>", "</Annotation>"]
