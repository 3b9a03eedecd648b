"""Splits of a cohort by patient: the original's npz files, random subsets and folds."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from advmil.data.tables import Cohort, shorten
from advmil.errors import DataError
from medshared.files import write_npz

KEYS = {"train": "train_patients", "val": "val_patients", "test": "test_patients"}


@dataclass(frozen=True)
class Split:
    """The parts of one fold, as patient ids.

    Attributes:
        train: Patients that are trained on.
        val: Patients that choose the epoch.
        test: Patients that are only scored; empty when the file names none.
        path: The file, for messages.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    path: Path

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The three parts by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Permuting(Protocol):
    """A NumPy generator, a ``RandomState``, or ``numpy.random`` itself."""

    def permutation(self, x: int, /) -> np.ndarray:
        """Return the numbers below ``x`` in random order."""
        ...


def read_split(path: Path | str) -> Split:
    """Read one fold, ``data_split/<dataset>-fold<k>.npz`` of the original.

    Args:
        path: npz with the arrays ``train_patients``, ``val_patients`` and, optionally, ``test_patients``, of
            text or whole numbers.

    Returns:
        The split with ids as text, in the order of the file.

    Raises:
        DataError: No such file, a truncated or pickled one, missing arrays, an empty training part, a
            patient named twice within a part or in two parts.
    """
    path = Path(path)
    parts = _read_parts(path)
    for name, ids in parts.items():
        doubled = sorted({value for value in ids if ids.count(value) > 1}) if len(set(ids)) < len(ids) else []
        if doubled:
            raise DataError(f"{path}: '{KEYS[name]}' names {shorten(doubled)} more than once")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        common = sorted(set(parts[first]) & set(parts[second]))
        if common:
            raise DataError(
                f"{path}: {len(common)} patients are in both '{KEYS[first]}' and '{KEYS[second]}' "
                f"({shorten(common)}): the parts of a split must not share patients"
            )
    if not parts["train"]:
        raise DataError(f"{path}: 'train_patients' is empty: nothing could be trained")
    return Split(parts["train"], parts["val"], parts["test"], path)


def _read_parts(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [KEYS[name] for name in ("train", "val") if KEYS[name] not in arrays.files]
            if missing:
                raise DataError(f"{path}: arrays {missing} are missing; the file holds {arrays.files}")
            return {
                name: _ids(path, key, arrays[key]) if key in arrays.files else ()
                for name, key in KEYS.items()
            }
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such split: check data_split_path and data_split_seed") from error
    except DataError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError) as error:
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise DataError(
                f"{path}: holds pickled objects, which could run code when read: save the ids as text, "
                "numpy.savez(path, train_patients=numpy.array(ids, dtype=str), …)"
            ) from error
        raise DataError(f"{path}: not a whole npz file ({error}): copy or make it again") from error


def _ids(path: Path, key: str, array: np.ndarray) -> tuple[str, ...]:
    if array.ndim != 1 or (array.dtype.kind not in "iuUS" and array.size):
        raise DataError(
            f"{path}: '{key}' must be a list of text or whole numbers, found {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "S":
        return tuple(value.decode("utf-8") for value in array.tolist())
    return tuple(str(value) for value in array.tolist())


def write_split(
    path: Path | str, train: Sequence[str], val: Sequence[str], test: Sequence[str] | None = None
) -> Path:
    """Write a split in the original's form, atomically, ids as text.

    Args:
        path: Target npz file.
        train: Patients of the training part.
        val: Patients of the validation part.
        test: Patients of the test part; null leaves the array out.

    Returns:
        The path.
    """
    arrays = {"train_patients": train, "val_patients": val}
    if test is not None:
        arrays["test_patients"] = test
    return write_npz(path, **{key: np.array(list(ids), dtype=np.str_) for key, ids in arrays.items()})


def check_split(split: Split, cohort: Cohort) -> None:
    """Refuse a split that names patients whom the table lacks.

    Args:
        split: The split.
        cohort: The table it is to be used with.

    Raises:
        DataError: Naming part, file, table and the patients.
    """
    for name, ids in split.parts.items():
        unknown = [value for value in ids if value not in cohort.patients]
        if unknown:
            raise DataError(
                f"'{KEYS[name]}' of {split.path.name} names {len(unknown)} patients that {cohort.path.name} lacks "
                f"({shorten(unknown)}): use the table the split was made for"
            )


def sample_patients(
    items: Sequence[str], ratio_or_count: float, rng: Permuting
) -> tuple[list[str], list[str]]:
    """Draw a random subset of patients, as the original's ``train_sampling`` and ``ssl_num_labeled`` do.

    Args:
        items: Patients.
        ratio_or_count: A share in (0, 1), of which the whole part is taken, or a number of patients.
        rng: Source of one permutation; ``numpy.random.RandomState(seed)`` gives the original's choice.

    Returns:
        The chosen and the others, both in the order of the permutation.

    Raises:
        DataError: When nobody would be chosen or more than there are.

    Example:
        >>> sample_patients(["a", "b", "c", "d"], 0.5, np.random.RandomState(0))
        (['c', 'd'], ['b', 'a'])
    """
    n = len(items)
    count = int(n * ratio_or_count) if 0 < ratio_or_count < 1 else int(ratio_or_count)
    if not 1 <= count <= n:
        raise DataError(
            f"a sample of {ratio_or_count:g} of {n} patients has {count}: "
            f"give a share in (0, 1) or a count from 1 to {n}"
        )
    shuffled = [items[int(k)] for k in rng.permutation(n)]
    return shuffled[:count], shuffled[count:]


def kfold_patients(labelled: Sequence[str], unlabelled: Sequence[str], k: int, seed: int) -> list[list[str]]:
    """Return the training patients of k epochs: all labelled ones and one fold of the unlabelled.

    Args:
        labelled: Patients whose labels are used; in every fold, first.
        unlabelled: Patients cut into folds (shuffled with ``seed``, each fold in the given order).
        k: Number of folds; 1 keeps all unlabelled patients together.
        seed: Of the shuffling.

    Returns:
        One list of patients for each fold.

    Raises:
        DataError: With fewer unlabelled patients than folds.
    """
    if k == 1:
        return [[*labelled, *unlabelled]]
    if len(unlabelled) < k:
        raise DataError(
            f"{len(unlabelled)} unlabelled patients cannot be cut into {k} folds: lower ssl_kfold or ssl_num_labeled"
        )
    from sklearn.model_selection import KFold

    folds = KFold(k, shuffle=True, random_state=seed).split(np.arange(len(unlabelled)))
    return [[*labelled, *(unlabelled[int(index)] for index in fold)] for _, fold in folds]
