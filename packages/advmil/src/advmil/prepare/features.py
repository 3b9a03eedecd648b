"""Features of a slide's patches: tiles → network → CLAM-compatible h5 and pt files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from advmil.errors import DataError
from advmil.prepare.big_to_small import clam_attributes
from advmil.prepare.encoders import Encoder
from advmil.prepare.transforms import PatchTransform
from medshared.bags import BagAttributes, read_coordinates, write_clam_bag
from medshared.slides import FaultList, Tile, open_slide

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSettings:
    """How patches become features.

    Attributes:
        batch_size: Patches of one pass of the network.
        target_px: Edge that patches are resized to; null keeps them as they are cut.
        half: Store float16.
        max_fault_share: Largest share of patches that cannot be decoded before the slide fails.
        spacing_um: µm per pixel of slides that do not say.
        threads: Threads that read and decode; null = as many as the machine has, at most 4.
        transform: Applied to the patches before the network, such as colour normalisation.
    """

    batch_size: int = 256
    target_px: int | None = None
    half: bool = False
    max_fault_share: float = 0.05
    spacing_um: float | None = None
    threads: int | None = None
    transform: PatchTransform | None = None


@dataclass
class FeatureTimes:
    """Seconds that one slide took, by part.

    Attributes:
        waiting: The network waited for pixels to be read and decoded.
        network: Transform, network and copies.
        writing: Files.
        patches: Patches encoded.
    """

    waiting: float = 0.0
    network: float = 0.0
    writing: float = 0.0
    patches: int = 0
    faults: list[tuple[int, int, str]] = field(default_factory=list)


def encode_slide(
    slide_file: Path,
    coordinate_file: Path,
    folder: Path,
    encoder: Encoder,
    settings: FeatureSettings,
    device: torch.device,
) -> FeatureTimes:
    """Encode the patches of one slide and write ``h5_files/<stem>.h5`` and ``pt_files/<stem>.pt``.

    Patches that cannot be decoded are left out of features and coordinates and listed in
    ``faults/<stem>.csv``; where regions of 16 patches belong together, the whole region is left out.

    Args:
        slide_file: The slide.
        coordinate_file: CLAM coordinates of its patches.
        folder: Feature folder.
        encoder: The network.
        settings: How.
        device: Where the network runs.

    Raises:
        DataError: Coordinates do not fit the slide.
        medshared.slides.SlideError: The slide cannot be read, or too many patches cannot be decoded.
    """
    read = read_coordinates(coordinate_file)
    attributes = clam_attributes(coordinate_file, read.attributes)
    times = FeatureTimes()
    network = encoder.network.to(device)
    with open_slide(slide_file, settings.spacing_um) as slide:
        if attributes.patch_level >= len(slide.level_dimensions):
            raise DataError(
                f"{coordinate_file}: patch_level {attributes.patch_level}, but {slide_file.name} has "
                f"{len(slide.level_dimensions)} levels"
            )
        faults = FaultList(slide_file)
        tiles = slide.read_tiles(
            read.xy,
            attributes.patch_size,
            level=attributes.patch_level,
            n_threads=settings.threads,
            faults=faults,
            max_fault_share=settings.max_fault_share,
        )
        rows, features = _encode(tiles, network, encoder, settings, device, times)
        spacing = slide.spacing_um
        downsample = slide.level_downsamples[attributes.patch_level]
    kept = _whole_regions(rows, read.xy, len(faults))
    if not len(kept):
        raise DataError(f"{slide_file}: no patch could be encoded ({len(faults)} faulty)")
    started = time.perf_counter()
    stem = coordinate_file.stem
    if len(faults):
        faults.write(folder / "faults" / f"{stem}.csv")
    info = BagAttributes(
        "clam",
        encoder.name,
        None if spacing is None else spacing * downsample,
        attributes.patch_size_level0,
        None,
        stem,
    )
    write_clam_bag(folder, stem, features[kept], read.xy[rows[kept]], info, half=settings.half)
    times.writing += time.perf_counter() - started
    times.patches = len(kept)
    return times


def _encode(
    tiles: Iterator[Tile],
    network: torch.nn.Module,
    encoder: Encoder,
    settings: FeatureSettings,
    device: torch.device,
    times: FeatureTimes,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that could be read and their features, [m] and [m, width]."""
    rows: list[int] = []
    parts: list[NDArray[np.float32]] = []
    for batch_rows, pixels in _batches(tiles, settings.batch_size, times):
        started = time.perf_counter()
        patches = torch.from_numpy(pixels).to(device)
        if settings.transform is not None:
            patches = settings.transform(patches)
        x = encoder.normalise(patches)
        if settings.target_px and settings.target_px != x.shape[-1]:
            x = torch.nn.functional.interpolate(
                x, size=(settings.target_px, settings.target_px), mode="bilinear", antialias=True
            )
        with torch.inference_mode():
            parts.append(network(x).float().cpu().numpy())
        rows += batch_rows
        times.network += time.perf_counter() - started
    width = parts[0].shape[1] if parts else encoder.width
    features = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
    return np.asarray(rows, dtype=np.int64), features


def _batches(
    tiles: Iterator[Tile], size: int, times: FeatureTimes
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    rows: list[int] = []
    pixels: list[NDArray[np.uint8]] = []
    started = time.perf_counter()
    for tile in tiles:
        rows.append(tile.row)
        pixels.append(tile.pixels)
        if len(rows) == size:
            stacked = np.stack(pixels)
            times.waiting += time.perf_counter() - started
            yield rows, stacked
            rows, pixels = [], []
            started = time.perf_counter()
    times.waiting += time.perf_counter() - started
    if rows:
        yield rows, np.stack(pixels)


def _whole_regions(
    rows: NDArray[np.int64], coordinates: NDArray[np.int64], n_faults: int
) -> NDArray[np.int64]:
    """Return the positions in ``rows`` to keep: all, or only complete regions where patches come as regions."""
    every = np.arange(len(rows))
    if not n_faults or not _are_regions(coordinates):
        return every
    region = rows // 16
    complete = np.bincount(region, minlength=len(coordinates) // 16) == 16
    return every[complete[region]]


def _are_regions(coordinates: NDArray[np.int64]) -> bool:
    """Whether the rows are 4 x 4 squares of patches, 16 consecutive rows each."""
    if len(coordinates) % 16:
        return False
    offsets = coordinates.reshape(-1, 16, 2) - coordinates[::16][:, None]
    step = int(offsets[0, 1, 0])
    k = np.arange(16)
    return step > 0 and bool((offsets == np.stack([k % 4, k // 4], axis=1) * step).all())
