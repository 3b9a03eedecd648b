"""The fast path: tiles of a TIFF pyramid through libvips, used only where it equals OpenSlide bit for bit."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medshared.slides.faults import TileError
from medshared.slides.handles import ThreadHandles

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

logger = logging.getLogger(__name__)

_WINDOWS = 3  # compared for each level when a slide is opened
_WINDOW_PX = 192
_ATTEMPTS = 6  # windows tried for each that must be compared: some lie on damaged or missing tiles
_MAX_DOUBTS = 32  # windows read again through OpenSlide before the fast path is given up for a slide
# OpenSlide resamples where a level-0 position falls between two pixels of the level, so these windows are its own.
_LARGEST_OFFSET = 1e-6


_reading = threading.local()


class _Hush(logging.Filter):
    """Drops what libvips logs about damaged tiles while a thread reads through it: the fault is told by OpenSlide."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_reading, "active", False)


class Page(NamedTuple):
    """Where a level lies in the TIFF file: page number, and sub-directory or -1."""

    page: int
    subifd: int


class FastPath:
    """Reads windows of pyramid levels with libvips in any thread or process.

    libvips paints grey what a damaged JPEG lacks and says so only in its message buffer. So any message leads to
    a second reading by OpenSlide, whose answer counts: pixels or an error.
    """

    def __init__(self, path: Path, pages: dict[int, Page], sizes: dict[int, tuple[int, int]]) -> None:
        self.path = path
        self.pages, self.sizes = pages, sizes
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._images: dict[int, Any] = {}
        self._generation = 0
        self._doubts = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "pages": self.pages, "sizes": self.sizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.pages, self.sizes = state["path"], state["pages"], state["sizes"]
        self._start()

    def level_window(
        self, location: tuple[int, int], level: int, size: tuple[int, int], downsample: float
    ) -> tuple[int, int] | None:
        """Return the window's corner in pixels of the level, or ``None`` where OpenSlide must read.

        Args:
            location: (x, y) in level-0 pixels.
            level: pyramid level.
            size: (width, height) in pixels of the level.
            downsample: of the level.

        Returns:
            (x, y), when the level has a page, the window lies within it and no resampling is needed.
        """
        if level not in self.pages or self._doubts >= _MAX_DOUBTS:
            return None
        corner = []
        for start, length, available in zip(location, size, self.sizes[level], strict=True):
            exact = start / downsample
            nearest = round(exact)
            if length <= 0 or abs(exact - nearest) > _LARGEST_OFFSET:
                return None
            if nearest < 0 or nearest + length > available:
                return None
            corner.append(nearest)
        return corner[0], corner[1]

    def read(
        self, level: int, corner: tuple[int, int], size: tuple[int, int]
    ) -> npt.NDArray[np.uint8] | None:
        """Read a window.

        Args:
            level: pyramid level.
            corner: (x, y) in pixels of the level.
            size: (width, height) in pixels of the level.

        Returns:
            uint8 [height, width, 3], or ``None`` when libvips had anything to complain about.
        """
        import numpy as np
        import pyvips

        if os.getpid() != self._process:
            self._start()
        region, generation = self._region(level)
        length = pyvips.ffi.new("size_t *")
        # Not Region.fetch, which empties the message buffer before other threads have looked at it.
        _reading.active = True
        try:
            pointer = pyvips.vips_lib.vips_region_fetch(region.pointer, *corner, *size, length)
        finally:
            _reading.active = False
        failed = pointer == pyvips.ffi.NULL
        if not failed:
            pointer = pyvips.ffi.gc(pointer, pyvips.glib_lib.g_free)
        if self._is_doubtful(generation, failed) or length[0] != size[0] * size[1] * 3:
            return None
        data = np.frombuffer(pyvips.ffi.buffer(pointer, length[0]), np.uint8)
        return data.reshape(size[1], size[0], 3)

    def _region(self, level: int) -> tuple[Any, int]:
        """Return this thread's region of a level and the generation of images it belongs to."""
        import pyvips

        with self._lock:
            generation = self._generation
            regions = getattr(self._local, "regions", None)
            if regions is None or self._local.generation != generation:
                regions = self._local.regions = {}
                self._local.generation = generation
            if level not in regions:
                if level not in self._images:
                    self._images[level] = _load(self.path, self.pages[level])
                regions[level] = pyvips.Region.new(self._images[level])
            return regions[level], generation

    def _is_doubtful(self, generation: int, failed: bool) -> bool:
        """Whether any message came up while a window was read, in this thread or another.

        libvips keeps what it made of a damaged tile and hands it out again in silence. So images are opened anew
        after a message, and windows read from the old ones meanwhile count as doubtful as well.
        """
        import pyvips

        with self._lock:
            message = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer())
            if generation == self._generation:
                if not failed and not message:
                    return False
                pyvips.vips_lib.vips_error_clear()
                self._generation += 1
                self._images.clear()
            self._doubts += 1
            if self._doubts == _MAX_DOUBTS:
                logger.info(
                    "%s: read through OpenSlide from here on, because %d windows were damaged or empty",
                    self.path,
                    self._doubts,
                )
            return True

    def close(self) -> None:
        """Let go of the file."""
        self._start()


