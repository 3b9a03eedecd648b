"""Rectangles of single-channel tiled TIFF files: annotated tissue of whole slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from til_mtl.errors import DataError


def read_label_rectangle(path: Path | str, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Read a rectangle of a label pyramid at full resolution, tile by tile.

    Args:
        path: Single-channel TIFF.
        x: Left edge in level-0 pixels.
        y: Upper edge.
        width: In pixels.
        height: In pixels.

    Returns:
        uint8 [height, width]; 0 beyond the borders.

    Raises:
        DataError: No such file, not a single-channel one of 8 bits, or a damaged one.
    """
    import tifffile

    path = Path(path)
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            if page.dtype != np.uint8 or len(page.shape) != 2:
                raise DataError(
                    f"{path}: expected one channel of 8 bits, found {page.dtype} of shape {page.shape}"
                )
            return _read_tiles(page, x, y, width, height)
    except FileNotFoundError:
        raise DataError(f"{path}: no such label slide") from None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read as TIFF ({error}): copy it again") from error


def _read_tiles(page: Any, x: int, y: int, width: int, height: int) -> np.ndarray:
    result = np.zeros((height, width), np.uint8)
    if not page.is_tiled:
        whole = page.asarray()
        rows = slice(max(0, y), min(whole.shape[0], y + height))
        columns = slice(max(0, x), min(whole.shape[1], x + width))
        part = whole[rows, columns]
        result[rows.start - y : rows.start - y + part.shape[0], columns.start - x :][:, : part.shape[1]] = (
            part
        )
        return result
    tile_h, tile_w = page.tilelength, page.tilewidth
    across = -(-page.imagewidth // tile_w)
    down = -(-page.imagelength // tile_h)
    handle = page.parent.filehandle
    for row in range(max(0, y // tile_h), min(down, -(-(y + height) // tile_h))):
        for column in range(max(0, x // tile_w), min(across, -(-(x + width) // tile_w))):
            index = row * across + column
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
            if len(data) < page.databytecounts[index]:
                raise ValueError(f"the tile at ({column * tile_w}, {row * tile_h}) is cut off")
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0] if data else None
            if decoded is None:  # tiles left out of a sparse file are empty
                continue
            tile = np.asarray(decoded).reshape(decoded.shape[-3], decoded.shape[-2])
            top, left = row * tile_h, column * tile_w
            y0, y1 = max(y, top), min(y + height, top + tile.shape[0])
            x0, x1 = max(x, left), min(x + width, left + tile.shape[1])
            if y1 > y0 and x1 > x0:
                result[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
    return result
