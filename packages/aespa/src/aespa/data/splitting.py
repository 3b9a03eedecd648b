"""Splits that keep all images of a patient on one side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from aespa.data.records import Record
from aespa.errors import DataError

if TYPE_CHECKING:
    from aespa.data.arrays import RaterArrays


@overload
def split_by_patient(items: RaterArrays, fraction: float, seed: int) -> tuple[RaterArrays, RaterArrays]: ...
@overload
def split_by_patient(
    items: Sequence[Record], fraction: float, seed: int
) -> tuple[list[Record], list[Record]]: ...
def split_by_patient(
    items: RaterArrays | Sequence[Record], fraction: float, seed: int
) -> tuple[RaterArrays, RaterArrays] | tuple[list[Record], list[Record]]:
    """Hold out a share of the patients with all their images.

    Args:
        items: Arrays or records.
        fraction: Share of the patients to hold out, in [0, 1); at least one patient if it is above 0.
        seed: The same seed holds out the same patients, in whatever order they come.

    Returns:
        What is kept and what is held out, each in the order of `items`.

    Raises:
        ValueError: The share is not in [0, 1).
        DataError: There are too few patients to share out.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), found {fraction}")
    of_items = [item.patient for item in items] if isinstance(items, Sequence) else list(items.patients)
    patients = np.asarray(sorted(set(of_items)))
    n = max(1, round(fraction * len(patients))) if fraction else 0
    if n and n >= len(patients):
        raise DataError(
            f"a share of {fraction:g} of {len(patients)} patients leaves none to train on; give more patients or "
            "name the splits"
        )
    held = set(np.random.default_rng([seed, 0x5B17]).permutation(patients)[:n].tolist())
    kept = [i for i, patient in enumerate(of_items) if patient not in held]
    out = [i for i, patient in enumerate(of_items) if patient in held]
    if isinstance(items, Sequence):
        return [items[i] for i in kept], [items[i] for i in out]
    return items.subset(kept), items.subset(out)
