"""Pages made ready for the eye; never for the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def display_image(page: ArrayLike) -> NDArray[np.float64]:
    """Scale a page for showing: percentiles 1 and 99 become 0 and 1, values beyond them are cut.

    Args:
        page: Intensities, shape ``[H, W]``.

    Returns:
        Shape ``[H, W]`` in [0, 1]; zeros for a constant page.

    Example:
        >>> display_image([[5, 5], [5, 5]]).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    x = np.asarray(page, dtype=np.float64)
    low, high = np.percentile(x, [1, 99])
    if not high > low:
        return np.zeros_like(x)
    return np.clip((x - low) / (high - low), 0.0, 1.0)
