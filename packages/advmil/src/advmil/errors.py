"""Errors that a user meets by name."""

from __future__ import annotations


class DataError(ValueError):
    """Input data cannot be used as it is; the message names the file, the row or key, and the mend."""


class TrainingError(RuntimeError):
    """Training cannot go on."""


# What a broken slide, file or table of one item raises: a batch records its message and goes on.
ITEM_ERRORS = (OSError, ValueError, RuntimeError, KeyError, MemoryError)
