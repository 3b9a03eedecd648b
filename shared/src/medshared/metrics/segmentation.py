"""Overlap of label maps, from one confusion matrix that may be summed over any number of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion_matrix(
    prediction: ArrayLike, truth: ArrayLike, n_classes: int, *, ignore: int | None = None
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        prediction: Whole numbers in ``[0, n_classes)``, any shape.
        truth: Same shape; also ``ignore``.
        n_classes: Number of classes C.
        ignore: Label of pixels without truth, which are left out whatever is predicted there.

    Returns:
        int64 ``[C, C]``: rows are the truth, columns the prediction. Matrices of several images add up.

    Raises:
        ValueError: For shapes that differ and labels out of range, naming the labels.

    Example:
        >>> confusion_matrix([0, 1, 1, 0], [0, 1, 0, 9], 2, ignore=9).tolist()
        [[1, 1], [0, 1]]
    """
    p, t = np.asarray(prediction), np.asarray(truth)
    if p.shape != t.shape:
        raise ValueError(
            f"prediction and truth must have one shape, found {list(p.shape)} and {list(t.shape)}"
        )
    for name, labels in (("prediction", p), ("truth", t)):
        if labels.size and labels.dtype.kind not in "iub":
            raise ValueError(f"{name} must hold whole numbers, found {labels.dtype}")
    if ignore is not None:
        known = t != ignore
        p, t = p[known], t[known]
    for name, labels in (("prediction", p), ("truth", t)):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
            wrong = [int(each) for each in np.unique(labels) if not 0 <= each < n_classes]
            raise ValueError(f"{name} must hold labels 0–{n_classes - 1}, found {wrong[:5]}")
    cells = t.ravel().astype(np.int64) * n_classes + p.ravel()
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def dice_from_confusion(confusion: ArrayLike) -> NDArray[np.float64]:
    """Dice coefficient of every class, ``2·|A∩B| / (|A| + |B|)``.

    Args:
        confusion: ``[C, C]``, rows are the truth and columns the prediction.

    Returns:
        float64 ``[C]`` in [0, 1]; NaN for a class that neither truth nor prediction has.

    Example:
        >>> dice_from_confusion([[1, 1, 0], [0, 1, 0], [0, 0, 0]]).round(3).tolist()
        [0.667, 0.667, nan]
    """
    counts = np.asarray(confusion, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix must be square, found shape {list(counts.shape)}")
    size = counts.sum(axis=0) + counts.sum(axis=1)
    return np.divide(2 * np.diag(counts), size, out=np.full(len(counts), np.nan), where=size > 0)
