"""Where the tiles of a region begin."""

from __future__ import annotations


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Return the first pixels of tiles that cover a length, the last one flush with its end.

    Args:
        length: In pixels.
        tile: Edge of a tile in pixels.
        stride: From one tile to the next.

    Returns:
        ``[0]`` where one tile is enough (it is to be padded where the length is shorter), else 0, stride, 2 · stride,
        … and ``length − tile``.

    Example:
        >>> tile_starts(600, 256, 128)
        [0, 128, 256, 344]
    """
    if length <= tile:
        return [0]
    starts = list(range(0, length - tile + 1, stride))
    return starts if starts[-1] == length - tile else [*starts, length - tile]
