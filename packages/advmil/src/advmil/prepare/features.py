"""Features of a slide's patches: tiles → network → CLAM-compatible h5 and pt files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advmil.errors import DataError
from advmil.prepare.big_to_small import clam_attributes
from advmil.prepare.encoders import Encoder
from advmil.prepare.patching import open_prepared, write_faults
from advmil.prepare.transforms import PatchTransform
from medshared.bags import BagAttributes, ClamAttributes, read_coordinates, write_clam_bag
from medshared.slides import FaultList, Tile

logger = logging.getLogger(__name__)

CPU_PASS = (
    16  # patches of one pass of the network on a CPU: memory stays small, and larger ones are not faster
)


@dataclass(frozen=True)
class FeatureSettings:
    """How patches become features.

    Attributes:
        batch_size: Patches handed to the network at a time.
        target_px: Edge that patches are resized to; null keeps them as they are cut, or as the encoder needs them.
        custom_downsample: Older form of ``target_px``: the edge is divided by this.
        half: Store float16.
        precision: ``32``, or ``bf16`` for the network's arithmetic.
        max_fault_share: Largest share of patches that cannot be decoded before the slide fails.
        spacing_um: µm per pixel in place of what the slide says.
        default_spacing_um: µm per pixel of slides that do not say.
        threads: Threads that read and decode; null = as many as the machine has, at most 4.
        transform: Applied to the patches before the network, such as colour normalisation.
    """

    batch_size: int = 256
    target_px: int | None = None
    custom_downsample: int = 1
    half: bool = False
    precision: str = "32"
    max_fault_share: float = 0.05
    spacing_um: float | None = None
    default_spacing_um: float | None = None
    threads: int | None = None
    transform: PatchTransform | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "target_px", "custom_downsample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1, found {value}")
        if not 0 <= self.max_fault_share <= 1:
            raise DataError(f"max_fault_share must lie between 0 and 1, found {self.max_fault_share}")

    def inputs(self) -> dict[str, Any]:
        """Return the settings that change the features; the transform is described by whoever made it."""
        names = ("target_px", "custom_downsample", "half", "precision", "spacing_um", "default_spacing_um")
        return {name: getattr(self, name) for name in names}

    def edge_px(self, encoder: Encoder, patch_size: int) -> int:
        """Return the edge of the patches as the network sees them."""
        if self.target_px is not None:
            return self.target_px
        if self.custom_downsample > 1:
            return max(1, patch_size // self.custom_downsample)
        return encoder.input_px or patch_size


@dataclass
class FeatureTimes:
    """Seconds that one slide took, by part.

    Attributes:
        opening: The slide was opened and its fast path compared.
        reading: The network waited for pixels to be read and decoded; reading goes on while it works.
        network: Transform, network and copies.
        writing: Files.
        patches: Patches encoded.
        faults: Patches that could not be decoded.
    """

    opening: float = 0.0
    reading: float = 0.0
    network: float = 0.0
    writing: float = 0.0
    patches: int = 0
    faults: int = 0

    @property
    def bottleneck(self) -> str:
        """The part that took longest."""
        return max(("opening", "reading", "network", "writing"), key=lambda name: getattr(self, name))

    def summary(self) -> str:
        """Return one line for the log."""
        text = f"{self.patches} patches; reading {self.reading:.1f} s, network {self.network:.1f} s, "
        text += f"writing {self.writing:.1f} s"
        return text + (f"; {self.faults} patches cannot be decoded" if self.faults else "")


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
    faults = FaultList(slide_file)
    stem = coordinate_file.stem
    started = time.perf_counter()
    with open_prepared(slide_file, settings.spacing_um, settings.default_spacing_um) as slide:
        times.opening = time.perf_counter() - started
        if attributes.patch_level >= len(slide.level_dimensions):
            raise DataError(
                f"{coordinate_file}: patch_level {attributes.patch_level}, but {slide_file.name} has "
                f"{len(slide.level_dimensions)} levels"
            )
        tiles = slide.read_tiles(
            read.xy,
            attributes.patch_size,
            level=attributes.patch_level,
            n_threads=settings.threads,
            faults=faults,
            max_fault_share=settings.max_fault_share,
        )
        try:
            rows, features = _encode(
                tiles, len(read.xy), attributes.patch_size, encoder, settings, device, times
            )
        finally:
            write_faults(faults, folder, stem)  # also of a slide that fails for them
        info = _bag_attributes(encoder, attributes, slide.spacing_um, slide.level_downsamples, stem)
    kept = _whole_regions(rows, read.xy, len(faults))
    if not len(kept):
        raise DataError(f"{slide_file}: no patch could be encoded ({len(faults)} faulty)")
    if len(kept) < len(features):
        features = features[kept]
    started = time.perf_counter()
    write_clam_bag(folder, stem, features, read.xy[rows[kept]], info, half=settings.half)
    times.writing += time.perf_counter() - started
    times.patches, times.faults = len(kept), len(faults)
    return times


def _bag_attributes(
    encoder: Encoder,
    attributes: ClamAttributes,
    spacing_um: float | None,
    downsamples: tuple[float, ...],
    stem: str,
) -> BagAttributes:
    level_um = None if spacing_um is None else spacing_um * downsamples[attributes.patch_level]
    return BagAttributes("clam", encoder.name, level_um, attributes.patch_size_level0, None, stem)


def _encode(
    tiles: Iterator[Tile],
    n: int,
    patch_size: int,
    encoder: Encoder,
    settings: FeatureSettings,
    device: torch.device,
    times: FeatureTimes,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows that could be read and their features, [m] and [m, width]."""
    # Channels last, as the pixels come: a tenth faster.
    encoder.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    edge = settings.edge_px(encoder, patch_size)
    rows: list[int] = []
    features = np.empty((n, encoder.width), dtype=np.float32)
    for batch_rows, pixels in _batches(tiles, settings.batch_size, times):
        started = time.perf_counter()
        patches = torch.from_numpy(pixels).to(device)
        if settings.transform is not None:
            patches = settings.transform(patches)
        for part in patches.split(CPU_PASS if device.type == "cpu" else settings.batch_size):
            end = len(rows) + len(part)
            features[len(rows) : end] = _features(part, encoder, edge, settings.precision)
            rows += batch_rows[: len(part)]
            del batch_rows[: len(part)]
        times.network += time.perf_counter() - started
    return np.asarray(rows, dtype=np.int64), features[: len(rows)]


def _features(patches: Tensor, encoder: Encoder, edge: int, precision: str) -> NDArray[np.float32]:
    """Return the features of uint8 patches [B, S, S, 3], [B, width]."""
    x = encoder.normalise(patches)
    if edge != x.shape[-1]:
        x = torch.nn.functional.interpolate(x, size=(edge, edge), mode="bilinear", antialias=True)
    reduced = precision == "bf16"
    with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=reduced):
        return encoder.network(x).float().cpu().numpy()


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
            times.reading += time.perf_counter() - started
            yield rows, stacked
            rows, pixels = [], []
            started = time.perf_counter()
    times.reading += time.perf_counter() - started
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
