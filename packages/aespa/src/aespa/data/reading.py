"""Image and mask files → arrays, with every doubt about what a file holds settled or refused by a message.

Decoding and resizing are the original's (PIL, bilinear with antialiasing, masks at one half), so that the same files
give the same numbers.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aespa.data.records import Record
from aespa.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy")
N_CLASSES = 6  # background and five kinds of haemorrhage
MAX_PIXELS = 40_000_000
_HALF = 128  # the first byte whose 255th part is at least one half
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

Pixels = NDArray[np.uint8]


# ---------------------------------------------------------------------- images


def read_image(path: Path, *, stretch: bool = False) -> Pixels:
    """Read an image with 8 bits a channel.

    Args:
        path: PNG, JPEG, TIFF or BMP, or ``.npy`` with bytes ``[H, W]`` or ``[H, W, 3]``.
        stretch: Map the range of a deeper image to 0..255, as one does with a picture somebody shows; data sets
            refuse such images, because another range for every image changes what a grey means.

    Returns:
        uint8 ``[H, W, 3]``; the channels of grey images are equal.

    Raises:
        DataError: No such file, damaged, more than 40 megapixels, deeper than 8 bits, or partly transparent.
    """
    pixels = read_pixels(path, stretch=stretch)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def read_pixels(path: Path, *, stretch: bool = False) -> Pixels:
    """Read as `read_image`, but keep a grey image as ``[H, W]``: it is resized in a third of the time."""
    if path.suffix == ".npy":
        return _image_of_array(path, _load_array(path))
    with _open(path) as image:
        return np.asarray(_eight_bits(path, image, stretch))


def image_shape(path: Path) -> tuple[int, int]:
    """Return height and width from the file's header, without decoding it."""
    if path.suffix == ".npy":
        height, width = _load_array(path, only_header=True).shape[:2]
        return int(height), int(width)
    with _open(path, whole=False) as image:
        return image.height, image.width


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not content:
        raise DataError(f"{path}: the file is empty: copying it was probably interrupted")
    return content


def _open(path: Path, *, whole: bool = True) -> Image:
    """Open a picture file and, if asked to, decode it; one that is too large is never decoded."""
    from PIL import Image

    content = _content(path) if whole else b""
    try:
        image = Image.open(io.BytesIO(content) if whole else path)
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height} px"
            image.close()
            raise DataError(f"{path}: {_too_large(size)}")
        if whole and image.format == "PNG":
            # Decoding alone passes over wrong checksums: a damaged file would give a wrong picture.
            image.verify()
            image = Image.open(io.BytesIO(content))
        if whole:
            # PIL opens colours of 16 bits as colours of 8, dropping the lower half without a word.
            deep = ";16" in str(image.tile)
            image.load()
            image.info["deep"] = deep
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {_too_large(str(error))}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _FAULTS as error:
        raise DataError(
            f"{path}: not an image that can be read ({_reason(error)}); it may be damaged or cut off, copy it again"
        ) from error
    return image


def _too_large(found: str) -> str:
    return (
        f"the image is too large ({found}, at most {MAX_PIXELS // 1_000_000} megapixels are read); "
        "cut out the part that matters or make it smaller"
    )


