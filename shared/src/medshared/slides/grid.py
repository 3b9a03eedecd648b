"""Grids of tiles over a slide, laid on the file's own tiles where the request allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from medshared.slides.reading import LevelChoice, Slide, scaled_size

if TYPE_CHECKING:
    import numpy.typing as npt

    from medshared.slides.tissue import TissueMask


@dataclass(frozen=True, eq=False)
class TileGrid:
    """Tiles to read.

    Attributes:
        coordinates: int64 [n, 2], (x, y) of the top-left corners in level-0 pixels, column by column.
        tissue_shares: float64 [n], share of tissue in each tile; ones when no mask was given.
        tile_px: edge of a tile as it is read.
        spacing_um: µm per pixel as asked for, ``None`` when a level was asked for.
        level: pyramid level that is read.
        scale: pixels of the level for one pixel of a tile; 1 when nothing is rescaled.
        footprint_px: edge of a tile in level-0 pixels.
        stride_px: distance of neighbours in level-0 pixels.
        aligned: whether the stride is a multiple or a divisor of the file's own tile, so that tiles do not lie across
            its borders at ever new places.
    """

    coordinates: npt.NDArray[np.int64]
    tissue_shares: npt.NDArray[np.float64]
    tile_px: int
    spacing_um: float | None
    level: int
    scale: float
    footprint_px: float
    stride_px: float
    aligned: bool

    def __len__(self) -> int:
        return len(self.coordinates)


def make_grid(
    slide: Slide,
    tile_px: int,
    *,
    spacing_um: float | None = None,
    level: int | None = None,
    stride_px: int | None = None,
    tissue: TissueMask | None = None,
    min_tissue_share: float = 0.5,
    border: Literal["drop", "keep"] = "drop",
) -> TileGrid:
    """Lay a grid over a slide and keep the tiles with enough tissue.

    The grid begins at the slide's corner, where the file's own tiles begin. So it is aligned whenever the stride in
    pixels of the level is a multiple or a divisor of the file's tile.

    Args:
        slide: the slide.
        tile_px: edge of a tile in pixels of the result.
        spacing_um: µm per pixel of the result; give this or ``level``.
        level: pyramid level to read without rescaling.
        stride_px: distance of neighbours in pixels of the result; by default ``tile_px``.
        tissue: mask of the tissue; ``None`` keeps all tiles.
        min_tissue_share: smallest share of tissue in a tile, 0–1; 0 keeps tiles that have any tissue at all.
        border: ``"drop"`` leaves out tiles that reach beyond the slide, ``"keep"`` has them.

    Returns:
        The grid; it may be empty.

    Raises:
        SpacingError: when µm are asked for and the slide's spacing is unknown.
        ValueError: for arguments out of range.
    """
    stride = tile_px if stride_px is None else stride_px
    choice = _choice(slide, tile_px, stride, spacing_um, level, min_tissue_share)
    edge = scaled_size((tile_px, tile_px), choice.scale)[0]
    step = scaled_size((stride, stride), choice.scale)[0]  # whole pixels of the level: no tile is resampled
    footprint, step0 = edge * choice.downsample, step * choice.downsample
    axes = []
    for length in slide.level_dimensions[choice.level]:
        last = length - edge if border == "drop" else length - 1
        axes.append(np.rint(np.arange(0, last + 1, step) * choice.downsample).astype(np.int64))
    columns, rows = np.meshgrid(*axes, indexing="ij")
    coordinates = np.stack([columns.ravel(), rows.ravel()], axis=1)
    shares = np.ones(len(coordinates))
    if tissue is not None:
        shares = tissue.tile_shares(coordinates, footprint)
        # Sums of the mask are exact but for rounding in the last places.
        kept = shares > 1e-9 if min_tissue_share == 0 else shares >= min_tissue_share - 1e-9
        coordinates, shares = coordinates[kept], shares[kept]
    own = slide.level_tile_px[choice.level]
    aligned = own is not None and all(step % each == 0 or each % step == 0 for each in own)
    return TileGrid(
        coordinates, shares, tile_px, spacing_um, choice.level, choice.scale, footprint, step0, aligned
    )


def _choice(
    slide: Slide,
    tile_px: int,
    stride: int,
    spacing_um: float | None,
    level: int | None,
    min_tissue_share: float,
) -> LevelChoice:
    if (spacing_um is None) == (level is None):
        raise ValueError("give either spacing_um or level")
    if tile_px < 1 or stride < 1:
        raise ValueError(f"tile_px and stride_px must be at least 1, found {tile_px} and {stride}")
    if not 0 <= min_tissue_share <= 1:
        raise ValueError(f"min_tissue_share must lie between 0 and 1, found {min_tissue_share}")
    if spacing_um is not None:
        return slide.choose_level(spacing_um)
    assert level is not None  # noqa: S101  # for the type checker: one of the two is given
    if not 0 <= level < len(slide.level_downsamples):
        raise ValueError(
            f"{slide.path}: level {level} was asked for, but the slide has levels 0–{len(slide.level_dimensions) - 1}"
        )
    return LevelChoice(level, slide.level_downsamples[level], 1.0)
