"""Whole-slide images: reading in µm per pixel, tissue, tile grids, contours, and writing of small pyramids.

Needs the extra: ``pip install "medshared[slides]"``; `write_pyramid` also ``medshared[images]``. OpenSlide, libvips
and OpenCV are imported when they are first used.
"""

from medshared.slides.clam import (
    CLAM_PRESETS,
    ClamPatching,
    ClamSegmentation,
    SegmentationError,
    coordinate_attributes,
    patch_coordinates,
    patch_footprint,
    segment,
)
from medshared.slides.contours import Contour
from medshared.slides.faults import Fault, FaultList, SlideError, SpacingError, TileError
from medshared.slides.geojson import Annotation, GeojsonError, read_geojson, write_geojson
from medshared.slides.grid import TileGrid, make_grid
from medshared.slides.label_pyramid import write_label_pyramid
from medshared.slides.overview import read_overview
from medshared.slides.preview import draw_contours, stitch
from medshared.slides.reading import LevelChoice, Slide, open_slide
from medshared.slides.tiles import Tile, read_tiles
from medshared.slides.tissue import TissueMask, find_tissue, rasterise
from medshared.slides.writing import write_pyramid

__all__ = [
    "CLAM_PRESETS",
    "Annotation",
    "ClamPatching",
    "ClamSegmentation",
    "Contour",
    "Fault",
    "FaultList",
    "GeojsonError",
    "LevelChoice",
    "SegmentationError",
    "Slide",
    "SlideError",
    "SpacingError",
    "Tile",
    "TileError",
    "TileGrid",
    "TissueMask",
    "coordinate_attributes",
    "draw_contours",
    "find_tissue",
    "make_grid",
    "open_slide",
    "patch_coordinates",
    "patch_footprint",
    "rasterise",
    "read_geojson",
    "read_overview",
    "read_tiles",
    "segment",
    "stitch",
    "write_geojson",
    "write_label_pyramid",
    "write_pyramid",
]
