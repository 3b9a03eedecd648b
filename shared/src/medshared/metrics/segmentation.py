"""Overlap of label maps: from one confusion matrix that may be summed over any number of images, or mask by mask."""

from __future__ import annotations

from typing import Literal, NamedTuple

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


class Overlap(NamedTuple):
    """How two masks overlap.

    Attributes:
        dice: ``2·tp / (2·tp + fp + fn)``.
        precision: ``tp / (tp + fp)``; NaN when nothing was predicted.
        recall: ``tp / (tp + fn)``; NaN when there is nothing to find.
        tp: Voxels of both.
        fp: Voxels of the prediction only.
        fn: Voxels of the truth only.
        prediction_voxels: ``tp + fp``.
        truth_voxels: ``tp + fn``.
    """

    dice: float
    precision: float
    recall: float
    tp: int
    fp: int
    fn: int
    prediction_voxels: int
    truth_voxels: int


def overlap(prediction: ArrayLike, truth: ArrayLike, empty_value: float = 1.0) -> Overlap:
    """Compare two masks.

    Args:
        prediction: Booleans, or 0 and 1, any shape.
        truth: Same shape.
        empty_value: Dice when both are empty.

    Returns:
        Dice, precision, recall and the counts that they come from.

    Raises:
        ValueError: For shapes that differ, and values other than 0 and 1.

    Example:
        >>> overlap([1, 1, 0, 0], [1, 0, 1, 0])[:3]
        (0.5, 0.5, 0.5)
    """
    p, t = two_masks(prediction, truth)
    n_p, n_t, tp = int(np.count_nonzero(p)), int(np.count_nonzero(t)), int(np.count_nonzero(p & t))
    return Overlap(
        dice=2 * tp / (n_p + n_t) if n_p + n_t else float(empty_value),
        precision=tp / n_p if n_p else float("nan"),
        recall=tp / n_t if n_t else float("nan"),
        tp=tp,
        fp=n_p - tp,
        fn=n_t - tp,
        prediction_voxels=n_p,
        truth_voxels=n_t,
    )


class LesionRecall(NamedTuple):
    """How many lesions were found.

    Attributes:
        n: Lesions of the truth.
        found: Those that the prediction covers far enough.
        recall: ``found / n``; NaN when there are none.
    """

    n: int
    found: int
    recall: float


def lesion_recall(
    prediction: ArrayLike, truth: ArrayLike, min_overlap: float = 0.0, connectivity: Literal[6, 26] = 26
) -> LesionRecall:
    """Count the lesions of the truth that the prediction touches, or covers to a share.

    A lesion is a connected component of the truth; the prediction is taken as it is, not by components, so that one
    blob may find several lesions.

    Args:
        prediction: Booleans, or 0 and 1, ``[X, Y, Z]``.
        truth: Same shape.
        min_overlap: Share of a lesion's voxels that must be predicted, in [0, 1]; 0 = one voxel suffices.
        connectivity: Which voxels hang together: 26 = also over edges and corners, 6 = over faces only.

    Returns:
        Number of lesions, of found ones, and their ratio.

    Raises:
        ValueError: For shapes that differ or have not three axes, and other connectivities.
    """
    from scipy.ndimage import generate_binary_structure, label

    p, t = two_masks(prediction, truth)
    if t.ndim != 3:
        raise ValueError(f"lesions need three axes, found shape {list(t.shape)}")
    if connectivity not in (6, 26):
        raise ValueError(f"connectivity must be 6 or 26, found {connectivity!r}")
    lesions, n = label(t, generate_binary_structure(3, 3 if connectivity == 26 else 1))  # type: ignore[misc]
    sizes = np.bincount(lesions.ravel(), minlength=n + 1)[1:]
    hits = np.bincount(lesions[p], minlength=n + 1)[1:]
    found = int(np.count_nonzero((hits > 0) & (hits >= min_overlap * sizes)))
    return LesionRecall(int(n), found, found / n if n else float("nan"))


def two_masks(prediction: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both masks as booleans.

    Args:
        prediction: Booleans, or 0 and 1.
        truth: Same shape.

    Raises:
        ValueError: For shapes that differ, and other values.
    """
    masks = []
    for name, mask in (("prediction", np.asarray(prediction)), ("truth", np.asarray(truth))):
        as_bool = mask.astype(bool, copy=False)
        if mask.dtype != bool and not np.array_equal(as_bool, mask):
            raise ValueError(f"{name} must hold only 0 and 1; compare with a threshold or a label first")
        masks.append(as_bool)
    p, t = masks
    if p.shape != t.shape:
        raise ValueError(
            f"prediction and truth must have one shape, found {list(p.shape)} and {list(t.shape)}"
        )
    return p, t
