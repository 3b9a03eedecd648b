"""Grids: every key whose value is a list is an axis, one run for each combination (``--multi_run``)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medshared.configuration import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridRun:
    """One combination.

    Attributes:
        config: The configuration with a single value for every key and its own ``save_path``.
        point: The values of the axes, in the order of the file.
    """

    config: dict[str, Any]
    point: dict[str, Any]


def point_suffix(point: Mapping[str, Any]) -> str:
    """Return what a run's ``save_path`` gets: ``-<key>_<value>`` for every axis; paths stay in one folder."""
    return "".join(f"-{name}_{value}".replace("/", "_") for name, value in point.items())


def expand_grid(
    mapping: Mapping[str, Any], *, multi_run: bool, label: str = "configuration"
) -> list[GridRun]:
    """Expand the keys that hold lists.

    The order is the original's: with two axes the first key of the file varies slowest; with more, the last key
    varies slowest and the second fastest.

    Args:
        mapping: The file's content.
        multi_run: Whether all combinations are wanted; without it, only the first value of each list is used.
        label: What messages call the configuration.

    Returns:
        At least one run. ``save_path`` gets ``-<key>_<value>`` for every axis, in the order of the file.

    Raises:
        ConfigError: A list is empty, so that the grid has no run.
    """
    axes = {key: value for key, value in mapping.items() if isinstance(value, list)}
    empty = [
        f"{label}: key {key!r}: the list is empty, so the grid has no run" for key in axes if not axes[key]
    ]
    if empty:
        raise ConfigError(empty)
    if not multi_run:
        for key, values in axes.items():
            if len(values) > 1:
                logger.warning(
                    "%s: key %r holds %d values; only the first, %r, is used without --multi_run",
                    label,
                    key,
                    len(values),
                    values[0],
                )
        return [GridRun(dict(mapping) | {key: values[0] for key, values in axes.items()}, {})]
    names = list(axes)
    slowest_first = [*reversed(names[2:]), *names[:2]]
    runs = []
    for values in itertools.product(*(axes[name] for name in slowest_first)):
        chosen = dict(zip(slowest_first, values, strict=True))
        point = {name: chosen[name] for name in names}
        suffix = point_suffix(point)
        config = dict(mapping) | point
        config["save_path"] = f"{mapping.get('save_path') or './results-adv/run'}{suffix}"
        runs.append(GridRun(config, point))
    return runs
