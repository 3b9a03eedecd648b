"""Patch folders: pairs of image and mask, found by file stem.

``ROOT/<task>/{train,val,test}/{img,mask}/<name>.png``, or with folds
``ROOT/<task>/<fold>/{train,val,test}_{img,mask}/<name>.png``; ``<task>`` is ``segmentation`` or ``detection``. Beside
``mask``, a folder ``points`` may hold the annotated cell centres as ``<name>.csv`` with the columns x and y.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from til_mtl.config import TASKS, Config, PatchTask
from til_mtl.data.images import SUFFIXES
from til_mtl.data.manifest import (
    SPLITS,
    Manifest,
    read_manifest,
    refuse_shared,
    shared_slides,
    slide_from_name,
)
from til_mtl.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PatchFile:
    """One labelled patch.

    Attributes:
        name: File stem.
        image: RGB image.
        mask: Labels of the task.
        points: CSV of annotated cell centres, if there is one.
        task: What the mask labels.
        slide: Slide that the patch comes from; empty where neither manifest nor name tells.
    """

    name: str
    image: Path
    mask: Path
    points: Path | None
    task: PatchTask
    slide: str = ""


class _Folders(NamedTuple):
    image: Path
    mask: Path
    points: Path


def _candidates(root: Path, task: str, split: str, fold: str | None) -> list[_Folders]:
    """Return where a split may lie, the documented place first, then where the original's own paths had it."""
    base = root / task
    if fold is not None:
        return [_Folders(*(base / fold / f"{split}_{kind}" for kind in ("img", "mask", "points")))]
    places = (base / split, base / split / "dataset", base / "dataset" / split)
    return [_Folders(place / "img", place / "mask", place / "points") for place in places]


def _locate(root: Path, task: str, split: str, fold: str | None) -> _Folders | None:
    for folders in _candidates(root, task, split, fold):
        if folders.image.is_dir() or folders.mask.is_dir():
            return folders
    return None


def find_patches(
    root: Path | str,
    task: PatchTask,
    split: str,
    fold: str | None = None,
    *,
    manifest: Manifest | None = None,
) -> list[PatchFile]:
    """Return the patches of one task and split, sorted by name.

    Args:
        root: Data root.
        task: ``segmentation`` or ``detection``.
        split: ``train``, ``val`` or ``test``.
        fold: Name of a fold's folder; ``None`` for the layout without folds.
        manifest: Tells the slides; by default names do.

    Returns:
        The patches.

    Raises:
        DataError: No such folder, an empty one, an image without a mask or a mask without an image, two files
            of one name.
    """
    root = Path(root)
    folders = _locate(root, task, split, fold)
    if folders is None:
        raise DataError(_missing_folder(root, task, split, fold))
    pairs = pair_files(folders.image, folders.mask)
    found: list[PatchFile] = []
    for name, (image, mask) in pairs.items():
        points = folders.points / f"{name}.csv"
        slide = slide_from_name(name)
        if manifest is not None:
            slide = manifest.slides.get((task, name), slide)
        found.append(PatchFile(name, image, mask, points if points.is_file() else None, task, slide))
    return found


def _missing_folder(root: Path, task: str, split: str, fold: str | None) -> str:
    expected = _candidates(root, task, split, fold)[0]
    message = f"{root}: no {task} patches for {split}: expected {expected.image} and {expected.mask}"
    base = root / task
    if not root.is_dir():
        return f"{root}: no such data folder: give the root with segmentation/ and detection/ as --data_dir"
    if not base.is_dir():
        return f"{message}; there is no folder {task}"
    folds = sorted(
        path.name for path in base.iterdir() if any((path / f"{each}_img").is_dir() for each in SPLITS)
    )
    if folds:
        flag = "--fold_seg" if task == "segmentation" else "--fold_det"
        return f"{message}; there are the folds {', '.join(folds)}: choose one with {flag}"
    return message


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: every patch needs an image and a mask of the same name")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise DataError(f"{path}: {found[path.stem].name} has the same name: keep one of the two")
        found[path.stem] = path
    return found


