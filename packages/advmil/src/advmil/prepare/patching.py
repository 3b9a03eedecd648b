"""Tissue and patches of one slide: contours, mask picture, coordinates, stitched picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advmil.prepare.big_to_small import clam_attributes
from advmil.prepare.process_list import SlideParameters
from medshared.bags import ClamAttributes, read_coordinates, write_coordinates
from medshared.batch import EmptyResultError
from medshared.files import write_bytes
from medshared.slides import (
    Contour,
    FaultList,
    GeojsonError,
    Slide,
    SlideError,
    coordinate_attributes,
    draw_contours,
    find_tissue,
    open_slide,
    patch_coordinates,
    patch_footprint,
    read_geojson,
    read_overview,
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


def open_prepared(path: Path, spacing_um: float | None, default_um: float | None = None) -> Slide:
    """Open a slide whose µm per pixel may be given from outside.

    Args:
        path: The slide.
        spacing_um: In place of what the slide says; null = as it says.
        default_um: Where neither says anything.
    """
    slide = open_slide(path, spacing_um)
    if slide.spacing_um is None:
        slide.spacing_um = default_um
    return slide


def segment_slide(
    path: Path,
    folder: Path,
    parameters: SlideParameters,
    tissue: str,
    *,
    default_spacing_um: float | None = None,
) -> str:
    """Write ``contours/<stem>.geojson`` and ``masks/<stem>.jpg``; return a word on what was found.

    Parts that cannot be decoded hold no tissue and are listed in ``faults/<stem>.csv``.

    Raises:
        medshared.slides.SlideError: The slide cannot be read or segmented.
    """
    faults = FaultList(path)
    with open_prepared(path, parameters.spacing_um, default_spacing_um) as slide:
        contours = find_contours(slide, parameters, tissue, faults)
        if len(faults) and not contours:
            first = next(iter(faults))
            raise SlideError(
                f"{path}: no tissue found, but {len(faults)} parts of the slide cannot be decoded, the first at "
                f"({first.x}, {first.y}): {first.reason}; copy or export the slide again"
            )
        downsample = max(slide.dimensions) / PICTURE_PX
        picture, scale = read_overview(slide, downsample, FaultList(path))
    picture = draw_contours(picture, contours, scale, line_thickness=parameters.line_thickness)
    _write_jpeg(folder / "masks" / f"{path.stem}.jpg", picture)
    write_faults(faults, folder, path.stem)
    write_geojson(folder / "contours" / f"{path.stem}.geojson", contours)
    return f"{len(contours)} regions of tissue" + (f", {len(faults)} faulty parts" if len(faults) else "")


def write_faults(faults: FaultList, folder: Path, stem: str) -> None:
    """Write ``faults/<stem>.csv``, or remove an earlier one when there are none."""
    path = folder / "faults" / f"{stem}.csv"
    if len(faults):
        faults.write(path)
    else:
        path.unlink(missing_ok=True)


def has_contours(path: Path) -> bool:
    """Whether a file holds contours that can be used."""
    try:
        read_geojson(path)
    except (OSError, GeojsonError):
        return False
    return True


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
    target = folder / "patches" / f"{path.stem}.h5"
    if not contours:
        target.unlink(missing_ok=True)  # of earlier parameters
        raise EmptyResultError("no tissue found: no coordinate file")
    patching = parameters.patching(patch_size, step_size, patch_level)
    with open_slide(path, parameters.spacing_um) as slide:
        coordinates = patch_coordinates(slide, contours, patching)
        if not len(coordinates):
            target.unlink(missing_ok=True)
            raise EmptyResultError("no patch lies in the tissue: no coordinate file")
        attributes = ClamAttributes(**coordinate_attributes(slide, patching, str(folder / "patches")))
        if pictures:
            footprint = patch_footprint(slide, patching)
            picture = stitch(slide, coordinates, footprint, PICTURE_PX, faults=FaultList(path))
            _write_jpeg(folder / "stitches" / f"{path.stem}.jpg", picture)
    write_coordinates(target, coordinates, attributes)
    return f"{len(coordinates)} patches"


def stitch_slide(path: Path, folder: Path, parameters: SlideParameters) -> str:
    """Draw ``stitches/<stem>.jpg`` from the coordinates of an earlier run.

    Raises:
        EmptyResultError: The slide has no coordinate file.
    """
    coordinates = folder / "patches" / f"{path.stem}.h5"
    if not coordinates.is_file():
        raise EmptyResultError(f"{coordinates}: no such file, so there is nothing to draw")
    read = read_coordinates(coordinates)
    edge = clam_attributes(coordinates, read.attributes).patch_size_level0
    with open_slide(path, parameters.spacing_um) as slide:
        picture = stitch(slide, read.xy, edge, PICTURE_PX, faults=FaultList(path))
    _write_jpeg(folder / "stitches" / f"{path.stem}.jpg", picture)
    return "drawn"


def _write_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=90)
    write_bytes(path, buffer.getvalue())
