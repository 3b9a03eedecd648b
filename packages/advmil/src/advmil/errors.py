"""Errors that a user meets by name."""

from __future__ import annotations


class DataError(ValueError):
    """Input data cannot be used as it is; the message names the file, the row or key, and the mend."""


class TrainingError(RuntimeError):
    """Training cannot go on."""
