"""Where a run's numbers go besides its own ``metrics.csv``: TensorBoard or Weights & Biases, when asked."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

LoggerKind = Literal["csv", "tensorboard", "wandb"]


class MetricLogger(Protocol):
    """Receives one row of numbers an epoch."""

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Record the finite numbers of ``row`` at ``step``."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class _Nothing:
    """The CSV case: the run directory writes ``metrics.csv`` itself."""

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("--logger tensorboard needs the package: pip install tensorboard") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Write one scalar a number."""
        for name, value in _numbers(row).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("--logger wandb needs the package: pip install wandb") from error
        # Nothing leaves the machine unless the user has said so.
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(project=project, dir=str(folder), config=dict(config), mode=mode)

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Send one row."""
        self._run.log(_numbers(row), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_logger(
    kind: LoggerKind, folder: Path, *, project: str, config: Mapping[str, Any] | None = None
) -> MetricLogger:
    """Open a metric logger.

    Args:
        kind: ``csv`` (nothing beyond the run directory's own table), ``tensorboard`` or ``wandb`` (offline
            unless the environment variable ``WANDB_MODE`` says otherwise).
        folder: The run directory.
        project: Project name for Weights & Biases.
        config: Resolved configuration, recorded by Weights & Biases.

    Raises:
        ImportError: The logger's package is not installed.
    """
    if kind == "tensorboard":
        return _TensorBoard(folder)
    if kind == "wandb":
        return _WeightsAndBiases(folder, project, config or {})
    return _Nothing()


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
