"""SPA with several classes: the raters who see one class at one pixel, and the label map that they want.

The rule of the original's data set, kept for comparison: runs of this package take each class against all others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aespa.first_click import draw_pixel

CONTESTED = 0.8  # chance that a class is drawn about which raters differ somewhere
MOST_FREQUENT = 0.8  # chance that the label is the class that most raters see at the pixel


class ClassGroup(NamedTuple):
    """Raters who see one class at a pixel.

    Attributes:
        x: Column of the pixel.
        y: Its row.
        label: The class, 0 (background) only where no rater sees anything.
        selected: bool ``[R]``, the raters of the group.
        mask: int64 ``[S, S]``, the class that most of the group see; a tie is the lower class.
    """

    x: int
    y: int
    label: int
    selected: NDArray[np.bool_]
    mask: NDArray[np.int64]


def draw_class_group(raters: ArrayLike, valid: ArrayLike | None, rng: np.random.Generator) -> ClassGroup:
    """Draw a class, a pixel where some rater sees it, and the raters who see the drawn label there.

    With chance 0.8 the class is one of those claimed at a contested pixel (where raters name at least two classes, the
    background among them), else any class that occurs; the pixel is a contested one of that class if there is one. The
    label is the most frequent class there (ties at random) with chance 0.8, else another one that is claimed there.
    The original's ``random_click_multiclass``.

    Args:
        raters: One-hot ``[R, C, S, S]``, bool or 0/1; channel 0 is the background.
        valid: bool ``[R]``, raters that count; None, or nobody valid = all.
        rng: Where chance comes from.

    Returns:
        The group.

    Raises:
        ValueError: For shapes that do not fit.
    """
    hot = np.asarray(raters) > 0.5
    counted = np.ones(len(hot), bool) if valid is None else np.asarray(valid, bool)
    if hot.ndim != 4 or counted.shape != hot.shape[:1]:
        raise ValueError(
            f"raters must be [R, C, S, S] and valid [R], found {list(hot.shape)} and {list(counted.shape)}"
        )
    if not counted.any():
        counted = np.ones(len(hot), bool)
    votes = hot[counted].sum(axis=0)  # [C, S, S]
    contested = (votes > 0).sum(axis=0) >= 2
    present = _classes(votes.any(axis=(1, 2)))
    disputed = _classes((votes > 0)[:, contested].any(axis=1))
    if not present.size:
        y, x = draw_pixel(np.ones(contested.shape, bool), rng)
        return _group(hot, counted, y, x, 0)
    pool = disputed if disputed.size and rng.random() < CONTESTED else present
    where = votes[int(rng.choice(pool))] > 0
    y, x = draw_pixel(where & contested if (where & contested).any() else where, rng)
    return _group(hot, counted, y, x, _draw_label(votes[:, y, x], rng))


def _classes(found: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the classes other than the background."""
    return np.flatnonzero(found[1:]) + 1


def _draw_label(votes: NDArray[np.int_], rng: np.random.Generator) -> int:
    """Draw one of the classes that raters see at a pixel."""
    claimed = _classes(votes > 0)
    best = int(rng.choice(claimed[votes[claimed] == votes[claimed].max()]))
    others = claimed[claimed != best]
    return int(rng.choice(others)) if others.size and rng.random() >= MOST_FREQUENT else best


def _group(hot: NDArray[np.bool_], counted: NDArray[np.bool_], y: int, x: int, label: int) -> ClassGroup:
    """Collect the raters who see the label at the pixel."""
    selected = counted & hot[:, label, y, x]
    return ClassGroup(x, y, label, selected, hot[selected].sum(axis=0).argmax(axis=0))
