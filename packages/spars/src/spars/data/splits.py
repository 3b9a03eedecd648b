"""Which patients train, which choose, which test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medshared.files import read_json, write_json
from spars.config import ClassifierConfig, GameConfig
from spars.data.layout import Case, natural_key
from spars.errors import DataError

PARTS = ("train", "val", "test")
SPLITS_FILE = "splits.json"
_JITTER = 3.0  # ranks by which cases of like volume may change places


@dataclass(frozen=True)
class Splits:
    """A patient-level split; the parts share no case.

    Attributes:
        train: Names of the cases that train.
        val: Names of those that choose epochs and thresholds.
        test: Names of those that are reported.
        seed: That drew the split.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for part in PARTS:
            for name in getattr(self, part):
                if name in seen:
                    both = part if seen[name] == part else f"{seen[name]} and {part}"
                    raise DataError(f"case {name!r} is in {both} twice; a case belongs into one part, once")
                seen[name] = part


def read_splits(path: Path) -> Splits:
    """Read ``splits.json``: ``{"train": [names], "val": [names], "test": [names], "seed": 0}``.

    Args:
        path: The file.

    Raises:
        DataError: It is no such file, or a case is in it twice.
    """
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file of splits; `spars prepare` writes one") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    if not isinstance(content, dict) or not {"train", "val"} <= content.keys():
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: expected the keys 'train', 'val' and 'test', found {found}")
    parts = {part: _names(path, part, content.get(part, [])) for part in PARTS}
    seed = content.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise DataError(f"{path}: 'seed' must be a whole number, found {seed!r}")
    try:
        return Splits(**parts, seed=seed)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _names(path: Path, part: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f'{path}: {part!r} must be a list of case names such as "liver_5"')
    return tuple(value)


def write_splits(path: Path, splits: Splits) -> Path:
    """Write ``splits.json`` atomically.

    Args:
        path: Target.
        splits: What to write.
    """
    return write_json(path, {part: list(getattr(splits, part)) for part in PARTS} | {"seed": splits.seed})


def make_splits(
    cases: Sequence[Case],
    volumes: Mapping[str, float] | None = None,
    shares: tuple[float, float, float] = (0.6, 0.15, 0.25),
    seed: int = 0,
) -> Splits:
    """Split patients at random so that every part has like shares of tumours, small and large.

    Args:
        cases: All cases; those of one patient stay together.
        volumes: Tumour volume by case name, any unit, 0 for none; null takes the cases' ``tumour`` where they have it.
        shares: Of train, val and test; they sum to 1.
        seed: Same seed, same split.

    Raises:
        DataError: Shares that do not sum to 1, or fewer patients than parts.
    """
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"shares of train, val and test must sum to 1, found {shares}")
    rng = np.random.default_rng(seed)
    patients = _ordered_patients(cases, volumes, rng)
    if len(patients) < sum(share > 0 for share in shares):
        raise DataError(f"{len(patients)} patients are too few for {len(shares)} parts")
    parts: list[list[str]] = [[], [], []]
    given = np.zeros(3)
    order = rng.permutation(3)  # who comes first among equally short ones
    for count, names in enumerate(patients, start=1):
        short = np.multiply(shares, count) - given
        chosen = int(order[np.argmax(short[order])])
        parts[chosen] += names
        given[chosen] += 1
    train, val, test = (tuple(sorted(part, key=natural_key)) for part in parts)
    return Splits(train, val, test, seed)


def make_folds(
    cases: Sequence[Case], k: int, volumes: Mapping[str, float] | None = None, seed: int = 0
) -> list[Splits]:
    """Return ``k`` splits, in which every case is tested once; the next fold is the validation part.

    Args:
        cases: All cases; those of one patient stay together.
        k: Number of folds, at least 3.
        volumes: As for `make_splits`.
        seed: Same seed, same folds.

    Raises:
        DataError: Fewer than 3 folds, or fewer patients than folds.
    """
    rng = np.random.default_rng(seed)
    patients = _ordered_patients(cases, volumes, rng)
    if not 3 <= k <= len(patients):
        raise DataError(f"k must be between 3 and the number of patients ({len(patients)}), found {k}")
    folds: list[list[str]] = [[] for _ in range(k)]
    for start in range(0, len(patients), k):  # every block of like volumes spreads over all folds
        for fold, names in zip(rng.permutation(k), patients[start : start + k], strict=False):
            folds[int(fold)] += names
    ordered = [tuple(sorted(fold, key=natural_key)) for fold in folds]
    found = []
    for i in range(k):
        rest = [name for j in range(k) if j not in (i, (i + 1) % k) for name in ordered[j]]
        train = tuple(sorted(rest, key=natural_key))
        found.append(Splits(train, ordered[(i + 1) % k], ordered[i], seed))
    return found


