"""Tissue segmentation and patching with CLAM's parameters, results in CLAM's order.

Lu et al. 2021, "Data-efficient and weakly supervised computational pathology on whole-slide images". Written anew from
a description of the steps; parameters have CLAM's names and defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from medshared.slides.contours import Contour, find_contours, locate_points, polygon_area, scale_border
from medshared.slides.faults import FaultList, SlideError
from medshared.slides.overview import read_whole_level

if TYPE_CHECKING:
    import numpy.typing as npt

    from medshared.slides.reading import Slide

ContourFunction = Literal["four_pt", "four_pt_hard", "center", "basic"]
_LARGEST_LEVEL = 10**8  # pixels of the level that is segmented
_ROUNDING = 0.01  # share by which the rounding of a level's size may shift its downsample
_REFERENCE_PX = 512  # areas are given in patches of this edge


class SegmentationError(SlideError):
    """A slide whose tissue cannot be segmented as asked (CLAM's status ``failed_seg``)."""


@dataclass(frozen=True)
class ClamSegmentation:
    """CLAM's parameters of segmentation and filtering.

    Attributes:
        seg_level: pyramid level; −1 for the one that OpenSlide returns for a downsample of 64.
        sthresh: pixels of a saturation (0–255) above this are tissue.
        mthresh: window of the median filter, odd, in pixels of the level.
        close: edge of the box for morphological closing in pixels of the level; 0 for none.
        use_otsu: Otsu's threshold in place of ``sthresh``.
        a_t: smallest area of tissue, exclusive, in patches of 512 × 512 level-0 pixels.
        a_h: smallest area of a hole, exclusive, in the same unit.
        max_n_holes: only the largest holes of a region are looked at.
        keep_ids: numbers of the contours to keep; empty for all.
        exclude_ids: numbers of the contours to leave out.
    """

    seg_level: int = -1
    sthresh: int = 8
    mthresh: int = 7
    close: int = 4
    use_otsu: bool = False
    a_t: float = 100
    a_h: float = 16
    max_n_holes: int = 8
    keep_ids: tuple[int, ...] = ()
    exclude_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.mthresh < 1 or self.mthresh % 2 == 0:
            raise ValueError(f"mthresh must be an odd number of pixels, found {self.mthresh}")
        if not 0 <= self.sthresh <= 255:
            raise ValueError(f"sthresh must lie between 0 and 255, found {self.sthresh}")
        for name in ("close", "a_t", "a_h", "max_n_holes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")


CLAM_PRESETS = {
    "default": ClamSegmentation(),
    "bwh_biopsy": ClamSegmentation(sthresh=15, mthresh=11, close=2, a_t=1, a_h=1, max_n_holes=2),
    "bwh_resection": ClamSegmentation(sthresh=15, mthresh=11, close=4, a_t=100, a_h=16, max_n_holes=8),
    "tcga": ClamSegmentation(a_t=16, a_h=4, max_n_holes=8),
    "nlst": ClamSegmentation(max_n_holes=48),
}


@dataclass(frozen=True)
class ClamPatching:
    """CLAM's parameters of patching.

    Attributes:
        patch_size: edge in pixels of the level.
        step_size: distance of neighbours in pixels of the level.
        patch_level: pyramid level.
        use_padding: allow patches that reach beyond the slide.
        contour_fn: which points of a patch must lie in the tissue: ``four_pt`` any of four around the centre,
            ``four_pt_hard`` all four, ``center`` the centre, ``basic`` the top-left corner.
    """

    patch_size: int = 256
    step_size: int = 256
    patch_level: int = 0
    use_padding: bool = True
    contour_fn: ContourFunction = "four_pt"

    def __post_init__(self) -> None:
        if self.contour_fn not in get_args(ContourFunction):
            raise ValueError(
                f"contour_fn must be one of {', '.join(get_args(ContourFunction))}, found {self.contour_fn!r}"
            )
        if self.patch_size < 1 or self.step_size < 1 or self.patch_level < 0:
            raise ValueError(
                "patch_size and step_size must be at least 1 and patch_level at least 0, found "
                f"{self.patch_size}, {self.step_size} and {self.patch_level}"
            )


def level_scale(slide: Slide, level: int) -> tuple[float, float]:
    """Return the downsample of a level along x and y, from the levels' dimensions."""
    (w0, h0), (w, h) = slide.dimensions, slide.level_dimensions[level]
    return w0 / w, h0 / h


def segment(
    slide: Slide, parameters: ClamSegmentation | None = None, *, faults: FaultList | None = None
) -> list[Contour]:
    """Find tissue by thresholding the saturation of one level.

    Args:
        slide: the slide.
        parameters: CLAM's; by default `ClamSegmentation`.
        faults: takes parts of the level that cannot be decoded, which then hold no tissue.

    Returns:
        Contours in level-0 pixels in OpenCV's order; none for a blank slide.

    Raises:
        SegmentationError: when the level is missing or has more than 10⁸ pixels.
        TileError: when a part of the level cannot be decoded and no fault list was given.
    """
    import cv2

    chosen = parameters or ClamSegmentation()
    level = _segmented_level(slide, chosen.seg_level)
    saturation = cv2.cvtColor(read_whole_level(slide, level, faults), cv2.COLOR_RGB2HSV)[:, :, 1]
    blurred = cv2.medianBlur(np.ascontiguousarray(saturation), chosen.mthresh)
    if chosen.use_otsu:
        _, mask = cv2.threshold(blurred, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    else:
        _, mask = cv2.threshold(blurred, chosen.sthresh, 255, cv2.THRESH_BINARY)
    if chosen.close > 0:
        box = np.ones((chosen.close, chosen.close), np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, box)
    return _filtered(np.asarray(mask, np.uint8), level_scale(slide, level), chosen)


def _segmented_level(slide: Slide, asked: int) -> int:
    level = slide.best_level_for_downsample(64) if asked < 0 else asked
    if level >= len(slide.level_dimensions):
        raise SegmentationError(
            f"{slide.path}: seg_level is {asked}, but the slide has levels 0–{len(slide.level_dimensions) - 1}"
        )
    width, height = slide.level_dimensions[level]
    if width * height > _LARGEST_LEVEL:
        raise SegmentationError(
            f"{slide.path}: level {level} has {width} × {height} pixels, more than {_LARGEST_LEVEL:,} that can be "
            "segmented at once; choose a coarser seg_level, or convert the slide to a pyramid"
        )
    return level


def _filtered(
    mask: npt.NDArray[np.uint8], scale: tuple[float, float], chosen: ClamSegmentation
) -> list[Contour]:
    """Drop small tissue and small holes, and go over to level-0 pixels."""
    reference = int(_REFERENCE_PX**2 / (scale[0] * scale[1]))
    smallest, smallest_hole = chosen.a_t * reference, chosen.a_h * reference
    kept = []
    for outer, holes in find_contours(mask):
        areas = [polygon_area(hole) for hole in holes]
        area = polygon_area(outer) - sum(areas)
        if area == 0 or area <= smallest:
            continue
        largest = sorted(range(len(holes)), key=areas.__getitem__, reverse=True)[: chosen.max_n_holes]
        shown = [scale_border(holes[i], scale) for i in largest if areas[i] > smallest_hole]
        kept.append(Contour(scale_border(outer, scale), tuple(shown)))
    numbers = set(chosen.keep_ids) if chosen.keep_ids else set(range(len(kept)))
    numbers -= set(chosen.exclude_ids)
    return [contour for i, contour in enumerate(kept) if i in numbers]


def patch_footprint(slide: Slide, patching: ClamPatching) -> tuple[int, int]:
    """Return (width, height) of a patch in level-0 pixels."""
    return tuple(patching.patch_size * each for each in _whole_scale(slide, patching.patch_level))  # pyright: ignore[reportReturnType]


def _whole_scale(slide: Slide, level: int) -> tuple[int, int]:
    if level >= len(slide.level_dimensions):
        raise SlideError(
            f"{slide.path}: patch_level is {level}, but the slide has levels 0–{len(slide.level_dimensions) - 1}"
        )
    x, y = (_truncated(each) for each in level_scale(slide, level))
    return x, y


def _truncated(downsample: float) -> int:
    """Return the whole downsample, as CLAM truncates it; but 3.9998, of a level rounded up, is 4 and not 3."""
    nearest = round(downsample)
    return nearest if abs(downsample - nearest) < _ROUNDING * nearest else int(downsample)


def patch_coordinates(
    slide: Slide, contours: Sequence[Contour], patching: ClamPatching | None = None
) -> npt.NDArray[np.int64]:
    """Lay a grid over every contour and keep the patches that lie in tissue.

    Args:
        slide: the slide.
        contours: of the tissue, in level-0 pixels.
        patching: CLAM's parameters; by default `ClamPatching`.

    Returns:
        int64 [n, 2], (x, y) of the top-left corners in level-0 pixels: contour by contour, column by column.

    Raises:
        SlideError: when the slide lacks the level.
    """
    chosen = patching or ClamPatching()
    scale = _whole_scale(slide, chosen.patch_level)
    footprint = (chosen.patch_size * scale[0], chosen.patch_size * scale[1])
    step = (chosen.step_size * scale[0], chosen.step_size * scale[1])
    parts = [np.empty((0, 2), np.int64)]
    for contour in contours:
        x0, y0, width, height = contour.box
        stops = [x0 + width, y0 + height]
        if not chosen.use_padding:
            whole = slide.dimensions
            stops = [
                min(stop, length - part + 1)
                for stop, length, part in zip(stops, whole, footprint, strict=True)
            ]
        grid = np.meshgrid(np.arange(x0, stops[0], step[0]), np.arange(y0, stops[1], step[1]), indexing="ij")
        candidates = np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int64)
        parts.append(candidates[_in_tissue(candidates, contour, footprint[0], chosen.contour_fn)])
    return np.concatenate(parts)


def _in_tissue(
    corners: npt.NDArray[np.int64], contour: Contour, footprint: int, function: ContourFunction
) -> npt.NDArray[np.bool_]:
    """Test all candidates of one contour at once: the named points in tissue, the centre in no hole."""
    half = footprint // 2
    around = int(half * 0.5)
    if function == "basic":
        offsets = [(0, 0)]
    elif function == "center" or around == 0:
        offsets = [(half, half)]
    else:
        offsets = [(half + dx, half + dy) for dx in (-around, around) for dy in (-around, around)]
    # All at once: the points share rows, and the contour is looked through only once.
    points = (np.asarray(offsets)[:, None] + corners).reshape(-1, 2)
    hits = (locate_points(points, contour.outer) >= 0).reshape(len(offsets), -1)
    kept = np.asarray(hits.all(axis=0) if function == "four_pt_hard" else hits.any(axis=0))
    for hole in contour.holes:
        # Only what is left can still be lost.
        left = np.flatnonzero(kept)
        kept[left] = locate_points(corners[left] + footprint / 2, hole) <= 0
    return kept


def coordinate_attributes(slide: Slide, patching: ClamPatching, save_path: str) -> dict[str, Any]:
    """Return the attributes that CLAM stores beside the coordinates.

    Args:
        slide: the slide.
        patching: as given to `patch_coordinates`.
        save_path: the folder of the coordinate file.

    Returns:
        ``patch_size``, ``patch_level``, ``downsample`` (of the level, x and y), ``downsampled_level_dim``,
        ``level_dim`` (both width and height of the level), ``name`` (of the slide, without extension), ``save_path``.
    """
    level = patching.patch_level
    scale = level_scale(slide, level)
    width, height = slide.dimensions
    return {
        "patch_size": patching.patch_size,
        "patch_level": level,
        "downsample": scale,
        "downsampled_level_dim": (int(width / scale[0]), int(height / scale[1])),
        "level_dim": slide.level_dimensions[level],
        "name": slide.name,
        "save_path": save_path,
    }
