"""One patch image or label mask from a file: decoded, resized, checked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medshared.files import write_bytes
from til_mtl.config import IGNORE_INDEX, PatchTask
from til_mtl.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
Resample = Literal["nearest", "bicubic"]
LABELS: dict[PatchTask, dict[int, str]] = {
    "segmentation": {0: "other", 1: "tumor", 2: "stroma", IGNORE_INDEX: "not annotated"},
    # 250: tissue round a small region, which prepare_tiger.py --slides adds.
    "detection": {0: "background", 1: "cell", IGNORE_INDEX: "not annotated"},
}
# What broken image files raise: unknown formats, cut data, damaged chunks, sizes beyond reason.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError)


def read_image(path: Path | str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as RGB.

    Args:
        path: PNG, JPEG or TIFF of 8 bits; grey, palette and RGBA images become RGB (transparency is dropped).
        size: (width, height) in pixels that images of another size are resized to, bicubic as in the original;
            ``None`` keeps the size.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: No such file, no image, a truncated one, or one of more than 8 bits.
    """
    image = _open(Path(path), "image")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr"):
        raise DataError(
            f"{path}: pixels of mode {image.mode!r}, but patches have 8 bits a channel: save it as 8-bit RGB"
        )
    image = image.convert("RGB")
    if size is not None and image.size != tuple(size):
        image = image.resize(size, _resampling("bicubic"))
    return np.array(image, dtype=np.uint8)


def read_mask(
    path: Path | str,
    task: PatchTask,
    size: tuple[int, int] | None = None,
    resample: Resample = "nearest",
) -> np.ndarray:
    """Read a label mask.

    Args:
        path: 8-bit PNG or TIFF of labels. In palette files the labels are the indices, not the colours.
        task: Whose labels: segmentation 0, 1, 2, detection 0, 1, and 250 (not annotated) in both.
        size: (width, height) in pixels that masks of another size are resized to.
        resample: ``nearest``; ``bicubic`` is the original's, which invents labels between others, reads
            palettes as grey and takes labels from 3 to 249 for no class at all.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: As for images, and for labels that the task does not have.
    """
    path = Path(path)
    if resample == "bicubic":
        return _original_mask(path, _open(path, "mask"), size)
    labels = read_labels(path)
    check_labels(path, task, labels)
    if size is not None and (labels.shape[1], labels.shape[0]) != tuple(size):
        from PIL import Image

        labels = np.array(Image.fromarray(labels).resize(size, _resampling("nearest")))
    return labels


def read_labels(path: Path | str) -> np.ndarray:
    """Read a mask without asking what its labels mean.

    Args:
        path: One-channel image of 8 bits; of palette images the indices are read.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: As `read_mask`, except for labels.
    """
    return _labels(Path(path), _open(Path(path), "mask"))


def check_labels(path: Path | str, task: PatchTask, labels: np.ndarray) -> None:
    """Refuse labels that the task does not have.

    Args:
        path: File that they come from, for the message.
        task: Patch task.
        labels: uint8 array.

    Raises:
        DataError: Naming file, values and mend.
    """
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    unknown = [int(value) for value in found if int(value) not in LABELS[task]]
    if not unknown:
        return
    table = ", ".join(f"{value} {name}" for value, name in LABELS[task].items())
    shown = ", ".join(map(str, unknown[:8])) + (", …" if len(unknown) > 8 else "")
    raise DataError(
        f"{path}: labels {shown} are not in a {task} mask ({table}): {_mend(task, unknown, found)}"
    )


def _mend(task: PatchTask, unknown: list[int], found: np.ndarray) -> str:
    if task == "segmentation" and max(unknown) <= 7:
        return "these look like TIGER's own tissue labels; make patches of them with prepare_tiger.py"
    if task == "detection" and unknown == [255] and len(found) <= 2:
        return "save cells as 1, not as 255"
    if len(unknown) > 8:
        return "this looks like a picture or a mask saved as JPEG; save labels as 8-bit PNG"
    return "save the labels themselves as 8-bit PNG"


def _labels(path: Path, image: Image) -> np.ndarray:
    """Return the labels as stored: palette indices, bits, bytes."""
    if image.mode in ("L", "P", "1"):
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        wide = np.array(image)
        if wide.size and (wide.min() < 0 or wide.max() > 255):
            raise DataError(f"{path}: labels from {wide.min()} to {wide.max()}: masks have 8 bits, 0 to 255")
        return wide.astype(np.uint8)
    channels = np.array(image)
    if channels.ndim == 3 and image.mode in ("RGB", "RGBA", "LA"):
        colours = channels[..., : 1 if image.mode == "LA" else 3]
        if (colours == colours[..., :1]).all():
            return np.ascontiguousarray(colours[..., 0])
    raise DataError(
        f"{path}: a mask has one channel of labels, found a colour image ({image.mode}): save the labels, "
        "or the colours as a palette image whose indices are the labels"
    )


def _original_mask(path: Path, image: Image, size: tuple[int, int] | None) -> np.ndarray:
    grey = image.convert("L")
    if grey.getextrema()[1] > IGNORE_INDEX:  # type: ignore[operator]
        raise DataError(f"{path}: labels above {IGNORE_INDEX}, which the original cannot take either")
    if size is not None and grey.size != tuple(size):
        grey = grey.resize(size, _resampling("bicubic"))
    # Where bicubic overshoots beyond 250 the original stops with an index error.
    return np.minimum(np.array(grey, dtype=np.uint8), IGNORE_INDEX)


def read_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) of an image file from its header.

    Raises:
        DataError: No such file or no image.
    """
    from PIL import Image

    path = Path(path)
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except _BROKEN as error:
        raise _broken(path, "image", error) from error


def write_png(path: Path | str, array: np.ndarray, *, compress_level: int = 1) -> Path:
    """Write an image or a mask as PNG, atomically.

    Args:
        path: Target; parent folders are created.
        array: uint8 [H, W, 3] or [H, W].
        compress_level: 0 (large, fast) to 9.

    Returns:
        The path.
    """
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(content, format="PNG", compress_level=compress_level)
    return write_bytes(path, content.getvalue())


def _open(path: Path, what: str) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"{path}: no such {what}") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large for a patch ({error})") from error
    except _BROKEN as error:
        raise _broken(path, what, error) from error


def _broken(path: Path, what: str, error: Exception) -> DataError:
    if path.is_dir():
        return DataError(f"{path}: a folder where an {what} file is expected")
    if not path.stat().st_size:
        return DataError(f"{path}: the file is empty; copy it again")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify" in reason:
        reason = "not in a format that Pillow knows"
    return DataError(
        f"{path}: the {what} cannot be decoded ({reason}); it is damaged or cut off: copy it again"
    )


def _resampling(name: Resample) -> Any:
    from PIL import Image

    return Image.Resampling.NEAREST if name == "nearest" else Image.Resampling.BICUBIC
