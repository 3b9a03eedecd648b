"""What a run's checkpoints hold: the keys of the original's files, and what an exact continuation needs besides.

The original's files are Lightning's: ``state_dict`` with the prefix ``net.``, ``epoch`` and ``global_step`` (both
0-based), ``optimizer_states``, ``lr_schedulers``. Ours have the same keys; ``best.pt`` and its twin under the
original's name leave the optimiser out.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.checkpoints import load_checkpoint
from medshared.distributed import restore_shared_rng
from medshared.gpu import capture_rng
from til_mtl.config import Config
from til_mtl.errors import CheckpointError

if TYPE_CHECKING:
    from til_mtl.trainer import Trainer

logger = logging.getLogger(__name__)

# Keys of the configuration that change a run's course: a continued run must have the same ones.
_COURSE = (
    *(
        "task",
        "faithful",
        "seed_everything",
        "fold_seg",
        "fold_det",
        "seed",
        "val_split",
        "test_split",
        "img_size",
    ),
    *("mask_resample", "normalize", "augment", "batch_size", "sampling", "shuffle", "drop_last", "encoder"),
    *("freeze_encoder", "freeze_until", "freeze_bn", "aspp_rates", "num_classes_seg", "num_classes_det"),
    *("loss_weights", "balancing", "exact_labels", "det_dice", "lr", "weight_decay", "t_max"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "monitor"),
    *("limit_train_batches", "overfit_batches", "epoch_values", "froc"),
)


@dataclass
class Progress:
    """Where a run is; saved with every ``last.pt``."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch under way
    global_step: int = 0  # optimiser steps
    best_value: float = math.nan
    best_epoch: int = -1
    best_step: int = 0
    seconds: float = 0.0  # of training so far, over all sessions of the run


def plain_config(config: Config) -> dict[str, Any]:
    """Return the configuration as plain values."""
    return config.model_dump(mode="json")


def _weights(trainer: Trainer) -> dict[str, Any]:
    return {f"net.{key}": value for key, value in trainer.network.state_dict().items()}


def best_state(trainer: Trainer, validated: Mapping[str, float]) -> dict[str, Any]:
    """Return what ``best.pt`` holds."""
    return {
        "epoch": trainer.progress.epoch,
        "global_step": trainer.progress.global_step - 1,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": _weights(trainer),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [{"last_epoch": trainer.progress.epoch}],
        "config": plain_config(trainer.config),
        "val_metrics": {key: float(value) for key, value in validated.items()},
    }


def complete_state(trainer: Trainer) -> dict[str, Any]:
    """Return what ``last.pt`` holds."""
    scaler = getattr(trainer.fabric.strategy.precision, "scaler", None)
    return best_state(trainer, {}) | {
        "optimizer_states": [trainer.optimizer.state_dict()],
        "scaler_state": scaler.state_dict() if scaler is not None else {},
        "weighting_state": trainer.weighting.state_dict() if trainer.weighting is not None else {},
        "progress": asdict(trainer.progress),
        "values": trainer.values.state(),
        "rng": capture_rng(),
        "metrics_rows": len(trainer.run.metrics_rows),
    }


def link_original_name(best: Path, epoch: int, last_step: int) -> Path:
    """Give the best checkpoint its name in the original too, and remove that of the best one before.

    Args:
        best: ``checkpoints/best.pt``.
        epoch: 0-based epoch.
        last_step: 0-based step of the last update.
    """
    target = best.with_name(f"epoch={epoch}-step={last_step}.ckpt")
    for older in best.parent.glob("epoch=*-step=*.ckpt"):
        older.unlink()
    try:
        os.link(best, target)
    except OSError:  # a file system without links
        shutil.copyfile(best, target)
    return target


def restore_state(trainer: Trainer, path: Path) -> None:
    """Put a trainer where a checkpoint says.

    Args:
        trainer: Not yet started.
        path: ``last.pt`` of this package, or a checkpoint of the original.

    Raises:
        CheckpointError: The file cannot continue this run.
    """
    state = load_checkpoint(path)
    if not isinstance(state, dict) or not state.get("optimizer_states"):
        raise CheckpointError(
            f"{path}: holds no optimiser state to continue from; give checkpoints/last.pt of a run (best.pt and "
            "epoch=…ckpt of this package are for evaluation and prediction)"
        )
    if "config" in state:
        _check_course(path, state["config"], plain_config(trainer.config))
    weights = {str(key).removeprefix("net."): value for key, value in state["state_dict"].items()}
    try:
        trainer.network.load_state_dict(weights)
        trainer.optimizer.load_state_dict(_optimizer_state(trainer, state))
    except (RuntimeError, ValueError) as error:
        message = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: belongs to another network or task than {trainer.config.task}: {message}"
        ) from error
    if "progress" not in state:  # the original's: it was written at the end of an epoch
        trainer.progress = Progress(*_finished(state))
        logger.warning("%s: a checkpoint of the original; data order and random numbers start afresh", path)
        return
    scaler = getattr(trainer.fabric.strategy.precision, "scaler", None)
    if scaler is not None and state["scaler_state"]:
        scaler.load_state_dict(state["scaler_state"])
    if trainer.weighting is not None and state["weighting_state"]:
        trainer.weighting.load_state_dict(state["weighting_state"])
    trainer.progress = Progress(**state["progress"])
    trainer.values.load_state(state["values"])
    if path.resolve().parent == trainer.run.checkpoints.resolve():
        trainer.run.truncate_metrics(int(state["metrics_rows"]))
    elif not trainer.run.has_checkpoint("best"):  # the best weights so far stayed in the other run's folder
        trainer.progress.best_value = math.nan
    restore_shared_rng(state["rng"])


def _finished(state: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return epochs, batches of the next epoch, and steps that a checkpoint of the original has behind it.

    Lightning 1.5 names files by the last epoch and step, from 0, but stores how many there were; other versions
    store the numbers of the name. What the optimiser counted tells them apart.
    """
    moments = state["optimizer_states"][0]["state"].values()
    steps = max((int(moment["step"]) for moment in moments), default=int(state["global_step"]))
    named = int(state["global_step"]) < steps
    return int(state["epoch"]) + named, 0, steps


def _optimizer_state(trainer: Trainer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this trainer's Adam takes of a checkpoint.

    The original gives Adam all parameters of the network, this package only those that are trained.

    Raises:
        ValueError: The number of parameters is that of neither.
    """
    saved = state["optimizer_states"][0]
    if "progress" in state:
        return saved
    parameters = list(trainer.network.parameters())
    trained = [index for index, each in enumerate(parameters) if each.requires_grad]
    n = sum(len(group["params"]) for group in saved["param_groups"])
    if n not in (len(parameters), len(trained)):
        raise ValueError(f"its optimiser has {n} parameters, the network {len(parameters)}")
    rows = trained if n == len(parameters) else range(n)
    own = trainer.optimizer.state_dict()
    moments = {new: saved["state"][old] for new, old in enumerate(rows) if old in saved["state"]}
    # Rate and decay are this run's.
    return {"state": moments, "param_groups": own["param_groups"]}


def _check_course(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [key for key in _COURSE if saved.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key}: {saved.get(key)!r} then, {now.get(key)!r} now" for key in changed)
        raise CheckpointError(
            f"{path}: cannot resume under other settings ({listed}); resume with the run's own config.yaml, "
            "or start a new run"
        )
