"""Errors that the command line turns into one line and an exit code."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


class RunInterruptedError(RuntimeError):
    """A signal asked the run to stop; its state was saved and ``--resume`` continues it."""
