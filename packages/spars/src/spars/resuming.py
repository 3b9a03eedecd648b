"""Going on with a stopped run: its last checkpoint, if it is of a run with the same settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from medshared.runs import RunDirectory
from medshared.weights import WeightsError
from spars.config import ClassifierConfig, GameConfig
from spars.errors import CheckpointError

logger = logging.getLogger(__name__)


def load_last(
    run: RunDirectory, config: ClassifierConfig | GameConfig, course: Sequence[str]
) -> dict[str, Any] | None:
    """Return the state of ``last.pt``, which holds its configuration under ``config``.

    Args:
        run: Run directory.
        config: Of the run that goes on, resolved.
        course: Keys that change a run's course: both must have the same ones.

    Returns:
        The state; null where there is none, and the run starts at its beginning.

    Raises:
        CheckpointError: The file cannot be read, or is of a run with other settings.
    """
    if not run.has_checkpoint("last"):
        logger.warning("%s: nothing to resume, the run starts at its beginning", run.path)
        return None
    try:
        state = run.load_checkpoint("last")
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    then, now = state["config"], config.model_dump(mode="json")
    changed = [key for key in course if then.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key}: {then.get(key)!r} then, {now[key]!r} now" for key in changed)
        raise CheckpointError(
            f"{run.checkpoint_path('last')}: cannot resume under other settings ({listed}); resume with the run's own "
            "config.yaml, or start a new run"
        )
    return state
