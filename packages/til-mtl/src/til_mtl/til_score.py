"""From cells and stroma to the TIL score: the share of the stroma's area that lymphocytes occupy.

    raw = 100 · N · cell_um² / A,   score = raw within 0–100

N counts the cells whose centre lies on stroma, A is the area of the stroma in µm². A slide without stroma has no
score. What other groups compute from the same two numbers is offered by name.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

STROMA, TUMOR, OTHER = 2, 1, 3  # values of segmentation.tif; 0 is background
CELL_UM = 8.0  # edge of the square that one cell counts for

ScoreName = Literal["default", "organisers", "tiager", "didsr", "tiager-torch"]
SCORE_NAMES: tuple[ScoreName, ...] = ("default", "organisers", "tiager", "didsr", "tiager-torch")
_DIDSR_PX = 256  # pixels of one cell
_TIAGER_TORCH_PX = 25


class TilScore(NamedTuple):
    """The score of one slide.

    Attributes:
        score: Percent; NaN without stroma.
        raw: Percent before it is rounded or clipped; above 100 where cells lie closer than their squares are wide.
        n: Cells on stroma.
        density_per_mm2: Cells on stroma per mm² of stroma; NaN without stroma.
        stroma_area_mm2: Area of the stroma.
    """

    score: float
    raw: float
    n: int
    density_per_mm2: float
    stroma_area_mm2: float


def til_score(
    n_cells: int, stroma_px: int, mpp: float, *, cell_um: float = CELL_UM, variant: ScoreName = "default"
) -> TilScore:
    """Compute a slide's score from counts.

    ========================  =====================================================================
    variant                   score
    ========================  =====================================================================
    ``default``               100 · N · cell_um² / A, clipped to 0–100
    ``organisers``            the same, not clipped (with the stroma of the tumour bulk)
    ``tiager``                the same, whole percent, clipped to 0–100 (likewise)
    ``didsr``                 100 · N · 256 / pixels of stroma, whole percent
    ``tiager-torch``          100 · N · 25 / pixels of stroma, clipped to 1–99
    ========================  =====================================================================

    Args:
        n_cells: Cells whose centre lies on stroma.
        stroma_px: Pixels of stroma.
        mpp: µm per pixel.
        cell_um: Edge of a cell's square in µm; the last two variants have their own, in pixels.
        variant: Whose formula.

    Returns:
        The score and what it is made of.

    Example:
        >>> til_score(38, 9956, 0.5).score.__round__(3)
        97.71
    """
    if variant not in SCORE_NAMES:
        raise ValueError(f"score must be one of {', '.join(SCORE_NAMES)}, found {variant!r}")
    if not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be a positive number of µm per pixel, found {mpp}")
    area_um2 = stroma_px * mpp**2
    if stroma_px == 0:
        return TilScore(math.nan, math.nan, n_cells, math.nan, 0.0)
    if variant in ("didsr", "tiager-torch"):
        raw = 100 * n_cells * (_DIDSR_PX if variant == "didsr" else _TIAGER_TORCH_PX) / stroma_px
    else:
        raw = 100 * n_cells * cell_um**2 / area_um2
    return TilScore(_shaped(raw, variant), raw, n_cells, n_cells / area_um2 * 1e6, area_um2 / 1e6)


def _shaped(raw: float, variant: ScoreName) -> float:
    """Round and clip as the variant does."""
    if variant == "organisers":
        return raw
    if variant == "didsr":
        return float(round(raw))
    if variant == "tiager":
        return float(int(min(max(raw, 0.0), 100.0)))
    low, high = (1.0, 99.0) if variant == "tiager-torch" else (0.0, 100.0)
    return min(max(raw, low), high)


def count_on(
    segmentation: NDArray[np.uint8],
    points: NDArray[np.floating],
    value: int = STROMA,
    *,
    region: NDArray[np.bool_] | None = None,
) -> int:
    """Count the points whose pixel (the floor of x and y) has a value; points beyond the map do not count.

    Args:
        segmentation: uint8 ``[H, W]``.
        points: ``[n, 2]`` or ``[n, 3]``, (x, y, …) in pixels.
        value: Of the tissue.
        region: bool ``[H, W]``, where points count; by default everywhere.

    Returns:
        The number.
    """
    chosen = segmentation == value
    if region is not None:
        chosen &= region
    listed = np.asarray(points, np.float64)
    if listed.size == 0:
        return 0
    x, y = np.floor(listed[:, 0]).astype(np.int64), np.floor(listed[:, 1]).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < chosen.shape[1]) & (y < chosen.shape[0])
    return int(chosen[y[inside], x[inside]].sum())


def score_map(
    segmentation: NDArray[np.uint8],
    points: NDArray[np.floating],
    mpp: float,
    *,
    cell_um: float = CELL_UM,
    variant: ScoreName = "default",
    region: NDArray[np.bool_] | None = None,
    stroma: int = STROMA,
) -> TilScore:
    """Compute the score of a map in memory, such as a patch.

    Args:
        segmentation: uint8 ``[H, W]``.
        points: ``[n, 2]`` or ``[n, 3]``, (x, y, …) of the cells in pixels.
        mpp: µm per pixel.
        cell_um: As in `til_score`.
        variant: As in `til_score`.
        region: bool ``[H, W]``, the part that counts, such as the tumour bulk.
        stroma: Value of stroma in the map.

    Returns:
        The score.
    """
    chosen = segmentation == stroma
    if region is not None:
        chosen &= region
    n = count_on(segmentation, points, stroma, region=region)
    return til_score(n, int(chosen.sum()), mpp, cell_um=cell_um, variant=variant)
