"""What a run reads: cohort, split, labels and bags, and which patients each epoch trains on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from advmil.config import Config
from advmil.data.bags import BagInput, BagSource
from advmil.data.labels import FoldWarning, Labels, fold_warnings, make_labels
from advmil.data.order import EpochOrder
from advmil.data.splits import Split, check_split, kfold_patients, read_split, sample_patients
from advmil.data.tables import Cohort, read_cohort, shorten
from advmil.errors import DataError

logger = logging.getLogger(__name__)

RUN_NAMES = {
    "UD+LD": "semitrain_LD_UD",
    "LD+UD": "semitrain_LD_UD",
    "LD": "semitrain_LD",
    "UD": "semitrain_UD",
}
PARTS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class RunData:
    """One fold, ready to be trained on.

    Attributes:
        cohort: The table.
        split: The fold.
        labels: Labels of all patients of the fold.
        source: Bags of patients.
        sets: Patients of each set that is reported, by the original's name of the set.
        labelled: Patients whose labels may be used in training.
        epochs_of: Training patients of epoch k, by ``k % len(epochs_of)``; one entry unless semi-supervised.
        epoch_names: What the original's tracker calls the metrics of each entry of ``epochs_of``.
        name: Prefix of the output files, without the underscore.
        warnings: Parts whose metrics will be undefined or mean little.
    """

    cohort: Cohort
    split: Split
    labels: Labels
    source: BagSource
    sets: dict[str, tuple[str, ...]]
    labelled: frozenset[str]
    epochs_of: tuple[tuple[str, ...], ...]
    name: str
    epoch_names: tuple[str, ...] = ("train",)
    warnings: list[FoldWarning] = field(default_factory=list)

    def rows(self, patients: Sequence[str]) -> np.ndarray:
        """Return the rows of patients in ``labels``."""
        return np.asarray([self._row_of[patient] for patient in patients], dtype=np.int64)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {patient: row for row, patient in enumerate(self.labels.patients)}

    def orders(self, seed: int) -> list[EpochOrder]:
        """Return one shuffled order for each entry of ``epochs_of``."""
        return [EpochOrder(len(patients), seed) for patients in self.epochs_of]


def split_path(config: Config) -> Path:
    """Return the split file: ``{}`` of ``data_split_path`` stands for ``data_split_seed``."""
    return Path(config.data_split_path.replace("{}", str(config.data_split_seed)))


def load_run_data(config: Config) -> RunData:
    """Read the table and split of a run and lay out its training sets.

    Args:
        config: Resolved configuration.

    Raises:
        DataError: Table, split or features cannot be used.
    """
    cohort = read_cohort(Path(config.path_label))
    split = read_split(split_path(config))
    check_split(split, cohort)
    # One generator for both draws, in the order of the original: the subset first, then the labelled patients.
    rng = np.random.RandomState(config.seed)
    train = split.train
    if config.train_sampling is not None:  # in test mode as well: these patients set the time bins
        train = tuple(sample_patients(train, config.train_sampling, rng)[0])
        logger.info("train_sampling: %d of %d training patients", len(train), len(split.train))
    everyone = (*split.train, *split.val, *split.test)
    labels = make_labels(
        cohort,
        everyone,
        config.time_format,
        bins=config.time_bins,
        labels_from=config.labels_from or "train",
        train_patients=train,
    )
    source = BagSource(config, cohort)
    if config.test:
        chosen = split.parts[config.test_path]
        if not chosen:
            raise DataError(
                f"test_path: {config.test_path}: {split.path} names no such patients; choose another part"
            )
        check_files(source, chosen)
        sets = {f"exec-{config.test_path}": chosen}
        return RunData(cohort, split, labels, source, sets, frozenset(train), (train,), "test_mode")
    others = {PARTS[part]: ids for part, ids in split.parts.items() if part != "train" and ids}
    check_files(source, (*train, *(patient for ids in others.values() for patient in ids)))
    warnings = fold_warnings(
        cohort, {PARTS[part]: ids for part, ids in (split.parts | {"train": train}).items()}
    )
    sets = {"train": train, **others}
    data = RunData(
        cohort, split, labels, source, sets, frozenset(train), (train,), "train", warnings=warnings
    )
    return _semi_supervised(config, data, rng) if config.semi_training else data


def _semi_supervised(config: Config, data: RunData, rng: np.random.RandomState) -> RunData:
    """Part the training patients into labelled and unlabelled ones."""
    train = data.sets["train"]
    labelled, unlabelled = (tuple(ids) for ids in sample_patients(train, config.ssl_num_labeled, rng))
    others = {name: ids for name, ids in data.sets.items() if name != "train"}
    epochs_of = _semi_supervised_epochs(config, labelled, unlabelled)
    return replace(
        data,
        sets={"labeled_train": labelled, "unlabeled_train": unlabelled, **others},
        labelled=frozenset(labelled),
        epochs_of=tuple(epochs_of.values()),
        name=RUN_NAMES[config.semi_training_mode],
        epoch_names=tuple(epochs_of),
    )


def _semi_supervised_epochs(
    config: Config, labelled: tuple[str, ...], unlabelled: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the training patients of the epochs, which are gone through in turn, by the original's name."""
    if not unlabelled:
        raise DataError(
            f"ssl_num_labeled: {config.ssl_num_labeled:g} labels all {len(labelled)} training patients, so that none "
            "is unlabelled; lower it, or set semi_training: False"
        )
    if config.semi_training_mode == "LD":
        return {"labeled_train": labelled}
    if config.semi_training_mode == "UD":
        return {"unlabeled_train": unlabelled}
    folds = kfold_patients(labelled, unlabelled, config.ssl_kfold, config.seed)
    return {f"fold{k}_mixed_train": tuple(patients) for k, patients in enumerate(folds)}


def check_files(source: BagSource, patients: Sequence[str]) -> None:
    """Look for the slide files of patients before the first epoch rather than in the middle of a run.

    Raises:
        DataError: Naming the missing files and their patients.
    """
    missing = [
        f"{source.slide_path(slide)} (patient {patient})"
        for patient in patients
        for slide in source.cohort.patients[patient].slides
        if not source.slide_path(slide).is_file()
    ]
    if missing:
        raise DataError(
            f"{len(missing)} slide files are missing: {shorten(missing, 3)}: make their features, or take the slides "
            f"out of {source.cohort.path}; `advmil check` lists all"
        )


def place(bag: BagInput, device: object) -> BagInput:
    """Move a bag to a device."""
    extra: Tensor | None = bag.extra
    return BagInput(
        bag.x.to(device, non_blocking=True),  # type: ignore[call-overload]
        None if extra is None else extra.to(device, non_blocking=True),  # type: ignore[call-overload]
    )
