"""Tissue and patches of one slide: contours, mask picture, coordinates, stitched picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advmil.prepare.batch import EmptyResultError
from advmil.prepare.process_list import SlideParameters
from medshared.bags import ClamAttributes, write_coordinates
from medshared.files import write_bytes
from medshared.slides import (
    Contour,
    FaultList,
    Slide,
    coordinate_attributes,
    draw_contours,
    find_tissue,
    open_slide,
    patch_coordinates,
    patch_footprint,
    read_geojson,
    segment,
    stitch,
    write_geojson,
)

PICTURE_PX = 2048


def find_contours(slide: Slide, parameters: SlideParameters, tissue: str, faults: FaultList) -> list[Contour]:
    """Return the tissue of a slide.

    Args:
        slide: The slide.
        parameters: Of ``clam``.
        tissue: ``clam``, or ``otsu`` which needs no parameters.
        faults: Takes parts that cannot be decoded.
    """
    if tissue == "clam":
        return segment(slide, parameters.segmentation, faults=faults)
    return find_tissue(slide, faults=faults).contours()


def segment_slide(path: Path, folder: Path, parameters: SlideParameters, tissue: str) -> str:
    """Write ``contours/<stem>.geojson`` and ``masks/<stem>.jpg``; return a word on what was found.

    Raises:
        medshared.slides.SlideError: The slide cannot be read or segmented.
    """
    faults = FaultList(path)
    with open_slide(path, parameters.spacing_um) as slide:
        contours = find_contours(slide, parameters, tissue, faults)
        thumbnail = slide.thumbnail(PICTURE_PX) if not len(faults) else _faulty_thumbnail(slide, faults)
        scale = (slide.dimensions[0] / thumbnail.shape[1], slide.dimensions[1] / thumbnail.shape[0])
    picture = draw_contours(thumbnail, contours, scale, line_thickness=parameters.line_thickness)
    _write_jpeg(folder / "masks" / f"{path.stem}.jpg", picture)
    if len(faults):
        faults.write(folder / "faults" / f"{path.stem}.csv")
    write_geojson(folder / "contours" / f"{path.stem}.geojson", contours)
    return f"{len(contours)} regions of tissue"


def _faulty_thumbnail(slide: Slide, faults: FaultList) -> NDArray[np.uint8]:
    width, height = slide.dimensions
    every = np.array([[0, 0]])
    return stitch(slide, every, (width, height), PICTURE_PX, faults=faults)


def patch_slide(
    path: Path,
    folder: Path,
    parameters: SlideParameters,
    *,
    patch_size: int,
    step_size: int,
    patch_level: int,
    pictures: bool = True,
) -> str:
    """Write ``patches/<stem>.h5`` and ``stitches/<stem>.jpg`` from the slide's contours.

    The contours are read from ``contours/<stem>.geojson``, where they may have been corrected by hand in QuPath.

    Raises:
        EmptyResultError: No tissue, or no patch within it.
        medshared.slides.SlideError: The slide cannot be read or lacks the level.
    """
    contours = [
        annotation.contour for annotation in read_geojson(folder / "contours" / f"{path.stem}.geojson")
    ]
    if not contours:
        raise EmptyResultError("no tissue found: no coordinate file")
    patching = parameters.patching(patch_size, step_size, patch_level)
    with open_slide(path, parameters.spacing_um) as slide:
        coordinates = patch_coordinates(slide, contours, patching)
        if not len(coordinates):
            raise EmptyResultError("no patch lies in the tissue: no coordinate file")
        attributes = ClamAttributes(**coordinate_attributes(slide, patching, str(folder / "patches")))
        if pictures:
            footprint = patch_footprint(slide, patching)
            picture = stitch(slide, coordinates, footprint, PICTURE_PX, faults=FaultList(path))
            _write_jpeg(folder / "stitches" / f"{path.stem}.jpg", picture)
    write_coordinates(folder / "patches" / f"{path.stem}.h5", coordinates, attributes)
    return f"{len(coordinates)} patches"


def _write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=90)
    write_bytes(path, buffer.getvalue())
