"""Whole-slide images: asked for in µm per pixel, read from whichever pyramid level suits."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from medshared.slides.faults import SpacingError, TileError
from medshared.slides.handles import ThreadHandles, check_whole
from medshared.slides.pyramid import FastPath, open_fast_path

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from medshared.slides.faults import FaultList
    from medshared.slides.tiles import Tile

logger = logging.getLogger(__name__)

SPACING_TOLERANCE = 0.1  # a level this close to the spacing asked for is used as it is
_PLAUSIBLE_UM = (0.01, 100.0)  # 72 dpi, which many programs write unasked, would be 353 µm per pixel


class LevelChoice(NamedTuple):
    """The level to read and what to do with it.

    Attributes:
        level: pyramid level.
        downsample: of that level.
        scale: pixels of the level for one pixel of the result; exactly 1 when nothing is rescaled.
    """

    level: int
    downsample: float
    scale: float


def open_slide(
    path: str | os.PathLike[str], spacing_um: float | None = None, *, fast: bool = True, seed: int = 0
) -> Slide:
    """Open a whole-slide image.

    Args:
        path: any format of OpenSlide: .svs, tiled .tiff, .ndpi, .mrxs, .scn, ….
        spacing_um: µm per pixel of level 0, in place of what the file says.
        fast: read TIFF pyramids through libvips where random windows equal OpenSlide's bit for bit.
        seed: of these windows.

    Returns:
        The open slide; use it in a ``with`` block or call `Slide.close`.

    Raises:
        SlideError: when the file is missing, no slide, or cut off.
        ImportError: with the command to install what is missing.
    """
    return Slide(path, spacing_um, fast=fast, seed=seed)


class Slide:
    """One whole-slide image.

    Threads may share a slide, and it may be sent to or inherited by other processes: file handles belong to one
    thread of one process and are opened where they are used.

    Attributes:
        path: the file.
        dimensions: (width, height) of level 0 in pixels.
        level_dimensions: (width, height) of every level.
        level_downsamples: of every level, as OpenSlide gives them.
        level_tile_px: (width, height) of the file's own tiles on every level, ``None`` where it has none.
        properties: of OpenSlide, such as ``aperio.AppMag``.
        vendor: as OpenSlide detects it.
        spacing_um: µm per pixel of level 0, or ``None`` when neither file nor caller says.
        background: RGB shown where the slide has no pixels: OpenSlide's background colour, else white.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        spacing_um: float | None = None,
        *,
        fast: bool = True,
        seed: int = 0,
    ) -> None:
        """Open the file; see `open_slide`."""
        if spacing_um is not None and not (math.isfinite(spacing_um) and spacing_um > 0):
            raise ValueError(f"spacing_um must be a positive number of µm per pixel, found {spacing_um}")
        self.path = Path(path)
        self._handles = ThreadHandles(self.path)
        handle = self._handles.get()
        self.level_dimensions: tuple[tuple[int, int], ...] = tuple(handle.level_dimensions)
        self.level_downsamples: tuple[float, ...] = tuple(handle.level_downsamples)
        self.dimensions = self.level_dimensions[0]
        self.properties: Mapping[str, str] = dict(handle.properties)
        self.vendor = self.properties.get("openslide.vendor", "")
        self.level_tile_px = tuple(self._tile_px(level) for level in range(len(self.level_dimensions)))
        self.background = _colour(self.properties.get("openslide.background-color"))
        self.spacing_um = spacing_um if spacing_um is not None else _spacing(self.path, self.properties)
        self._warned = False
        self._fast: FastPath | None = None
        try:
            if self.vendor in ("aperio", "generic-tiff"):
                check_whole(self.path)
            if fast:
                self._fast = open_fast_path(
                    self._handles, self.level_dimensions, self.level_downsamples, seed
                )
        except BaseException:
            self.close()
            raise

    def _tile_px(self, level: int) -> tuple[int, int] | None:
        name = f"openslide.level[{level}].tile-"
        if name + "width" not in self.properties or name + "height" not in self.properties:
            return None
        return int(self.properties[name + "width"]), int(self.properties[name + "height"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._handles = ThreadHandles(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file in this process."""
        self._handles.close()
        if self._fast is not None:
            self._fast.close()

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return self.path.stem

    @property
    def fast_levels(self) -> tuple[int, ...]:
        """Levels that are read through libvips."""
        return tuple(sorted(self._fast.pages)) if self._fast is not None else ()

    def require_spacing(self) -> float:
        """Return µm per pixel of level 0.

        Raises:
            SpacingError: when it is unknown, saying how to give it.
        """
        if self.spacing_um is None:
            power = self.properties.get("openslide.objective-power")
            hint = (
                f" (its objective power of {power} suggests about {10 / float(power):.3g})" if power else ""
            )
            raise SpacingError(
                f"{self.path}: the slide does not say how many µm a pixel has{hint}; give it as spacing_um when the "
                "slide is opened, or ask in pixels of a level"
            )
        return self.spacing_um

    def level_spacing_um(self, level: int) -> float:
        """Return µm per pixel of a level."""
        return self.require_spacing() * self.level_downsamples[level]

    def best_level_for_downsample(self, downsample: float) -> int:
        """Return the level whose downsample is the largest that does not exceed the one given, as OpenSlide does."""
        fitting = [i for i, each in enumerate(self.level_downsamples) if each <= downsample]
        return max(fitting, key=lambda i: self.level_downsamples[i], default=0)

    def choose_level(self, spacing_um: float) -> LevelChoice:
        """Choose the level to read for a spacing.

        The nearest level is used unchanged when it is off by at most 10 %. Otherwise the next finer level is
        reduced by area averaging. Only when a spacing finer than level 0 is asked for are pixels interpolated,
        with a warning once a slide.

        Args:
            spacing_um: µm per pixel of the result.

        Returns:
            Level, downsample and scale.

        Raises:
            SpacingError: when the slide's own spacing is unknown.
        """
        if not (math.isfinite(spacing_um) and spacing_um > 0):
            raise ValueError(f"spacing_um must be a positive number of µm per pixel, found {spacing_um}")
        wanted = spacing_um / self.require_spacing()
        nearest = min(
            range(len(self.level_downsamples)),
            key=lambda level: abs(math.log(self.level_downsamples[level] / wanted)),
        )
        if abs(self.level_downsamples[nearest] / wanted - 1) <= SPACING_TOLERANCE:
            return LevelChoice(nearest, self.level_downsamples[nearest], 1.0)
        level = self.best_level_for_downsample(wanted)
        downsample = self.level_downsamples[level]
        if wanted < downsample and not self._warned:
            self._warned = True
            logger.warning(
                "%s: %g µm per pixel is finer than the slide's own %g; pixels between are interpolated",
                self.path,
                spacing_um,
                self.require_spacing(),
            )
        return LevelChoice(level, downsample, wanted / downsample)

    def read_level(
        self, location: tuple[int, int], level: int, size_px: int | tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Read pixels of a level exactly as OpenSlide's ``read_region`` gives them.

        Args:
            location: (x, y) of the top-left corner in level-0 pixels.
            level: pyramid level.
            size_px: edge, or (width, height), in pixels of the level.

        Returns:
            uint8 [height, width, 3]; outside the slide its background colour. The array may be read-only.

        Raises:
            TileError: when a tile there cannot be decoded; the slide stays usable.
            ValueError: for a level the slide does not have.
        """
        if not 0 <= level < len(self.level_dimensions):
            raise ValueError(
                f"{self.path}: level {level} was asked for, but the slide has levels 0–{len(self.level_dimensions) - 1}"
            )
        size = (size_px, size_px) if isinstance(size_px, int) else (int(size_px[0]), int(size_px[1]))
        if min(size) < 0:
            raise ValueError(f"a size in pixels cannot be negative, found {size}")
        place = (int(location[0]), int(location[1]))
        pixels = self.read_fast(place, level, size)
        return pixels if pixels is not None else self._handles.read(place, level, size, self.background)

    def read_fast(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8] | None:
        """Read a window through the fast path only.

        Args:
            location: (x, y) of the top-left corner in level-0 pixels.
            level: pyramid level.
            size: (width, height) in pixels of the level.

        Returns:
            uint8 [height, width, 3]; ``None`` where OpenSlide must be asked: the level has no fast path, the window
            reaches beyond the slide or lies between pixels of the level, or something in it may be damaged.
        """
        if self._handles.closed:
            self._handles.get()  # says that the slide is closed
        if self._fast is None:
            return None
        corner = self._fast.level_window(location, level, size, self.level_downsamples[level])
        return None if corner is None else self._fast.read(level, corner, size)

    def read_region(
        self, location: tuple[int, int], size_px: int | tuple[int, int], *, spacing_um: float
    ) -> npt.NDArray[np.uint8]:
        """Read pixels of a given size in µm; the level is chosen inside, see `choose_level`.

        Args:
            location: (x, y) of the top-left corner in level-0 pixels.
            size_px: edge, or (width, height), of the result in pixels.
            spacing_um: µm per pixel of the result.

        Returns:
            uint8 [height, width, 3]; outside the slide its background colour. The array may be read-only.

        Raises:
            SpacingError: when the slide's own spacing is unknown.
            TileError: when a tile there cannot be decoded; the slide stays usable.
        """
        choice = self.choose_level(spacing_um)
        size = (size_px, size_px) if isinstance(size_px, int) else (int(size_px[0]), int(size_px[1]))
        source = scaled_size(size, choice.scale)
        return rescale(self.read_level(location, choice.level, source), size)

    def read_tiles(
        self,
        coordinates: npt.ArrayLike,
        size_px: int,
        *,
        spacing_um: float | None = None,
        level: int | None = None,
        n_threads: int | None = None,
        faults: FaultList | None = None,
        max_fault_share: float = 1.0,
    ) -> Iterator[Tile]:
        """Read many tiles; neighbours are read together and in several threads. See `tiles.read_tiles`."""
        from medshared.slides.tiles import read_tiles

        return read_tiles(
            self,
            coordinates,
            size_px,
            spacing_um=spacing_um,
            level=level,
            n_threads=n_threads,
            faults=faults,
            max_fault_share=max_fault_share,
        )

    def thumbnail(self, max_px: int = 1024) -> npt.NDArray[np.uint8]:
        """Return the whole slide with its longer side at most ``max_px`` pixels.

        Args:
            max_px: longest side; a smaller slide is not enlarged.

        Returns:
            uint8 [height, width, 3].

        Raises:
            TileError: when a tile of the level read cannot be decoded.
        """
        factor = max(1.0, max(self.dimensions) / max_px)
        level = self.best_level_for_downsample(factor)
        size = (max(1, round(self.dimensions[0] / factor)), max(1, round(self.dimensions[1] / factor)))
        return rescale(self.read_level((0, 0), level, self.level_dimensions[level]), size)


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Return how many pixels of a level make up a result of ``size`` pixels, at least one each way."""
    if scale == 1.0:
        return int(size[0]), int(size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def rescale(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Reduce by area averaging, or enlarge bilinearly.

    Args:
        pixels: uint8 [height, width, 3].
        size: (width, height) of the result.

    Returns:
        uint8 [height, width, 3]; the same array when it has the size already.
    """
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    import cv2

    smaller = size[0] <= pixels.shape[1] and size[1] <= pixels.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=method)  # pyright: ignore[reportReturnType]


def _colour(text: str | None) -> tuple[int, int, int]:
    if text is None or len(text) != 6:
        return 255, 255, 255
    return int(text[0:2], 16), int(text[2:4], 16), int(text[4:6], 16)


def _spacing(path: Path, properties: Mapping[str, str]) -> float | None:
    """Return µm per pixel of level 0 from the properties; x and y are averaged when they differ."""
    found = []
    for axis in ("x", "y"):
        value = _number(properties.get(f"openslide.mpp-{axis}")) or _number(properties.get("aperio.MPP"))
        per_unit = {"centimeter": 1e4, "inch": 25400.0}.get(properties.get("tiff.ResolutionUnit", ""))
        resolution = _number(properties.get(f"tiff.{axis.upper()}Resolution"))
        if value is None and per_unit is not None and resolution:
            value = per_unit / resolution
        if value is None or not _PLAUSIBLE_UM[0] <= value <= _PLAUSIBLE_UM[1]:
            if value is not None:
                logger.warning("%s: %g µm per pixel is not a slide's; taken as unknown", path, value)
            return None
        found.append(value)
    x, y = found
    if abs(x / y - 1) > 0.02:
        logger.warning("%s: pixels are not square (%g × %g µm); the mean is used", path, x, y)
    # Identical values stay as they are; (x + y) / 2 is exact then.
    return (x + y) / 2


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


__all__ = ["LevelChoice", "Slide", "TileError", "open_slide", "rescale", "scaled_size"]
