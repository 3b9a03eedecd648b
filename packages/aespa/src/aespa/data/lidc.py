"""LIDC-IDRI: 180 x 180 px crops of lung nodules with four graders, of whom the first three are used.

Only slices that all three outline are kept, judged after the resize to 256 px whatever the network's size is. The
original had positions in an unsorted listing of one machine instead of this rule.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aespa.config import Config
from aespa.data.reading import read_masks, resize_mask
from aespa.data.records import Record, Split, files_by_name, subfolders
from aespa.errors import DataError
from medshared.files import read_json, write_json
from medshared.process import progress

logger = logging.getLogger(__name__)

GRADERS = ("l0", "l1", "l2")
RULE_SIDE = 256  # the size at which the published lists were made


def find_lidc(config: Config, split: Split) -> list[Record]:
    """List all slices of a split, before the rule."""
    home = config.data_path / split
    records = []
    for folder in subfolders(home / "gt"):
        masks = files_by_name(folder)
        for name, image in files_by_name(home / "images" / folder.name).items():
            stem = image.stem
            if not name.endswith(".png"):
                continue
            raters = tuple(masks.get(f"{stem}_{grader}.png") for grader in GRADERS)
            records.append(Record(f"{folder.name}/{stem}", folder.name, image, raters, GRADERS))
    return records


def keep_outlined(config: Config, split: Split, records: Sequence[Record]) -> list[Record]:
    """Return the slices that all graders outline, or those that ``lidc_index`` names.

    The result of the rule is kept as ``.aespa_lidc_<split>.json`` in the data's folder where that can be written, and
    holds until a file changes.

    Args:
        config: ``data_path``, ``lidc_index`` and ``w``.
        split: Which of the two.
        records: All slices, from `find_lidc`.

    Returns:
        The slices to use, in the same order.

    Raises:
        DataError: A mask is damaged, or an index does not fit.
    """
    if config.lidc_index is not None:
        return [records[i] for i in read_index(config.lidc_index, split, len(records))]
    cache = config.data_path / f".aespa_lidc_{split}.json"
    fingerprint = files_fingerprint(records)
    kept = _known(cache, fingerprint)
    if kept is None:
        with ThreadPoolExecutor(max(1, config.w)) as pool:
            checked = progress(pool.map(_is_outlined, records), total=len(records), description="LIDC rule")
            kept = {record.name for record, good in zip(records, checked, strict=True) if good}
        try:
            write_json(cache, {"fingerprint": fingerprint, "kept": sorted(kept)})
        except OSError as error:
            logger.info("the rule will be applied again next time: %s", error)
    logger.info("LIDC %s: %d of %d slices are outlined by all graders", split, len(kept), len(records))
    return [record for record in records if record.name in kept]


def _is_outlined(record: Record) -> bool:
    masks, _ = read_masks(record)  # zeros where a grader has no file
    return all(resize_mask(mask, RULE_SIDE).any() for mask in masks)


def _known(cache: Path, fingerprint: str) -> set[str] | None:
    try:
        found = read_json(cache)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s will be made again: %s", cache, error)
        return None
    if not isinstance(found, dict) or found.get("fingerprint") != fingerprint:
        return None
    return set(found.get("kept", []))


def files_fingerprint(records: Sequence[Record]) -> str:
    """Return a checksum of names, sizes and dates of all files of the records, without reading them."""
    digest = hashlib.sha256()
    for record in records:
        for path in record.files:
            try:
                status = path.stat()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
            digest.update(f"{os.fspath(path)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_index(path: Path, split: Split, n: int) -> list[int]:
    """Read positions of slices in the sorted listing of a split.

    Args:
        path: A folder with ``lidc_<split>_non_empty_indices.npy``, or a file name with ``{split}`` in it.
        split: Which of the two.
        n: Number of slices in the listing.

    Returns:
        The positions, sorted.

    Raises:
        DataError: No such file, no list of whole numbers, repeated, or outside the listing.
    """
    file = (
        path / f"lidc_{split}_non_empty_indices.npy" if path.is_dir() else Path(str(path).format(split=split))
    )
    if file == path:
        raise DataError(
            f"lidc_index {path} names one file for both splits: give the folder of "
            "lidc_train_non_empty_indices.npy and lidc_test_non_empty_indices.npy, or a name with {split} in it"
        )
    try:
        index = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file (lidc_index)") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not an array of positions (lidc_index): {error}") from error
    if index.ndim != 1 or index.dtype.kind not in "iu" or not index.size:
        raise DataError(f"{file}: expected a list of whole numbers, found {index.dtype} {list(index.shape)}")
    if index.min() < 0 or index.max() >= n:
        raise DataError(
            f"{file}: positions {index.min()} to {index.max()} do not fit the {n} slices of split {split!r}; the "
            "list belongs to other data"
        )
    if len(np.unique(index)) != len(index):
        raise DataError(f"{file}: a position occurs twice")
    return sorted(index.tolist())