def pair_files(image_folder: Path, mask_folder: Path) -> dict[str, tuple[Path, Path]]:
    """Pair images and masks of the same name up to the extension.

    Args:
        image_folder: Images.
        mask_folder: Their masks.

    Returns:
        Name → image and mask, sorted by name.

    Raises:
        DataError: A missing or empty folder, a file without partner, two files of one name.
    """
    images, masks = _by_stem(image_folder), _by_stem(mask_folder)
    for having, lacking, there, what in (
        (images, masks, mask_folder, "mask"),
        (masks, images, image_folder, "image"),
    ):
        unpaired = sorted(set(having) - set(lacking))
        if unpaired:
            more = f"; {len(unpaired) - 1} more lack theirs" if len(unpaired) > 1 else ""
            raise DataError(
                f"{having[unpaired[0]]}: there is no {what} {there / unpaired[0]}.*: a pair has the same name up to "
                f"the extension{more}"
            )
    if not images:
        raise DataError(
            f"{image_folder}: no patches: expected files {', '.join(SUFFIXES)} here and their masks in {mask_folder}"
        )
    return {name: (images[name], masks[name]) for name in sorted(images)}


def find_run_patches(config: Config) -> dict[str, list[PatchFile]]:
    """Return the patches of a run: all segmentation patches, then all detection patches, of every split.

    Where a task has no folder ``val`` or ``test``, the shares ``val_split`` and ``test_split`` of its slides are
    taken from ``train``; both tasks put a slide on the same side.

    Args:
        config: ``data_dir``, ``task``, ``fold_seg``, ``fold_det``, ``val_split``, ``test_split`` and ``seed``.

    Returns:
        ``train``, ``val`` and ``test``; the last two may be empty.

    Raises:
        DataError: As `find_patches`, and when the manifest puts a slide on two sides.
    """
    root = Path.cwd() if config.data_dir is None else config.data_dir
    manifest = read_manifest(root)
    folds = {"segmentation": config.fold_seg, "detection": config.fold_det}
    found: dict[str, list[PatchFile]] = {split: [] for split in SPLITS}
    missing: dict[str, set[str]] = {split: set() for split in SPLITS}
    for task in TASKS[config.task]:
        for split in SPLITS:
            if split != "train" and _locate(root, task, split, folds[task]) is None:
                missing[split].add(task)
                continue
            found[split] += find_patches(root, task, split, folds[task], manifest=manifest)
    for split, share in (("test", config.test_split), ("val", config.val_split)):
        found = _split_off(found, split, share, missing[split], config.seed)
    _check_sides(root, found, manifest)
    return found


def _group(patch: PatchFile) -> str:
    """Return what a random split keeps together: the slide, or the patch itself where no slide is known."""
    return patch.slide or f"{patch.task}/{patch.name}"


def _split_off(
    found: Mapping[str, list[PatchFile]], split: str, share: float, tasks: set[str], seed: int
) -> dict[str, list[PatchFile]]:
    """Move a share of the slides of some tasks from train to another split.

    Slides are drawn among those of the same tasks, so that each task gives its share.
    """
    if not tasks or share <= 0:
        return dict(found)
    # A slide that another task has on a side already stays there for this one, too.
    fixed = {_group(patch): side for side in SPLITS for patch in found[side] if patch.task not in tasks}
    fixed |= {_group(patch): side for side in SPLITS if side != "train" for patch in found[side]}
    kinds: dict[str, set[str]] = {}
    for patch in found["train"]:
        if patch.task in tasks and _group(patch) not in fixed:
            kinds.setdefault(_group(patch), set()).add(patch.task)
    chosen = {slide for slide, side in fixed.items() if side == split}
    generator = np.random.default_rng([seed, SPLITS.index(split)])
    for kind in sorted({tuple(sorted(kind)) for kind in kinds.values()}):
        slides = sorted(slide for slide in kinds if tuple(sorted(kinds[slide])) == kind)
        count = min(max(1, round(share * len(slides))), len(slides) - 1)
        chosen |= {slides[int(k)] for k in generator.permutation(len(slides))[:count]}
    moved = [patch for patch in found["train"] if patch.task in tasks and _group(patch) in chosen]
    kept = [patch for patch in found["train"] if not (patch.task in tasks and _group(patch) in chosen)]
    logger.info(
        "%s: no folder for %s: %d of %d slides of the training set are taken (seed %d)",
        split, " and ".join(sorted(tasks)), len({_group(p) for p in moved}), len(kinds), seed,
    )  # fmt: skip
    both = sorted([*found[split], *moved], key=lambda patch: (patch.task != "segmentation", patch.name))
    return {**found, "train": kept, split: both}


def _check_sides(root: Path, found: Mapping[str, Sequence[PatchFile]], manifest: Manifest | None) -> None:
    sides = {split: {patch.slide for patch in found[split] if patch.slide} for split in SPLITS}
    if manifest is not None:
        refuse_shared(str(root), sides)
        return
    shared = shared_slides(sides)
    if shared:
        logger.warning(
            "%s: %d slides (%s, …) have patches on two sides of the split, going by their names: results will be "
            "too good", root, len(shared), next(iter(shared)),
        )  # fmt: skip