def _eight_bits(path: Path, image: Image, stretch: bool) -> Image:
    """Return the picture in mode L or RGB."""
    import PIL.Image

    if image.mode in _DEEP or image.info["deep"]:
        if not stretch:
            raise DataError(
                f"{path}: the image holds more than 8 bits a channel (mode {image.mode}); choose a window and save it "
                "with 8 bits, since stretching each image to its own range would change what a grey means"
            )
        values = np.asarray(image if image.mode in _DEEP else image.convert("RGB"), np.float64)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / (high - low) * 255 if high > low else np.zeros_like(values)
        return PIL.Image.fromarray(np.rint(scaled).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if isinstance(lowest, (int, float)) and lowest < 255:
            raise DataError(
                f"{path}: the image is partly transparent (RGBA); save it without an alpha channel, on the "
                "background it shall have"
            )
        return image.convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _image_of_array(path: Path, array: NDArray[Any]) -> Pixels:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise DataError(
            f"{path}: expected an image of uint8 values [height, width] or [height, width, 3], found "
            f"{array.dtype} {list(array.shape)}"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise DataError(f"{path}: {_too_large(f'{array.shape[1]} x {array.shape[0]} px')}")
    return array


def _load_array(path: Path, *, only_header: bool = False) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r" if only_header else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _FAULTS as error:
        raise DataError(
            f"{path}: not a NumPy array that can be read ({_reason(error)}); is it damaged?"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim < 2 or array.size == 0:
        raise DataError(f"{path}: expected an array [height, width, ...] with values, found {_shape(array)}")
    return array


def _shape(array: Any) -> str:
    return str(list(array.shape)) if isinstance(array, np.ndarray) else type(array).__name__


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---------------------------------------------------------------------- masks


def read_mask(path: Path, target_class: int | None = None) -> Pixels:
    """Read one rater's mask.

    Args:
        path: A picture or ``.npy`` with 0 and 255, or 0 and 1; with a class, ``.npy`` ``[H, W, 6]``, one-hot.
        target_class: The class to read of several, 1 to 5.

    Returns:
        uint8 ``[H, W]`` in 0..255, one half and more being the object; with a class only 0 and 255.

    Raises:
        DataError: No such file, damaged, labels instead of a mask, or another number of classes.
    """
    if target_class is not None:
        return read_classes(path)[..., target_class]
    if path.suffix == ".npy":
        values = _load_array(path)
        if values.ndim != 2 or values.dtype not in (np.uint8, np.bool_):
            hint = ": these are MBHSeg-Multiclass masks" if values.ndim == 3 else ""
            raise DataError(
                f"{path}: expected a mask of uint8 or bool values [height, width], found {values.dtype} "
                f"{list(values.shape)}{hint}"
            )
        values = values.astype(np.uint8)
    else:
        with _open(path) as decoded:
            if decoded.mode in _DEEP or decoded.info["deep"]:
                raise DataError(f"{path}: expected a mask with 8 bits a pixel, found mode {decoded.mode}")
            # The indices of a palette are labels; anything else is a grey, as the original took it.
            values = np.asarray(decoded if decoded.mode in ("L", "P") else decoded.convert("L"))
            if decoded.mode == "P" and values.max(initial=0) > 1:
                values = np.asarray(decoded.convert("L"))
    highest = int(values.max(initial=0))
    if 1 < highest < _HALF:
        raise DataError(
            f"{path}: expected a mask of 0 and 255 (or 0 and 1), the largest value found is {highest}; a map of "
            "several labels must be split into one mask a label"
        )
    return values * np.uint8(255) if highest == 1 else values


def read_classes(path: Path) -> Pixels:
    """Read the one-hot mask of all classes: uint8 0/255 ``[H, W, 6]``; every pixel has exactly one class."""
    values = _load_array(path)
    if values.ndim != 3 or values.shape[2] != N_CLASSES or values.dtype not in (np.uint8, np.bool_):
        hint = ": these are MBHSeg-Binary masks" if values.ndim == 2 else ""
        raise DataError(
            f"{path}: expected uint8 values [height, width, {N_CLASSES}], one channel a class, found "
            f"{values.dtype} {list(values.shape)}{hint}"
        )
    claimed = (values > 0).sum(axis=2)
    if (claimed != 1).any():
        y, x = np.argwhere(claimed != 1)[0].tolist()
        raise DataError(
            f"{path}: labels out of range: pixel (row {y}, column {x}) belongs to {claimed[y, x]} of the classes "
            f"0 to {N_CLASSES - 1} where exactly one is expected"
        )
    return (values > 0).astype(np.uint8) * np.uint8(255)


def read_masks(record: Record, shape: tuple[int, int] | None = None) -> tuple[Pixels, NDArray[np.bool_]]:
    """Read all raters' masks of an image.

    Args:
        record: The image.
        shape: Height and width of the image; None reads them from its header.

    Returns:
        The masks as `read_mask` returns them, ``[R, H, W]`` (zeros for a rater without a file), and bool ``[R]``:
        which raters have a file.

    Raises:
        DataError: As `read_mask`, and for a mask of another size than the image.
    """
    shape = shape or image_shape(record.image)
    masks = np.zeros((len(record.raters), *shape), np.uint8)
    for rater, path in enumerate(record.raters):
        if path is None:
            continue
        mask = read_mask(path, record.target_class)
        check_shape(path, mask.shape, record.image, shape)
        masks[rater] = mask
    return masks, np.asarray([path is not None for path in record.raters])


def check_shape(path: Path, found: tuple[int, ...], image: Path, expected: tuple[int, int]) -> None:
    """Refuse a mask of another size than its image."""
    if tuple(found) != tuple(expected):
        turned = "; it seems to be turned by 90 degrees" if tuple(found) == expected[::-1] else ""
        raise DataError(
            f"{path}: the mask has {found[1]} x {found[0]} px, its image {image} has {expected[1]} x {expected[0]} "
            f"px; masks must be drawn on the image they belong to{turned}"
        )


def read_sample(record: Record) -> tuple[Pixels, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return an image at its own resolution, cropped where its record says so.

    Args:
        record: The image.

    Returns:
        uint8 ``[H, W, 3]``, masks bool ``[R, H, W]``, and bool ``[R]``: which raters outlined it.
    """
    from aespa.data.cropping import crop, crop_box

    image = read_image(record.image)
    masks, present = read_masks(record, (image.shape[0], image.shape[1]))
    if record.crop_around:
        box = crop_box(record)
        image, masks = crop(image, box), np.stack([crop(mask, box) for mask in masks])
    return image, masks >= _HALF, present


# ---------------------------------------------------------------------- resizing


def resize_image_uint8(image: Pixels, size: int) -> Pixels:
    """Resize to ``size x size``: bilinear with antialiasing, aspect not kept, as the original.

    Args:
        image: uint8 ``[H, W]`` or ``[H, W, 3]``.
        size: New side in pixels.

    Returns:
        uint8 of the same number of axes.
    """
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def resize_mask(mask: Pixels | NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resize a mask as an image, then cut at one half: a structure below half a pixel vanishes.

    Args:
        mask: uint8 0..255 or bool ``[H, W]``.
        size: New side in pixels.

    Returns:
        bool ``[size, size]``.
    """
    grey = (
        mask.astype(np.uint8) * np.uint8(255) if mask.dtype == np.bool_ else mask.astype(np.uint8, copy=False)
    )
    if not grey.any():  # the most frequent mask of all
        return np.zeros((size, size), bool)
    return resize_image_uint8(np.ascontiguousarray(grey), size) >= _HALF


def resize_nearest(mask: Pixels | NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resize a mask of one class by taking pixel ``floor(i * H / size)``, as the original does for classes.

    Args:
        mask: uint8 0..255 or bool ``[H, W]``.
        size: New side in pixels.

    Returns:
        bool ``[size, size]``.
    """
    rows, columns = (np.arange(size) * n // size for n in mask.shape)
    return mask[rows[:, None], columns] > 0
