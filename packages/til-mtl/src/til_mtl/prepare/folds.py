"""Folds by patient, alike in their share of every source."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from til_mtl.data.tiger import patient_of, source_of
from til_mtl.errors import DataError

TEST_FOLD = 0


def assign_folds(
    slides: Mapping[str, Collection[str]], folds: int, seed: int = 42, test_fraction: float = 0.0
) -> dict[str, int]:
    """Deal the slides to folds 1 … K, and to a test set.

    All slides of a patient come into the same fold. Sources (TCGA, RUMC, JB) are dealt one after the other, and
    within a source patients with the same kinds of annotations, so that folds are alike.

    Args:
        slides: Slide → kinds of its annotations, such as segmentation and detection.
        folds: K, at least 2.
        seed: Of the order.
        test_fraction: Share of the patients of every source that are kept for the test, 0 to 1.

    Returns:
        Slide → fold, 0 for the test set.

    Raises:
        DataError: Fewer than two folds, or more folds than patients.
    """
    patients: dict[str, list[str]] = {}
    for slide in sorted(slides):
        patients.setdefault(patient_of(slide), []).append(slide)
    if folds < 2:
        raise DataError(f"--folds {folds}: at least 2 are needed, one of them to validate on")
    generator = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    dealt = 0
    for source in sorted({source_of(slide) for slide in slides}):
        members = [name for name, group in patients.items() if source_of(group[0]) == source]
        order = [members[int(k)] for k in generator.permutation(len(members))]
        kinds = {name: tuple(sorted({k for s in patients[name] for k in slides[s]})) for name in order}
        order.sort(key=lambda name: kinds[name])
        test = _evenly(len(order), round(test_fraction * len(order)))
        for position, name in enumerate(order):
            if position in test:
                fold_of[name] = TEST_FOLD
                continue
            fold_of[name] = dealt % folds + 1
            dealt += 1
    if dealt < folds:
        raise DataError(f"--folds {folds}: there are only {dealt} patients to deal; lower it")
    return {slide: fold_of[name] for name, group in patients.items() for slide in group}


def _evenly(length: int, count: int) -> set[int]:
    """Return count positions spread over a length."""
    return {int((k + 0.5) * length / count) for k in range(count)} if count else set()