def _load(path: Path, page: Page) -> Any:
    import pyvips

    # revalidate: a file that was replaced under the same name must not come from libvips' cache.
    return pyvips.Image.tiffload(
        os.fspath(path), page=page.page, subifd=page.subifd, access="random", revalidate=True
    )


def open_fast_path(
    handles: ThreadHandles,
    dimensions: tuple[tuple[int, int], ...],
    downsamples: tuple[float, ...],
    seed: int = 0,
) -> FastPath | None:
    """Find the levels in the TIFF file and compare random windows of each with OpenSlide.

    Args:
        handles: the slide as OpenSlide reads it.
        dimensions: (width, height) of the levels.
        downsamples: of the levels.
        seed: of the windows' positions.

    Returns:
        The fast path for the levels that are equal bit for bit; ``None``, with one log line, when there is none.
    """
    path = handles.path
    try:
        import pyvips
    except (ImportError, OSError) as error:
        logger.info("%s: read through OpenSlide, because pyvips cannot be imported: %s", path, error)
        return None
    if not any(isinstance(each, _Hush) for each in logging.getLogger("pyvips").filters):
        logging.getLogger("pyvips").addFilter(_Hush())
    try:
        pages = _find_pages(path, dimensions)
    except pyvips.Error as error:
        reason = str(error.detail or error.message).strip().splitlines()
        logger.info(
            "%s: read through OpenSlide, because libvips says: %s", path, reason[-1] if reason else error
        )
        return None
    fast = FastPath(path, pages, {level: dimensions[level] for level in pages})
    reasons = {}
    for level in sorted(pages):
        reason = _compare(fast, handles, level, downsamples[level], seed)
        if reason is not None:
            reasons[level] = reason
            del fast.pages[level]
    fast.close()  # forget messages about damaged windows
    if fast.pages and not reasons:
        return fast
    told = "; ".join(f"level {level}: {reason}" for level, reason in reasons.items())
    told = told or "no page of the file has the size of a level"
    which = "levels" if fast.pages else "all levels"
    logger.info("%s: %s read through OpenSlide, because of %s", path, which, told)
    return fast if fast.pages else None


def _find_pages(path: Path, dimensions: tuple[tuple[int, int], ...]) -> dict[int, Page]:
    """Map levels to tiled RGB pages of the same size."""
    import pyvips

    found: dict[tuple[int, int], Page] = {}
    first = pyvips.Image.tiffload(os.fspath(path), revalidate=True)
    for number in range(int(str(first.get("n-pages")))):
        image = _load(path, Page(number, -1))
        subifds = int(str(image.get("n-subifds"))) if "n-subifds" in image.get_fields() else 0
        for subifd in range(-1, subifds):
            if subifd >= 0:
                image = _load(path, Page(number, subifd))
            tiled = "tile-width" in image.get_fields()
            if tiled and image.bands == 3 and image.format == "uchar":
                found.setdefault((image.width, image.height), Page(number, subifd))
    return {level: found[size] for level, size in enumerate(dimensions) if size in found}


def _compare(fast: FastPath, handles: ThreadHandles, level: int, downsample: float, seed: int) -> str | None:
    """Return why a level must be read through OpenSlide, or ``None`` when all windows are equal."""
    import numpy as np

    rng = np.random.default_rng([seed, level])
    available = fast.sizes[level]
    size = (min(_WINDOW_PX, available[0]), min(_WINDOW_PX, available[1]))
    compared = 0
    for _ in range(_WINDOWS * _ATTEMPTS):
        location = [
            round(int(rng.integers(0, whole - part + 1)) * downsample)
            for whole, part in zip(available, size, strict=True)
        ]
        corner = fast.level_window((location[0], location[1]), level, size, downsample)
        if corner is None:
            # Only the level's own corner is certain to fall on a pixel.
            location, corner = [0, 0], (0, 0)
        pixels = fast.read(level, corner, size)
        try:
            expected = handles.read((location[0], location[1]), level, size, (255, 255, 255))
        except TileError:
            continue
        if pixels is None:
            continue
        if not np.array_equal(pixels, expected):
            difference = int(np.abs(pixels.astype(np.int16) - expected).max())
            return f"pixels that differ by up to {difference} at {tuple(location)}"
        compared += 1
        if compared == _WINDOWS:
            return None
    return None if compared else "no window that both could read"
