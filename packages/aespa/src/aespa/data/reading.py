"""Image and mask files → arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aespa.data.records import Record


def read_sample(record: Record) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the image, the masks, and which raters outlined it."""
    raise NotImplementedError
