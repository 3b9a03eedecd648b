"""Bags of new patients: features of their slides, put together as a trained model expects them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from advmil.config import Config
from advmil.data.bags import BagInput, BagLayout, needs_regions
from advmil.data.regions import n_regions, regroup_by_coordinates, regroup_plainly, typical_step
from advmil.errors import DataError
from medshared.bags import BagError, PatchBag, read_bag, read_coordinates

FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt")


@dataclass(frozen=True)
class SlideBag:
    """Features of one slide with the places of its patches.

    Attributes:
        slide: Name.
        bag: Features and attributes.
        coordinates: Top left corners in level-0 pixels (µm for STAMP), float64 ``[n, 2]``; null where unknown.
        patch_size: Side of a patch in the same unit; null where unknown.
        in_pixels: Whether the unit is level-0 pixels.
    """

    slide: str
    bag: PatchBag
    coordinates: NDArray[np.float64] | None
    patch_size: float | None
    in_pixels: bool = True


class PatientBag(NamedTuple):
    """What a backbone takes of a patient, and where its rows come from.

    Attributes:
        input: Features and what the backbone needs beside them.
        layout: Slide, row and place of every row.
        n_patches: Rows of all files, without repetition.
    """

    input: BagInput
    layout: BagLayout
    n_patches: int


def find_beside(folder: Path, stem: str, suffixes: Sequence[str], below: Sequence[str]) -> Path | None:
    """Return the first ``<stem><suffix>`` in a folder or its named subfolders; null without one."""
    places = [folder, *(folder / name for name in below)]
    found = [place / f"{stem}{suffix}" for place in places for suffix in suffixes]
    return next((path for path in found if path.is_file()), None)


def find_coordinates(folder: Path | None, stem: str) -> Path | None:
    """Return the coordinate file of a slide in a folder of CLAM's or in its ``patches``; null without one."""
    if folder is None:
        return None
    return find_beside(folder, stem, (".h5",), ("patches", "h5_files"))


def read_slide_bag(features: Path, coordinates: Path | None = None, slide: str | None = None) -> SlideBag:
    """Read features of a slide and the places of its patches.

    Places come from the file itself, else from the file of that name in ``h5_files`` beside the folder of a ``.pt``
    file, else from ``coordinates``: patches that could not be decoded are missing from the first two alike.

    Args:
        features: ``.h5`` of CLAM, TRIDENT or STAMP, or ``.pt``.
        coordinates: CLAM file of coordinates.
        slide: Name; the stem of ``features`` by default.

    Raises:
        DataError: A file is missing or broken, or the two do not belong together.
    """
    name = slide or features.stem
    try:
        bag = read_bag(features)
        held = bag if bag.coordinates is not None or bag.coordinates_um is not None else _beside(features)
        places, size, source = None, None, features
        if held is not None and held.coordinates_um is not None:
            places, size, source = held.coordinates_um, held.attributes.patch_size_um, held.path
        elif held is not None and held.coordinates is not None:
            places, size, source = held.coordinates, held.attributes.patch_size_level0, held.path
        if coordinates is not None and (places is None or size is None):
            read = read_coordinates(coordinates)
            size = _clam_size(read.attributes)
            if places is None:
                places, source = read.xy, coordinates
    except BagError as error:
        raise DataError(str(error)) from error
    if places is not None and len(places) != len(bag.features):
        raise DataError(
            f"{features} has {len(bag.features)} patches but {source} has {len(places)} coordinates: the features were "
            "made of other patches, or some patches could not be decoded; give the h5_files of the features step"
        )
    in_um = held is not None and held.coordinates_um is not None
    return SlideBag(name, bag, None if places is None else places.astype(np.float64), size, not in_um)


def _beside(features: Path) -> PatchBag | None:
    """Return the bag of ``h5_files`` beside the folder of a ``.pt`` file; null without one."""
    path = features.parent.parent / "h5_files" / f"{features.stem}.h5"
    return read_bag(path, check_finite=False) if path.is_file() else None


