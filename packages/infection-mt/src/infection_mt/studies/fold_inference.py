"""Checkpoints of folds over their own test frames: one inference a fold, whatever is computed from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from infection_mt.config import Config, FramesConfig
from infection_mt.data.dataset import FrameStore
from infection_mt.data.policy import SPECIAL_KEYS, interval_override
from infection_mt.data.prepare import cache_folder, prepare_data
from infection_mt.data.stacks import load_stacks
from infection_mt.inference import predict_table
from infection_mt.models.checkpoint import infer_architecture, load_model
from infection_mt.prediction_table import Predictions
from infection_mt.rescoring import Side
from infection_mt.studies.run_folders import Fold, checkpoint_settings
from medshared.configuration import load_config, load_yaml_or_json, merge_mappings
from medshared.gpu import select_device
from medshared.weights import extract_state_dict, load_checkpoint

logger = logging.getLogger(__name__)


def folds_config(folds: Sequence[Fold], file: Path | None, k_folds: int | None = None) -> Config:
    """Return the configuration that the checkpoints' frames are chosen by.

    Args:
        folds: Checkpoints.
        file: A configuration; None takes the one stored in the first checkpoint.
        k_folds: Number of folds the data are divided into; None takes the configuration's, or the number of
            checkpoints when that says one.

    Raises:
        FileNotFoundError: No file is given and the checkpoint stores no configuration.
    """
    stored = checkpoint_settings(folds[0].path)
    if file is None and not stored:
        raise FileNotFoundError(f"{folds[0].path}: stores no configuration; give --config")
    given = load_yaml_or_json(file) if file is not None else dict(stored)
    task = infer_architecture(extract_state_dict(load_checkpoint(folds[0].path))).task
    # The original's classifiers need not name their task, and their windows alone say which frames are infected.
    defaults = {"multitask": {"pre_onset": "keep"}} if task == "classification" else {}
    settings = merge_mappings(merge_mappings(defaults, given), {"task": {"type": task}})
    config = load_config(Config, settings).resolved()
    if k_folds is not None:
        config.cv.num_folds, config.training.k_folds = k_folds, None
    elif config.cv.num_folds == 1 and len(folds) > 1:
        config.cv.num_folds, config.training.k_folds = len(folds), None
    return config


def with_test_hours(config: Config, start: float, end: float) -> Config:
    """Return the configuration with infected test frames from a range of hours, whatever training saw."""
    frames = config.data.frames
    given = frames.model_dump(exclude_unset=True) if frames is not None else {}
    given = {key: value for key, value in given.items() if value is not None or key not in SPECIAL_KEYS}
    copy = config.model_copy(deep=True)
    # A section of its own would otherwise lose what val and test inherit from `train`.
    given["test"] = {**(given.get("train") or {}), **(given.get("test") or {})}
    copy.data.frames = FramesConfig.model_validate(interval_override(given, start, end, "test-only"))
    return copy


def predict_folds(
    folds: Sequence[Fold], config: Config, *, split: Side = "test", device: str = "auto"
) -> dict[int, Predictions]:
    """Run every checkpoint over one side of its own fold.

    Args:
        folds: Checkpoints; number 0 stands for the single split.
        config: Gives data, split and transforms.
        split: Side of the fold.
        device: As in :func:`medshared.gpu.select_device`.

    Returns:
        Predictions by fold number.
    """
    chosen = select_device(device)
    stacks = load_stacks(config.data, cache_folder(config))
    store = FrameStore(stacks, config.data, cache_folder(config))
    found: dict[int, Predictions] = {}
    for fold in folds:
        index = fold.index if config.cv.num_folds > 1 else None
        data = prepare_data(config, fold_index=index, stacks=stacks, store=store)
        model, _ = load_model(fold.path)
        found[fold.number] = predict_table(
            model.to(chosen),
            data.tables[split],
            store,
            config,
            device=chosen,
            batch_size=config.data.batch_size * config.data.eval_batch_size_multiplier,
        )
        logger.info("fold %d: %d frames of %s", fold.number, len(found[fold.number]), fold.path)
    return found
