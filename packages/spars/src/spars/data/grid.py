"""The working grid on which windows move, and the way back to the file.

Three frames occur. The *file's* frame is how the array is stored. The *canonical* frame has its axes exchanged and
flipped to RAS+. The *grid* is the canonical volume stretched to ``full_image_size`` voxels; or, when a voxel size is
given, resampled to it and then cut or padded about the middle, so that a window has the same size in every patient.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medshared.process import progress
from medshared.volumes import (
    Order,
    Volume,
    from_canonical,
    resample_spacing,
    resize_volume,
    resized_affine,
    voxel_spacing,
    window_hu,
)
from spars.data.cases import CaseVolume, Size, Spacing, VolumeSettings, load_case
from spars.data.layout import Case

logger = logging.getLogger(__name__)

AIR = -1024  # HU that fills what lies outside a volume
TUMOUR = 2


class GridSettings(VolumeSettings, Protocol):
    """The keys of a resolved configuration that say what the working grid is."""

    @property
    def mode(self) -> str: ...  # noqa: D102

    @property
    def full_image_size(self) -> Size: ...  # noqa: D102

    @property
    def hu_window(self) -> tuple[float, float] | None: ...  # noqa: D102

    @property
    def spacing(self) -> Spacing | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class GridSource:
    """The way from the grid back to the file.

    Attributes:
        orientation: int64 ``[3, 2]`` of the file; null = the grid has the file's own axes (faithful mode).
        affine: float64 ``[4, 4]`` of the file.
        shape: Voxels of the volume before it was resampled, in the grid's axes.
        resampled: Voxels after.
        corner: Voxel of the resampled volume at the grid's first voxel; negative where the grid was padded.
    """

    orientation: NDArray[np.int64] | None
    affine: NDArray[np.float64]
    shape: Size
    resampled: Size
    corner: Size


@dataclass(frozen=True, eq=False)
class GridCase:
    """One case on the working grid.

    Attributes:
        name: Of the case.
        image: float32 ``grid``, in [0, 1] after a HU window, else HU. In faithful mode the raw volume of the file,
            whatever its size.
        label: uint8 ``grid``, 0 background, 1 liver, 2 tumour; null = none known.
        spacing: Of the grid's voxels, in millimetres.
        source: The way back.
    """

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8] | None
    spacing: Spacing
    source: GridSource

    @property
    def tumour(self) -> NDArray[np.bool_] | None:
        """Where the label is tumour, bool ``grid``."""
        return None if self.label is None else self.label == 2


def to_grid(
    case: CaseVolume,
    grid: Size,
    hu_window: tuple[float, float] | None = None,
    spacing: Spacing | None = None,
) -> GridCase:
    """Bring a case to the working grid; image and label stay in one frame.

    Args:
        case: In canonical axes.
        grid: Voxels of the grid.
        hu_window: HU that become 0 and 1; null = HU as they are.
        spacing: Voxel size in millimetres of the grid, cut or padded about the volume's middle; null = the whole
            volume is stretched to the grid.

    Returns:
        The case on the grid.
    """
    volume = Volume(case.image, case.affine)
    if spacing is None:
        resampled, affine = grid, resized_affine(case.affine, case.shape, grid)
        image = resize_volume(case.image, grid).astype(np.float32, copy=False)
    else:
        finer = resample_spacing(volume, spacing)
        resampled, affine, image = finer.shape, finer.affine, finer.array.astype(np.float32, copy=False)
    a, b, c = ((n - g) // 2 for n, g in zip(resampled, grid, strict=True))
    source = GridSource(case.orientation, case.source_affine, case.shape, resampled, (a, b, c))
    label = None
    if case.label is not None:
        label = resize_volume(case.label, resampled, "nearest-exact")
        cut = np.count_nonzero(label == 2)
        label = _placed(label, source.corner, grid, 0)
        cut -= np.count_nonzero(label == 2)
        if cut:
            logger.warning(
                "%s: %d tumour voxels lie outside the grid of %s voxels",
                case.name,
                cut,
                "×".join(map(str, grid)),
            )
    if any(n != g for n, g in zip(resampled, grid, strict=True)):
        image = _placed(image, source.corner, grid, AIR)
    if hu_window is not None:
        image = window_hu(image, *hu_window)
    return GridCase(case.name, np.ascontiguousarray(image), label, voxel_spacing(affine), source)


def to_raw(case: CaseVolume, grid: Size) -> GridCase:
    """Return what the original's game sees: the file's own array in HU, and only the label on the grid.

    The grid's voxel (i, j, k) is the file's voxel (i, j, k), while the label is shrunk from the whole volume
    (``⌊d·n/N⌋``): the two lie in one frame only where the volume has the grid's size.

    Args:
        case: In canonical axes.
        grid: Voxels of the grid.
    """
    image = from_canonical(case.image, case.orientation).astype(np.float32)
    label = None
    if case.label is not None:
        label = resize_volume(from_canonical(case.label, case.orientation), grid, "nearest")
    x, y, z = image.shape
    source = GridSource(None, case.source_affine, (x, y, z), (x, y, z), (0, 0, 0))
    return GridCase(case.name, image, label, voxel_spacing(case.source_affine), source)


def from_grid(array: NDArray[Any], case: GridCase, order: Order = "linear") -> NDArray[Any]:
    """Bring a map on the grid back to the voxels and axes of the file.

    Args:
        array: On the grid, any shape that the grid has.
        case: Whose grid it is.
        order: ``linear`` for probabilities, ``nearest-exact`` for masks.

    Returns:
        In the shape of the file, 0 where the grid does not reach; write it with ``case.source.affine``.
    """
    source = case.source
    back = (-source.corner[0], -source.corner[1], -source.corner[2])
    array = _placed(array, back, source.resampled, 0)
    if source.orientation is None:
        return array
    return from_canonical(resize_volume(array, source.shape, order), source.orientation)


def _placed(array: NDArray[Any], corner: Size, shape: Size, fill: float) -> NDArray[Any]:
    """Return the box ``[corner, corner + shape)`` of an array, filled where the array does not reach."""
    if array.shape == tuple(shape) and not any(corner):
        return array
    found = np.full(shape, fill, array.dtype)
    source, target = [], []
    for start, size, n in zip(corner, shape, array.shape, strict=True):
        low, high = max(start, 0), min(start + size, n)
        source.append(slice(low, max(high, low)))
        target.append(slice(low - start, max(high, low) - start))
    found[tuple(target)] = array[tuple(source)]
    return found


def load_grid_case(case: Case, config: GridSettings) -> GridCase:
    """Read a case and bring it to the grid as the mode says.

    Args:
        case: From `spars.data.layout.find_cases`.
        config: Resolved configuration of either stage.

    Raises:
        DataError: As `load_case`.
    """
    volume = load_case(case, config)
    if config.mode == "faithful":
        return to_raw(volume, config.full_image_size)
    return to_grid(volume, config.full_image_size, config.hu_window, config.spacing)


def load_grid_cases(cases: Sequence[Case], config: GridSettings, workers: int = 0) -> list[GridCase]:
    """Read many cases.

    Args:
        cases: In this order.
        config: Resolved configuration of either stage.
        workers: Threads that read; 0 = this one.

    Raises:
        DataError: As `load_case`.
    """
    if workers < 1:
        return [load_grid_case(case, config) for case in progress(cases, description="reading volumes")]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda case: load_grid_case(case, config), cases)
        return list(progress(found, len(cases), "reading volumes"))
