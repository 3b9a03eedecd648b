"""From logits to the probability of infection."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
PROBABILITY_FLOOR = 1e-7  # stored probabilities stay this far from 0 and 1, as in the original


def sigmoid(logit: ArrayLike) -> Floats:
    """Return ``1 / (1 + exp(−z))`` without overflow.

    Args:
        logit: Any shape.

    Returns:
        Probabilities in [0, 1].

    Example:
        >>> sigmoid([-800.0, 0.0]).tolist()
        [0.0, 0.5]
    """
    z = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def faithful_sigmoid(logit: ArrayLike) -> Floats:
    """Return ``1 / (1 + exp(−z))`` as written, so that large negative logits become exactly 0.

    Args:
        logit: Any shape.

    Returns:
        Probabilities in [0, 1].

    Example:
        >>> faithful_sigmoid([-745.0, 0.0]).tolist()
        [0.0, 0.5]
    """
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64)))


def infected_logit(logits: ArrayLike) -> Floats:
    """Return the log-odds of class 1 (infected).

    Args:
        logits: ``[N, C]`` with C ≥ 2, or ``[N]`` / ``[N, 1]`` with one logit per frame.

    Returns:
        ``z₁ − log Σ_{c≠1} exp(z_c)``, shape ``[N]``; for two classes the difference of the logits.

    Example:
        >>> infected_logit([[0.5, 2.0]]).tolist()
        [1.5]
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim == 1 or (z.ndim == 2 and z.shape[1] == 1):
        return z.reshape(-1)
    if z.ndim != 2:
        raise ValueError(f"logits must have shape [N], [N, 1] or [N, C], found {z.shape}")
    others = np.delete(z, 1, axis=1)
    return z[:, 1] - (others[:, 0] if others.shape[1] == 1 else np.logaddexp.reduce(others, axis=1))


def logit_of(probability: ArrayLike) -> Floats:
    """Return the log-odds of probabilities, finite also for 0 and 1.

    Args:
        probability: In [0, 1], any shape.

    Returns:
        ``log(p / (1 − p))``.

    Example:
        >>> logit_of([0.5]).tolist()
        [0.0]
    """
    limits = np.finfo(np.float64)
    p = np.clip(np.asarray(probability, dtype=np.float64), limits.tiny, 1.0 - limits.epsneg)
    return np.log(p) - np.log1p(-p)


def faithful_probability(logits: ArrayLike) -> NDArray[np.float32]:
    """Return P(infected) as the original stores it: single-precision softmax, clipped at 1e-7 from 0 and 1.

    Confident frames become ties, so the area under the ROC curve changes.

    Args:
        logits: Shape ``[N, C]`` with C ≥ 2.

    Returns:
        Shape ``[N]``.

    Example:
        >>> faithful_probability([[0.0, 40.0], [0.0, 30.0]]).tolist()
        [0.9999998807907104, 0.9999998807907104]
    """
    z = np.asarray(logits, dtype=np.float32)
    exponential = np.exp(z - z.max(axis=1, keepdims=True))
    return clip_probability(exponential[:, 1] / exponential.sum(axis=1))


def clip_probability(probability: ArrayLike) -> NDArray[np.float32]:
    """Return probabilities in single precision, moved into [1e-7, 1 − 1e-7].

    Args:
        probability: In [0, 1], any shape.

    Returns:
        The same shape.
    """
    floor = np.float32(PROBABILITY_FLOOR)
    return np.clip(np.asarray(probability, dtype=np.float32), floor, np.float32(1) - floor)