def _ordered_patients(
    cases: Sequence[Case], volumes: Mapping[str, float] | None, rng: np.random.Generator
) -> list[list[str]]:
    """Return the case names of each patient, ordered by tumour volume, those of like volume shuffled."""
    by_patient: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: natural_key(case.name)):
        by_patient.setdefault(case.patient, []).append(case)
    sizes = [max(_volume(case, volumes) for case in group) for group in by_patient.values()]
    shuffled = rng.permutation(len(sizes))
    ranks = np.empty(len(sizes))
    ranks[shuffled[np.argsort(np.array(sizes)[shuffled], kind="stable")]] = np.arange(len(sizes))
    keys = ranks + rng.uniform(0, _JITTER, len(sizes))
    groups = list(by_patient.values())
    return [[case.name for case in groups[i]] for i in np.lexsort((keys, np.array(sizes) > 0))]


def _volume(case: Case, volumes: Mapping[str, float] | None) -> float:
    if volumes is None:
        return float(case.tumour or 0)
    if case.name not in volumes:
        raise DataError(f"no tumour volume of case {case.name!r}; measure all cases or none")
    return float(volumes[case.name])


def choose_cases(config: ClassifierConfig | GameConfig, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the cases of ``train``, ``val`` and ``test``.

    The first of these decides: the file that ``splits`` names, ``<data_dir>/splits.json`` (not in faithful mode), the
    column ``split`` of ``cases.csv``, the index ranges of the configuration.

    Args:
        config: Gives files and ranges.
        cases: From `find_cases`.

    Raises:
        DataError: A name that no case has, a patient in two parts, a range outside the listing, or no split at all.
    """
    path = config.splits
    beside = config.data_dir / SPLITS_FILE if config.data_dir is not None else None
    if path is None and config.mode != "faithful" and beside is not None and beside.is_file():
        path = beside
    if path is not None:
        chosen = _named(path, read_splits(path), cases)
    elif any(case.split for case in cases):
        chosen = {part: [case for case in cases if case.split == part] for part in PARTS}
    elif isinstance(config, ClassifierConfig):
        chosen = _ranges(config, cases)
    else:
        raise DataError(
            f"{beside or SPLITS_FILE}: no split of the patients; `spars prepare` writes one, or set splits"
        )
    check_patients(chosen)
    return chosen


def check_patients(chosen: Mapping[str, Sequence[Case]]) -> None:
    """Refuse a patient whose volumes are in two parts.

    Args:
        chosen: Cases of each part.

    Raises:
        DataError: Naming the patient and the parts.
    """
    seen: dict[str, str] = {}
    for part, cases in chosen.items():
        for case in cases:
            if seen.setdefault(case.patient, part) != part:
                raise DataError(
                    f"patient {case.patient!r} is in {seen[case.patient]} and in {part}; results would be too good"
                )


def _named(path: Path, splits: Splits, cases: Sequence[Case]) -> dict[str, list[Case]]:
    by_name = {case.name: case for case in cases}
    unknown = [name for part in PARTS for name in getattr(splits, part) if name not in by_name]
    if unknown:
        more = ", …" if len(unknown) > 3 else ""
        raise DataError(
            f"{path}: names {len(unknown)} cases that the data set lacks ({', '.join(unknown[:3])}{more}); "
            "use the file that was made for it"
        )
    return {part: [by_name[name] for name in getattr(splits, part)] for part in PARTS}


def _ranges(config: ClassifierConfig, cases: Sequence[Case]) -> dict[str, list[Case]]:
    listed = [case for case in cases if case.label is not None or config.label_source == "csv"]
    chosen: dict[str, list[Case]] = {}
    for part in ("train", "val"):
        start, end = getattr(config, f"{part}_start"), getattr(config, f"{part}_end")
        if not start < end <= len(listed):
            raise DataError(
                f"{part}_start {start} and {part}_end {end} do not fit a listing of {len(listed)} labelled cases; "
                f"set both, or give a file of splits"
            )
        chosen[part] = listed[start:end]
    taken = {case.name for part in chosen.values() for case in part}
    if len(taken) < sum(map(len, chosen.values())):
        raise DataError("the ranges of train and val overlap; validation needs cases that did not train")
    return {**chosen, "test": [case for case in listed if case.name not in taken]}
