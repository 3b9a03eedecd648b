"""Where a run is, and whether a saved state belongs to the run that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advmil.config import Config
from advmil.errors import TrainingError

# Keys that may differ when a run is resumed: they change none of its numbers.
FREE = frozenset(
    (
        "save_path",
        "device",
        "cuda_id",
        "logger",
        "wandb_dir",
        "wandb_prj",
        "num_workers",
        "cache_features_gb",
        "es_verbose",
        "log_plot",
        "save_prediction",
    )
)


@dataclass
class Progress:
    """Where a run is; saved with every ``last.pt``."""

    epoch: int = 0  # finished epochs
    group: int = 0  # finished groups of the epoch under way
    updates: int = 0  # finished groups of all epochs
    best_epoch: int = 0  # 1-based; 0 = none yet
    stopped: bool = False  # early stopping has ended the run
    patients: list[str] = field(default_factory=list)  # seen in the epoch under way
    outputs: list[list[float]] = field(default_factory=list)  # their predictions
    scores: list[float] = field(default_factory=list)  # the discriminator's view of them
    sums: dict[str, float] = field(default_factory=dict)  # of the logged losses over groups
    counts: dict[str, int] = field(default_factory=dict)

    def end_epoch(self) -> dict[str, float]:
        """Return the mean of each logged loss over the groups and forget what belongs to the epoch."""
        means = {key: self.sums[key] / self.counts[key] for key in self.sums}
        self.group, self.patients, self.outputs, self.scores = 0, [], [], []
        self.sums, self.counts = {}, {}
        return means


def check_same_run(folder: Path, saved: Mapping[str, Any], config: Config) -> None:
    """Refuse to continue a run under settings that would change its course.

    Args:
        folder: Run directory, for the message.
        saved: Configuration of the saved state.
        config: The one that is asked for.

    Raises:
        TrainingError: Naming the keys that differ.
    """
    now = config.model_dump()
    before = {"draws": "stream", **saved}  # a key younger than some runs
    changed = sorted(key for key in now if key not in FREE and before.get(key) != now[key])
    if changed:
        raise TrainingError(
            f"{folder}: cannot resume, {', '.join(changed)} differ from the saved run; start a new run, "
            "or resume with the run's own config.yaml"
        )
