"""What a folder looks like: a wrong name of a data set is found before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aespa.data.records import files_by_name, subfolders
from aespa.errors import DataError

RAW_MBHSEG = "raw MBHSeg volumes"
NEEDS = {
    "LIDC": "{train,test}/images/<patient>/<slice>.png and {train,test}/gt/<patient>/<slice>_l0.png ... _l3.png",
    "REFUGE": "{Training-400,Test-400}/<name>/<name>.jpg and <name>_seg_cup_1.png ... _7.png beside it",
    "MBHSeg-Binary": "{train,test}/imgs/<case>/slice_<z>.png and {train,test}/gt/<case>/slice_<z>_r<id>.npy",
    "MBHSeg-Multiclass": "{train,test}/imgs/<case>/slice_<z>.png and gt/<case>/slice_<z>_r<id>.npy with six classes",
    "folders": "images/<name>.png and raters/<id>/<name>.png, or the same below train/ and test/",
}


def check_layout(data_path: Path, dataset: str) -> None:
    """Refuse a folder that is missing, empty, or has the layout of another data set.

    Args:
        data_path: Folder of the data set.
        dataset: Its name.

    Raises:
        DataError: Saying what the folder needs, what it looks like, and what to do.
    """
    if not data_path.exists():
        raise DataError(f"{data_path}: no such folder; data_path must be the folder of the data set")
    if not data_path.is_dir():
        raise DataError(f"{data_path}: not a folder; data_path must be the folder of the data set")
    found = recognise(data_path)
    if found == dataset:
        return
    message = f"{data_path}: dataset {dataset} needs {NEEDS[dataset]}"
    if found == RAW_MBHSEG:
        raise DataError(
            f"{message}; this looks like {found}: make slices of them with process_mbhseg.py first"
        )
    if found is not None:
        raise DataError(f"{message}; this looks like {found}, not {dataset}: set dataset to {found}")
    for below in subfolders(data_path):
        if recognise(below) == dataset:
            raise DataError(f"{message}; {below} looks like that: set data_path to it")
    if not any(data_path.iterdir()):
        raise DataError(f"{message}; the folder is empty")
    names = ", ".join(sorted(path.name for path in data_path.iterdir())[:6])
    raise DataError(f"{message}; found {names}")


def recognise(folder: Path) -> str | None:
    """Return the name of the data set whose layout a folder has, or None.

    Args:
        folder: Any folder.

    Returns:
        A name of `NEEDS`, or `RAW_MBHSEG`.
    """
    if any((folder / name).is_dir() for name in ("Training-400", "Test-400")):
        return "REFUGE"
    if (folder / "images").is_dir() and (folder / "raters").is_dir():
        return "folders"
    for split in (folder / "train", folder / "test"):
        if (split / "raters").is_dir():
            return "folders"
        if (split / "imgs").is_dir():
            return _kind_of_mbhseg(split / "gt")
        if (split / "images").is_dir():
            return "LIDC"
        if any(
            name.endswith((".nii.gz", ".nii")) for case in subfolders(split) for name in files_by_name(case)
        ):
            return RAW_MBHSEG
    return None


def _kind_of_mbhseg(masks: Path) -> str:
    """Tell one mask a file from one channel a class, by the header of the first file that has one."""
    for case in subfolders(masks):
        for path in files_by_name(case).values():
            try:
                axes = np.load(path, mmap_mode="r", allow_pickle=False).ndim
            except (OSError, ValueError, EOFError):
                continue
            return "MBHSeg-Multiclass" if axes == 3 else "MBHSeg-Binary"
    return "MBHSeg-Binary"
