"""Pictures of an image, a mask and maps of numbers, as the page shows them; NumPy and PIL alone."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8]
ORANGE = (230, 130, 0)  # told from blue, black and grey with every kind of colour vision
SHOWN_PX = 640  # longer side of an image on the page
ENLARGED_BELOW = SHOWN_PX // 2  # smaller images are enlarged by a whole factor, every pixel a square
SENT_PX = 2 * SHOWN_PX  # longer side of what the browser gets of large images; enough for dense screens
LINE_PX = 2
PALETTES: dict[str, str] = {"probability": "viridis", "agreement": "viridis", "entropy": "magma"}

Palette = Literal["viridis", "magma"]


@dataclass(frozen=True)
class Frame:
    """How large an image is and how large it is shown.

    Attributes:
        width: Of the image, in its own pixels.
        height: Of the image.
        shown_width: On the page, in CSS pixels.
        shown_height: On the page.
    """

    width: int
    height: int
    shown_width: int
    shown_height: int

    @classmethod
    def of(cls, shape: tuple[int, int], side: int = SHOWN_PX) -> Frame:
        """Return how an image of a shape ``(H, W)`` is shown in a square of ``side`` pixels.

        Example:
            >>> Frame.of((64, 48))
            Frame(width=48, height=64, shown_width=480, shown_height=640)
        """
        height, width = shape
        longer = max(height, width)
        scale = side // longer if longer <= side // 2 else side / longer
        return cls(width, height, max(1, round(width * scale)), max(1, round(height * scale)))

    @property
    def enlarged(self) -> bool:
        """Whether pixels of the image are shown as squares."""
        return self.shown_width >= 2 * self.width

    def sampled(self, values: ArrayLike) -> NDArray[np.generic]:
        """Return an array ``[H, W]`` at the size on the page: for each shown pixel the one that lies under it."""
        rows = (np.arange(self.shown_height) * 2 + 1) * self.height // (2 * self.shown_height)
        columns = (np.arange(self.shown_width) * 2 + 1) * self.width // (2 * self.shown_width)
        return np.asarray(values)[rows[:, None], columns]


def image_url(image: Pixels) -> str:
    """Return an image for the browser: as it is, or made smaller where the screen could not show more.

    Args:
        image: uint8 ``[H, W, 3]``.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    if max(picture.size) > SENT_PX:
        picture.thumbnail((SENT_PX, SENT_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return _url(picture, "JPEG", quality=92)
    return _url(picture, "PNG", compress_level=1)


def mask_url(mask: ArrayLike, frame: Frame, colour: tuple[int, int, int] = ORANGE) -> str:
    """Return a mask as a coloured area, transparent elsewhere.

    Args:
        mask: bool ``[H, W]``.
        frame: Of its image.
        colour: Red, green, blue.
    """
    return _stencil(frame.sampled(mask).astype(bool), colour)


def outline_url(mask: ArrayLike, frame: Frame, colour: tuple[int, int, int] = ORANGE) -> str:
    """Return a line along the inner border of a mask, transparent elsewhere.

    Args:
        mask: bool ``[H, W]``.
        frame: Of its image.
        colour: Red, green, blue.
    """
    shown = frame.sampled(mask).astype(bool)
    return _stencil(shown & ~eroded(shown, LINE_PX), colour)


def eroded(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return the pixels whose whole square of ``2 * by + 1`` pixels is inside; beyond the image nothing is."""
    inner = np.pad(mask, by)
    for axis in (0, 1):
        parts = [np.roll(inner, shift, axis) for shift in range(-by, by + 1)]
        inner = np.logical_and.reduce(parts)
    return inner[by : inner.shape[0] - by, by : inner.shape[1] - by]


def heat_url(values: ArrayLike, frame: Frame, palette: Palette) -> str:
    """Return a map of numbers in colours.

    Args:
        values: float ``[H, W]`` in [0, 1].
        frame: Of its image.
        palette: Name of a colour map that is even in lightness.
    """
    from PIL import Image

    levels = np.rint(np.clip(frame.sampled(values).astype(np.float64), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette(_palette(palette).tobytes())
    return _url(picture, "PNG", compress_level=1)


def palette_css(palette: Palette) -> str:
    """Return the colours from 0 to 1 as a CSS gradient."""
    colours = _palette(palette)[np.linspace(0, 255, 9).astype(int)].tolist()
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours)
    return f"linear-gradient(to right, {stops})"


def card_url(image: Pixels, mask: ArrayLike, side: int, opacity: float = 0.45) -> str:
    """Return a small picture of an image with a mask and its outline.

    Args:
        image: uint8 ``[H, W, 3]``.
        mask: bool ``[H, W]``.
        side: Longer side of the picture in pixels.
        opacity: Of the area, in [0, 1].
    """
    from PIL import Image

    frame = Frame.of((image.shape[0], image.shape[1]), side)
    small = frame.sampled(image).astype(np.float64)
    inside = frame.sampled(mask).astype(bool)
    small[inside] = (1 - opacity) * small[inside] + opacity * np.asarray(ORANGE)
    small[inside & ~eroded(inside, 1)] = ORANGE
    return _url(Image.fromarray(np.rint(small).astype(np.uint8)), "PNG", compress_level=1)


def mask_png(mask: ArrayLike) -> bytes:
    """Return a mask as a PNG file of its own size, 0 outside and 255 inside."""
    from PIL import Image

    return _encoded(Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * np.uint8(255)), "PNG")


def array_file(values: ArrayLike) -> bytes:
    """Return an array as a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), allow_pickle=False)
    return buffer.getvalue()


def _stencil(mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> str:
    from PIL import Image

    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([0, 0, 0, *colour])
    return _url(picture, "PNG", compress_level=1, transparency=0)


@lru_cache(maxsize=4)
def _palette(name: Palette) -> Pixels:
    """Return 256 colours."""
    from matplotlib import colormaps

    return np.rint(colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _encoded(picture: object, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)  # type: ignore[attr-defined]
    return buffer.getvalue()


def _url(picture: object, kind: str, **options: object) -> str:
    content = base64.b64encode(_encoded(picture, kind, **options)).decode()
    return f"data:image/{kind.lower()};base64,{content}"
