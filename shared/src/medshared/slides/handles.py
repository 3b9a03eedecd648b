"""Open OpenSlide handles: one for each thread of each process, replaced after an error."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.slides.faults import SlideError, TileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_INSTALL = 'pip install "medshared[slides]"'


def import_openslide() -> Any:
    """Return the module ``openslide``, or say how to install it."""
    try:
        import openslide
    except ImportError as error:
        raise ImportError(
            f"reading slides needs openslide-python and openslide-bin: {_INSTALL} ({error})"
        ) from error
    return openslide


def open_handle(path: Path) -> Any:
    """Open a slide with OpenSlide.

    Args:
        path: the slide.

    Returns:
        An ``openslide.OpenSlide``.

    Raises:
        SlideError: naming the file, what was found and what to do.
    """
    openslide = import_openslide()
    if not path.exists():
        raise SlideError(f"{path}: no such slide")
    if path.is_dir():
        raise SlideError(
            f"{path}: this is a folder, expected a slide file such as .svs, .tiff, .ndpi or .mrxs"
        )
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideError(f"{path}: no slide that OpenSlide can read; {_what_it_is(path)}") from error
    except openslide.OpenSlideError as error:
        raise SlideError(f"{path}: OpenSlide cannot open it: {error}; {_what_it_is(path)}") from error


def check_whole(path: Path) -> None:
    """Refuse a TIFF slide whose pixels reach beyond the end of the file.

    Args:
        path: a slide that OpenSlide has recognised as Aperio or generic TIFF.

    Raises:
        SlideError: when the file is cut off.
    """
    from medshared.tiff_directory import StackError, count_pages

    try:
        count_pages(path)
    except StackError as error:
        raise SlideError(str(error)) from error


def _what_it_is(path: Path) -> str:
    """Return the likely cause, from the file's first bytes and its directory."""
    from medshared.tiff_directory import StackError, count_pages

    try:
        count_pages(path)
    except StackError as error:
        return str(error).removeprefix(f"{path}: ")
    return (
        "it is a whole TIFF file, but not tiled: expected a tiled pyramidal slide; convert it, for example with "
        "`vips tiffsave IN OUT --tile --pyramid --compression jpeg`"
    )


class ThreadHandles:
    """Reads level pixels with OpenSlide in any thread or process.

    An OpenSlide handle that has met one bad tile answers every later call with that error, so it is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self.closed = False

    def get(self) -> Any:
        """Return this thread's handle, opened on first use; a forked process opens its own."""
        if self.closed:
            raise SlideError(f"{self.path}: the slide has been closed")
        found = getattr(self._local, "handle", None)
        if found is None or found[0] != os.getpid():
            found = self._local.handle = (os.getpid(), open_handle(self.path))
            self._open.add(found[1])
        return found[1]

    def _drop(self) -> None:
        found = getattr(self._local, "handle", None)
        self._local.handle = None
        if found is not None:
            self._open.discard(found[1])
            found[1].close()

    def read(
        self,
        location: tuple[int, int],
        level: int,
        size: tuple[int, int],
        background: tuple[int, int, int],
    ) -> npt.NDArray[np.uint8]:
        """Read pixels as ``openslide.OpenSlide.read_region`` gives them, laid over a background.

        Args:
            location: (x, y) of the top-left corner in level-0 pixels.
            level: pyramid level.
            size: (width, height) in pixels of the level.
            background: RGB where the slide has no pixels.

        Returns:
            uint8 [height, width, 3].

        Raises:
            TileError: when a tile there cannot be decoded.
        """
        import numpy as np

        openslide = import_openslide()
        try:
            image = self.get().read_region(location, level, size)
        except openslide.OpenSlideError as error:
            self._drop()
            raise TileError(self.path, location, str(error)) from error
        alpha = image.getchannel("A")
        rgb = np.array(image.convert("RGB"))
        if size[0] == 0 or size[1] == 0 or alpha.getextrema()[0] == 255:
            return rgb
        # OpenSlide has taken the premultiplication back: colour × alpha + background × (1 − alpha).
        share = np.asarray(alpha, np.uint16)[..., None]
        mixed = rgb * share + np.asarray(background, np.uint16) * (255 - share) + 127
        return (mixed // 255).astype(np.uint8)

    def close(self) -> None:
        """Close the handles of all threads of this process."""
        self.closed = True
        for handle in list(self._open):
            handle.close()
        self._open.clear()
