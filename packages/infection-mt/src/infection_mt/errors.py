"""Errors that the command line turns into one line and an exit code."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""