def _clam_size(attributes: dict[str, object]) -> float | None:
    """Return the side of a patch in level-0 pixels, of the attributes of ``coords``."""
    if "patch_size_level0" in attributes:
        return float(np.ravel(np.asarray(attributes["patch_size_level0"]))[0])
    if "patch_size" in attributes and "downsample" in attributes:
        downsample = float(np.ravel(np.asarray(attributes["downsample"]))[0])
        return float(np.ravel(np.asarray(attributes["patch_size"]))[0]) * round(downsample)
    return None


def assemble_patient(config: Config, patient: str, slides: Sequence[SlideBag]) -> PatientBag:
    """Put the slides of a patient together as the run's training did.

    Regions follow the run's key ``regions``; a backbone that knows no regions takes any number of patches. Graphs
    are built from features and coordinates, clusters from the features of all slides.

    Args:
        config: Resolved configuration of the run.
        patient: For messages.
        slides: At least one, in order.

    Raises:
        DataError: Another width than the model's, no whole number of regions, no coordinates where they are needed.
    """
    expected = config.bcb_widths[0]
    for each in slides:
        width = each.bag.features.shape[1]
        if width != expected:
            raise DataError(
                f"{each.bag.path} has {width} features a patch but the model was trained on {expected}: make the "
                "features with the encoder of the training data, or choose a run trained on these"
            )
    rows = [_region_rows(config, each) for each in slides]
    parts = [np.asarray(s.bag.features, dtype=np.float32)[r] for s, r in zip(slides, rows, strict=True)]
    x = torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))[None]
    layout = _layout(slides, rows)
    n = sum(len(each.bag.features) for each in slides)
    if config.bcb_mode == "graph":
        return PatientBag(BagInput(x, _edges(slides)), layout, n)
    if config.bcb_mode == "cluster":
        from advmil.prepare.clusters import cluster_patches

        starts = np.cumsum([0, *(len(each.bag.features) for each in slides)])
        order = np.concatenate([start + row for start, row in zip(starts, rows, strict=False)])
        try:
            labels = cluster_patches(np.concatenate([each.bag.features for each in slides]))
        except DataError as error:
            raise DataError(f"patient {patient}: {error}") from error
        return PatientBag(BagInput(x, torch.from_numpy(labels[order].astype(np.int64))), layout, n)
    return PatientBag(BagInput(x, None), layout, n)


def _region_rows(config: Config, slide: SlideBag) -> NDArray[np.int64]:
    """Return the rows of a slide in the order that the model takes them."""
    n = len(slide.bag.features)
    every = np.arange(n)
    if not needs_regions(config):
        return every
    if config.regions == "plain":
        return regroup_plainly(n)
    try:
        if config.regions == "consecutive":
            # Prediction leaves the discriminator out, so that only a backbone of regions insists on them.
            if config.bcb_mode == "patch":
                n_regions(n)
            return every
        if slide.coordinates is None:
            raise DataError(
                "no coordinates to make regions of: give h5 files with coordinates, or --coordinates"
            )
        return regroup_by_coordinates(slide.coordinates, slide.patch_size or typical_step(slide.coordinates))
    except DataError as error:
        raise DataError(f"{slide.bag.path}: {error}") from error


def _edges(slides: Sequence[SlideBag]) -> torch.Tensor:
    """Return the edges of all slides side by side."""
    from advmil.prepare.graphs import build_graph

    parts, start = [], 0
    for each in slides:
        if each.coordinates is None:
            raise DataError(
                f"{each.bag.path}: the graph of patches needs their coordinates: give h5 files with coordinates, or "
                "--coordinates"
            )
        try:
            parts.append(build_graph(each.bag.features, each.coordinates)["edge_index"] + start)
        except DataError as error:
            raise DataError(f"{each.bag.path}: {error}") from error
        start += len(each.bag.features)
    return torch.cat(parts, dim=1)


def _layout(slides: Sequence[SlideBag], rows: Sequence[NDArray[np.int64]]) -> BagLayout:
    """Return where the rows come from; places are NaN for slides without, null when no slide has any."""
    places = [
        np.full((len(row), 2), np.nan) if each.coordinates is None else each.coordinates[row]
        for each, row in zip(slides, rows, strict=True)
    ]
    return BagLayout(
        tuple(each.slide for each in slides),
        np.repeat(np.arange(len(slides)), [len(row) for row in rows]),
        np.concatenate(rows),
        None if all(each.coordinates is None for each in slides) else np.concatenate(places),
    )
