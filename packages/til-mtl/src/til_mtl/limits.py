"""How many batches, how long, and when to validate: the meaning of Lightning's limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from til_mtl.errors import TrainingError

if TYPE_CHECKING:
    from til_mtl.config import Config


def limited(n: int, limit: float | int) -> int:
    """Return how many of n batches a limit leaves.

    Args:
        n: Batches there are.
        limit: A float up to 1.0 is a share, anything else a count.
    """
    if isinstance(limit, float) and limit <= 1.0:
        return int(n * limit) if limit < 1.0 else n
    return min(n, int(limit))


def batches_left(config: Config, name: str, n: int) -> int:
    """Return how many batches of a set the configuration leaves.

    Args:
        config: Gives ``fast_dev_run``, ``overfit_batches`` and ``limit_<set>_batches``.
        name: ``train``, ``val`` or ``test``.
        n: Batches of the set.

    Raises:
        TrainingError: A share leaves none of them; a limit of 0 asks for that.
    """
    if config.fast_dev_run:
        return min(n, int(config.fast_dev_run))
    overfit = config.overfit_batches and name != "test"
    key = "overfit_batches" if overfit else f"limit_{name}_batches"
    left = limited(n, getattr(config, key))
    if not left and getattr(config, key):
        raise TrainingError(
            f"{key}: {getattr(config, key)} of {n} {name} batches is less than one; give a count or a larger share"
        )
    return left


def parse_duration(text: str) -> float:
    """Return the seconds of ``DD:HH:MM:SS``.

    Raises:
        ValueError: The text is not of that form.
    """
    if not re.fullmatch(r"\d+:\d+:\d+:\d+", text):
        raise ValueError(f"max_time: expected DD:HH:MM:SS such as 00:12:00:00, found {text!r}")
    days, hours, minutes, seconds = (int(part) for part in text.split(":"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def validation_points(config: Config, total: int, epoch: int) -> frozenset[int]:
    """Return after which batches (1-based) of an epoch the validation set is scored.

    Args:
        config: Gives ``check_val_every_n_epoch`` and ``val_check_interval``.
        total: Batches of the epoch.
        epoch: 0-based.
    """
    if (epoch + 1) % config.check_val_every_n_epoch and not config.fast_dev_run:
        return frozenset()
    every = max(limited(total, config.val_check_interval), 1)
    if every >= total:
        return frozenset({total})
    return frozenset(range(every, total + 1, every))
