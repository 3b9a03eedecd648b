"""Errors that a user meets by name."""

from __future__ import annotations


class DataError(ValueError):
    """Input data cannot be used as it is; the message names the file, the row or key, and the mend."""


class CheckpointError(DataError):
    """A weight file cannot be used: damaged, of another network, or of another image size."""


class TrainingError(RuntimeError):
    """Training cannot go on."""
