"""A trained run scored again: on its own test set, on another of its sides, or on other data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.confounding import confounding
from infection_mt.data.dataset import FrameStore
from infection_mt.data.policy import resolve_policy
from infection_mt.data.prepare import cache_folder, prepare_data, time_settings
from infection_mt.data.stacks import load_stacks
from infection_mt.data.table import FrameTable, build_table
from infection_mt.inference import predict_table, time_scale
from infection_mt.models.checkpoint import load_model
from infection_mt.reporting import assess
from medshared.files import read_json, write_json
from medshared.gpu import select_device

logger = logging.getLogger(__name__)
Side = Literal["train", "val", "test"]


def load_run(run: Path) -> tuple[Config, dict[str, Any]]:
    """Return a finished run's configuration and results.

    Raises:
        FileNotFoundError: The folder holds no finished run.
    """
    if not (run / "results.json").exists():
        raise FileNotFoundError(
            f"{run}: no results.json; this is no finished run (resume it, or name another)"
        )
    results = read_json(run / "results.json")
    return Config.model_validate(results["config"]), results


def side_of_run(
    config: Config, split: Side, fold_index: int | None
) -> tuple[FrameTable, FrameStore, list[str]]:
    """Return the frames of one side of a run, their store, and what must be known of the data."""
    data = prepare_data(config, fold_index=fold_index)
    return data.tables[split], data.store, list(data.warnings)


def other_data(config: Config, source: dict[str, Any]) -> tuple[FrameTable, FrameStore, list[str]]:
    """Return all frames of other stacks, chosen by the run's test policy.

    Args:
        config: Of the run.
        source: ``manifest``, or ``infected_dir`` and ``uninfected_dir``.
    """
    names = {"manifest": None, "infected_dir": None, "uninfected_dir": None}
    plain = config.model_dump(mode="python")
    plain["data"] = {**plain["data"], **names, **source}
    config = Config.model_validate(plain)
    stacks = load_stacks(config.data, cache_folder(config))
    frames = config.data.frames.model_dump(exclude_unset=True) if config.data.frames is not None else None
    table = build_table(
        stacks,
        resolve_policy(frames, "test"),
        pre_onset=config.multitask.pre_onset or "exclude",
        onset_hour=time_settings(config).onset_hour,
        faithful=config.faithful,
    )
    return table, FrameStore(stacks, config.data, cache_folder(config)), confounding(stacks)


def rescore(
    run: Path,
    output: Path,
    *,
    manifest: Path | None = None,
    folders: tuple[Path, Path] | None = None,
    split: Side = "test",
    device: str = "auto",
) -> dict[str, Any]:
    """Score ``checkpoints/best.pt`` of a run and write predictions and ``results.json`` into ``output``.

    Args:
        run: Finished run directory.
        output: Receives ``test_predictions.npz``, ``test_metadata.jsonl``, ``results.json``.
        manifest: Other data, by manifest.
        folders: Other data, by infected and uninfected folder.
        split: Side of the run's own data.
        device: As in :func:`medshared.gpu.select_device`.
    """
    config, trained = load_run(run)
    config = config.resolved()
    if manifest is not None:
        table, store, warnings = other_data(config, {"manifest": manifest})
    elif folders is not None:
        table, store, warnings = other_data(
            config, {"infected_dir": folders[0], "uninfected_dir": folders[1]}
        )
    else:
        table, store, warnings = side_of_run(config, split, trained.get("fold_index"))
    chosen = select_device(device)
    model, _ = load_model(run / "checkpoints" / "best.pt")
    predictions = predict_table(
        model.to(chosen),
        table,
        store,
        config,
        device=chosen,
        batch_size=config.data.batch_size * config.data.eval_batch_size_multiplier,
    )
    predictions.save(output)
    scale = time_scale(config, predictions)
    results = {
        "run": str(run),
        "data": str(manifest or folders or split),
        "frames": len(table),
        "threshold": trained.get("threshold", 0.5),
        **assess(predictions, config, scale, trained.get("threshold", 0.5)),
        "warnings": warnings,
    }
    write_json(output / "results.json", results)
    logger.info(evaluation.format_metrics(split, results["test_metrics"]))
    return results
