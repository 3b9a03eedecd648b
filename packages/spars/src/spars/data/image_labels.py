"""Image-level labels: one 0 or 1 for a whole volume, which is all the supervision the paper claims to need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medshared.process import progress
from medshared.tables import Column, TableError, read_table
from spars.data.cases import read_label
from spars.data.layout import Case
from spars.errors import DataError

LABELS_TABLE = "labels.csv"
TUMOUR = 2
_COLUMNS = (
    Column("case", unique=True),
    Column("label", "category", choices=("0", "1")),
)


def read_image_labels(path: Path, cases: Sequence[Case]) -> dict[str, int]:
    """Read ``case,label`` with label 1 where the volume has a tumour and 0 where it has none.

    Args:
        path: The table; rows of other cases are passed over.
        cases: Every one of them needs a row.

    Returns:
        Label by case name, in the order of ``cases``.

    Raises:
        DataError: No table, a case without row, a case twice, another label; with file and row.
    """
    try:
        table = read_table(path, _COLUMNS)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no table of image-level labels; expected the columns case,label") from error
    except TableError as error:
        raise DataError(str(error)) from error
    labels = {str(name): int(label) for name, label in zip(table["case"], table["label"], strict=True)}
    missing = [case.name for case in cases if case.name not in labels]
    if missing:
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        known = ", ".join(list(labels)[:3])
        raise DataError(
            f"{path}: no row for {len(missing)} of {len(cases)} cases ({names}); its {len(labels)} rows name "
            f"{known or 'none'}, …: add a row each with 0 or 1"
        )
    return {case.name: labels[case.name] for case in cases}


def labels_from_voxels(cases: Sequence[Case], label_map: Mapping[int, int] | None = None) -> dict[str, int]:
    """Derive image-level labels from voxel labels, for data sets without a table. Never done unless asked for.

    Args:
        cases: All with voxel labels.
        label_map: Value of the file to 0 background, 1 liver, 2 tumour.

    Returns:
        1 where a voxel is tumour.

    Raises:
        DataError: A case without voxel labels, or a file that cannot be used.
    """
    return {
        case.name: int((read_label(case, label_map).array == TUMOUR).any())
        for case in progress(cases, description="reading labels")
    }


def tumour_volumes(cases: Sequence[Case], label_map: Mapping[int, int] | None = None) -> dict[str, float]:
    """Measure the tumours, for stratified splits.

    Args:
        cases: All with voxel labels.
        label_map: Value of the file to 0 background, 1 liver, 2 tumour.

    Returns:
        Millilitres by case name.

    Raises:
        DataError: A case without voxel labels, or a file that cannot be used.
    """
    found = {}
    for case in progress(cases, description="measuring tumours"):
        label = read_label(case, label_map)
        x, y, z = label.spacing
        found[case.name] = float((label.array == TUMOUR).sum()) * x * y * z / 1000
    return found
