"""From a folder of volumes to one that can be trained on: every file checked, patients split, the cache filled."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medshared.process import progress
from medshared.tables import write_table
from spars.data.cases import load_case
from spars.data.image_labels import LABELS_TABLE, TUMOUR
from spars.data.layout import Case, find_cases
from spars.data.splits import SPLITS_FILE, Splits, make_folds, make_splits, write_splits
from spars.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What to prepare.

    Attributes:
        data_dir: Folder of the data set; null is an error with advice.
        shares: Of train, val and test.
        folds: K splits besides; null = none.
        seed: Of the splits.
        label_map: Value of the label files to 0 background, 1 liver, 2 tumour.
        cache_dir: Cache to fill; null = none.
        labels_from_voxels: Write image-level labels derived from the voxel labels.
        overwrite: Replace a split or labels that are there.
    """

    data_dir: Path | None
    shares: tuple[float, ...] = (0.6, 0.15, 0.25)
    folds: int | None = None
    seed: int = 0
    label_map: Mapping[int, int] | None = None
    cache_dir: Path | None = None
    labels_from_voxels: bool = False
    overwrite: bool = False


def prepare_data(preparation: Preparation) -> int:
    """Check every case, then write ``splits.json``, and ``labels.csv`` and ``folds/`` if asked to.

    Args:
        preparation: What to prepare.

    Returns:
        Exit code: 1 when a case cannot be used; nothing is written then.

    Raises:
        DataError: The folder is no data set, or cannot be split.
    """
    cases = find_cases(preparation.data_dir)
    root = Path(preparation.data_dir or ".")
    volumes, faults = check_cases(cases, preparation)
    for fault in faults:
        logger.error("%s", fault)
    if faults:
        logger.error("%d of %d cases cannot be used; mend or remove them", len(faults), len(cases))
        return 1
    known = sum(volumes[case.name] is not None for case in cases)
    n_tumour = sum(bool(volume) for volume in volumes.values())
    logger.info("%d cases, %d with voxel labels, %d of these with a tumour", len(cases), known, n_tumour)
    if preparation.labels_from_voxels:
        _write_labels(root / LABELS_TABLE, volumes, preparation.overwrite)
    stratify = {name: volume for name, volume in volumes.items() if volume is not None}
    by = stratify if known == len(cases) else None
    x, y, z = preparation.shares
    _write_split(
        root / SPLITS_FILE, make_splits(cases, by, (x, y, z), preparation.seed), preparation.overwrite
    )
    if preparation.folds is not None:
        for k, split in enumerate(make_folds(cases, preparation.folds, by, preparation.seed), start=1):
            _write_split(root / "folds" / f"fold{k}.json", split, preparation.overwrite)
    return 0


def check_cases(cases: Sequence[Case], preparation: Preparation) -> tuple[dict[str, float | None], list[str]]:
    """Read every case once, through the cache if there is one.

    Args:
        cases: From `find_cases`.
        preparation: Gives ``label_map`` and ``cache_dir``.

    Returns:
        Tumour volume in millilitres by case, null without voxel labels; and a line for each case that cannot be used.
    """
    volumes: dict[str, float | None] = {}
    faults: list[str] = []
    for case in progress(cases, description="checking cases"):
        try:
            found = load_case(case, preparation)
        except (DataError, OSError) as error:
            faults.append(f"{case.name}: {error}")
            continue
        if found.label is None:
            volumes[case.name] = None
        else:
            voxel_ml = float(np.prod(found.spacing)) / 1000
            volumes[case.name] = float((found.label == TUMOUR).sum()) * voxel_ml
    return volumes, faults


def _write_labels(path: Path, volumes: Mapping[str, float | None], overwrite: bool) -> None:
    without = [name for name, volume in volumes.items() if volume is None]
    if without:
        raise DataError(
            f"--labels-from-voxels: {len(without)} cases have no voxel labels ({', '.join(without[:3])}); write "
            f"{path.name} by hand: case,label with 0 or 1"
        )
    if path.exists() and not overwrite:
        logger.info("%s: is there already; --overwrite replaces it", path)
        return
    write_table(path, [{"case": name, "label": int(bool(volume))} for name, volume in volumes.items()])
    logger.info("%s: %d image-level labels, from voxel labels", path, len(volumes))


def _write_split(path: Path, splits: Splits, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        logger.info("%s: is there already; --overwrite replaces it", path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_splits(path, splits)
    counts = ", ".join(f"{len(getattr(splits, part))} {part}" for part in ("train", "val", "test"))
    logger.info("%s: %s", path, counts)
