"""Where the volumes of a data set lie.

Two layouts are known: that of the Medical Segmentation Decathlon (``imagesTr/liver_5.nii.gz`` with
``labelsTr/liver_5.nii.gz``), and a generic one (``images/``, ``labels/`` and, if wanted, ``cases.csv``). An image may
be a folder with the DICOM slices of one series. Cases are sorted by the numbers in their names, so that index ranges
mean the same patients on every file system; the original takes the order of the directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medshared.tables import Column, TableError, read_table
from medshared.volumes import is_volume_name, volume_stem
from spars.errors import DataError

CASES_TABLE = "cases.csv"
_COLUMNS = (
    Column("case", unique=True),
    Column("image", required=False),
    Column("label", required=False),
    Column("split", "category", required=False, choices=("train", "val", "test")),
    Column("tumour", "int", required=False, minimum=0, maximum=1),
    Column("patient", required=False),
)


@dataclass(frozen=True)
class Case:
    """One volume.

    Attributes:
        name: File name without suffix, or what the table calls it.
        image: NIfTI file, or folder of DICOM slices.
        label: NIfTI file of 0 background, 1 liver, 2 tumour; null = no voxel labels.
        split: ``train``, ``val`` or ``test`` where the table says.
        tumour: 1 or 0 where the table says whether there is a tumour.
        patient: Whom it is of; volumes of one patient stay in one part of a split.
    """

    name: str
    image: Path
    label: Path | None = None
    split: str | None = None
    tumour: int | None = None
    patient: str = ""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.name)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which ``liver_9`` comes before ``liver_10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def find_cases(data_dir: Path | None) -> list[Case]:
    """Return the cases of a data set, sorted naturally.

    Args:
        data_dir: Root: with ``imagesTr`` and ``labelsTr``, or with ``images``, ``labels`` and perhaps ``cases.csv``.

    Returns:
        At least one case. Images without labels are among them.

    Raises:
        DataError: No such folder, no known layout, a label without image, a row without file.
    """
    if data_dir is None:
        raise DataError("data_dir is not set: give the folder that holds imagesTr and labelsTr")
    root = Path(data_dir)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data_dir must hold imagesTr and labelsTr")
    if (root / CASES_TABLE).is_file():
        cases = _listed(root)
    elif (root / "imagesTr").is_dir() or (root / "labelsTr").is_dir():
        cases = _paired(root / "imagesTr", root / "labelsTr")
    elif (root / "images").is_dir():
        cases = _paired(root / "images", root / "labels")
    else:
        raise DataError(
            f"{root}: expected imagesTr/ and labelsTr/ (Medical Segmentation Decathlon), or images/ and labels/, "
            f"perhaps with {CASES_TABLE}; found {_glimpse(root)}"
        )
    if not cases:
        raise DataError(f"{root}: no volumes (.nii, .nii.gz, or folders of DICOM slices) in its image folder")
    return sorted(cases, key=lambda case: natural_key(case.name))


def find_test_images(data_dir: Path) -> list[Case]:
    """Return the images of ``imagesTs``, for which the Decathlon publishes no labels.

    Args:
        data_dir: Root of the data set.

    Raises:
        DataError: There is no such folder.
    """
    folder = Path(data_dir) / "imagesTs"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = _volumes(folder)
    return [Case(name, found[name]) for name in sorted(found, key=natural_key)]


def named_case(cases: list[Case], name: str) -> Case:
    """Return the case of a name.

    Args:
        cases: Where to look.
        name: File name without suffix.

    Raises:
        DataError: Naming what there is.
    """
    for case in cases:
        if case.name == name:
            return case
    known = ", ".join(case.name for case in cases[:5]) + (", …" if len(cases) > 5 else "")
    raise DataError(f"no case {name!r}; there are {len(cases)}: {known}")


def _glimpse(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return (", ".join(names[:5]) + (", …" if len(names) > 5 else "")) or "an empty folder"


def _volumes(folder: Path, *, series: bool = True) -> dict[str, Path]:
    """Return the volumes of a folder by name; hidden files and all others are passed over."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        is_series = series and path.is_dir() and not path.name.startswith(".")
        if not is_series and not (path.is_file() and is_volume_name(path.name)):
            continue
        name = path.name if is_series else volume_stem(path)
        if name in found:
            raise DataError(
                f"{folder}: {found[name].name} and {path.name} are one case twice; remove one of them"
            )
        found[name] = path
    return found


def _paired(images: Path, labels: Path) -> list[Case]:
    if not images.is_dir():
        raise DataError(f"{images}: no such folder, but {labels.name} is there; images belong into it")
    image_of, label_of = _volumes(images), _volumes(labels, series=False)
    alone = sorted(label_of.keys() - image_of.keys(), key=natural_key)
    if alone:
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        raise DataError(
            f"{label_of[alone[0]]}{more}: no image {images / alone[0]}.nii.gz (or .nii); add it or remove the label"
        )
    return [Case(name, path, label_of.get(name)) for name, path in image_of.items()]


def _listed(root: Path) -> list[Case]:
    path = root / CASES_TABLE
    try:
        table = read_table(path, _COLUMNS)
    except TableError as error:
        raise DataError(str(error)) from error
    images, labels = _volumes(root / "images"), _volumes(root / "labels", series=False)
    cases, faults = [], []
    for number, (_, row) in enumerate(table.iterrows(), start=2):
        name = str(row["case"])
        image, label = _cell(row, "image"), _cell(row, "label")
        at_image = root / image if image else images.get(name)
        at_label = root / label if label else labels.get(name)
        if at_image is None or not at_image.exists():
            faults.append(f"{path}:{number}: case {name!r}: no image {at_image or root / 'images' / name}")
        elif at_label is not None and not at_label.is_file():
            faults.append(f"{path}:{number}: case {name!r}: no label {at_label}")
        else:
            tumour = _cell(row, "tumour")
            patient, split = _cell(row, "patient") or "", _cell(row, "split")
            known = None if tumour is None else int(float(tumour))
            cases.append(Case(name, at_image, at_label, split, known, patient))
    if faults:
        raise DataError("\n".join(faults[:10]) + "\ncorrect the table or add the files")
    return cases


def _cell(row: pd.Series, column: str) -> str | None:
    value = row.get(column)
    return None if value is None or pd.isna(value) else str(value)
