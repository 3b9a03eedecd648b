"""From a configuration to the three tables of one run (or of one fold), with everything checked before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infection_mt.config import ClampRange, Config
from infection_mt.data.confounding import confounding
from infection_mt.data.dataset import FrameStore
from infection_mt.data.policy import resolve_policy
from infection_mt.data.splits import Split, make_split
from infection_mt.data.stacks import Stack, load_stacks
from infection_mt.data.table import FrameTable, build_table
from infection_mt.targets import single_task_targets, time_targets

logger = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TimeSettings:
    """Which time targets a run uses."""

    onset_hour: float
    clamp_range: ClampRange
    target_class: int | None  # 1 infected, 0 uninfected, None both


@dataclass(frozen=True)
class RunData:
    """All that one run reads.

    Attributes:
        split: The stacks of each side.
        tables: Frame tables under ``train``, ``val`` and ``test``.
        store: Prepared frames of all stacks.
        warnings: What a reader of the results must know of the data (confounding, overlap, windows).
    """

    split: Split
    tables: Mapping[str, FrameTable]
    store: FrameStore
    warnings: tuple[str, ...]


def time_settings(config: Config) -> TimeSettings:
    """Return the onset, clamp and class filter of a run's time targets."""
    if config.task.type == "regression" and config.regression is not None:
        r = config.regression
        return TimeSettings(r.infection_onset_hour, r.clamp_range, r.target_class)
    m = config.multitask
    only = {"both": None, "infected": 1, "uninfected": 0}[m.regression_on]
    return TimeSettings(m.infection_onset_hour, m.clamp_range, only)


def table_targets(config: Config, table: FrameTable) -> NDArray[np.float32]:
    """Return the time targets in hours, [N], of a table's frames."""
    infected = table.infected()
    if config.task.regression is not None:
        return single_task_targets(table.hours, infected, config.task.regression)
    return time_targets(table.hours, infected, table.onset, time_settings(config).clamp_range)


def prepare_data(
    config: Config,
    *,
    fold_index: int | None = None,
    stacks: list[Stack] | None = None,
    store: FrameStore | None = None,
) -> RunData:
    """Scan, split, select frames, prepare them, and check that every chosen one can be used.

    Args:
        config: Resolved configuration.
        fold_index: Fold of ``cv.num_folds``; None for the single split.
        stacks: Already scanned stacks, so that folds do not scan again.
        store: Already opened store over the same stacks.

    Raises:
        ValueError: A split is empty or divides a group; the message says which and what to change.
        medshared.images.StackError: Naming the stacks or chosen pages that cannot be used.
    """
    config = config.resolved()
    stacks = stacks if stacks is not None else load_stacks(config.data, cache_folder(config))
    split = make_split(stacks, config, fold_index=fold_index, cache_dir=cache_folder(config))
    frames = config.data.frames.model_dump(exclude_unset=True) if config.data.frames is not None else None
    settings = time_settings(config)
    tables: dict[str, FrameTable] = {}
    for name in SPLITS:
        table = build_table(
            split.sides()[name],
            resolve_policy(frames, name),
            pre_onset=config.multitask.pre_onset or "exclude",
            onset_hour=settings.onset_hour,
            faithful=config.faithful,
        )
        if config.task.type == "regression" and settings.target_class is not None:
            # The original loads both classes and throws half of every batch away.
            table = table.subset(table.infected() == bool(settings.target_class))
        if len(table) == 0:
            raise ValueError(
                f"data.frames: no frame of the {len(split.sides()[name])} {name} stacks falls into the chosen windows "
                f"({resolve_policy(frames, name).summary()}); widen the windows or check frames_per_hour"
            )
        tables[name] = table
    if store is None:
        store = FrameStore(stacks, config.data, cache_folder(config))
    store.check(list(tables.values()))
    warnings = (*confounding(stacks), *split.warnings)
    return RunData(split, tables, store, warnings)


def cache_folder(config: Config) -> Path:
    """Return where prepared frames are kept."""
    return config.data.cache_dir or config.output_dir / "frame_cache"


def plain_config(config: Config) -> dict[str, Any]:
    """Return the configuration as plain values for ``config.yaml``, ``results.json`` and checkpoints."""
    return config.model_dump(mode="json")
