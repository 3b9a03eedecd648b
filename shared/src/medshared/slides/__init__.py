"""Whole-slide images: reading in µm per pixel, tissue, tile grids, contours, and writing of small pyramids.

Needs the extra: ``pip install "medshared[slides]"``; `write_pyramid` also ``medshared[images]``. OpenSlide, libvips
and OpenCV are imported when they are first used.
"""

from medshared.slides.faults import Fault, FaultList, SlideError, SpacingError, TileError
from medshared.slides.reading import LevelChoice, Slide, open_slide
from medshared.slides.tiles import Tile, read_tiles
from medshared.slides.writing import write_pyramid

__all__ = [
    "Fault",
    "FaultList",
    "LevelChoice",
    "Slide",
    "SlideError",
    "SpacingError",
    "Tile",
    "TileError",
    "open_slide",
    "read_tiles",
    "write_pyramid",
]
