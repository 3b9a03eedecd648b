"""Trained weights on new stacks: a table of frames, curves of wells, a picture of the plate.

Each stack is one unit of work with one file of its own, written whole or not at all, so that a run that was stopped
goes on where it was and a bad stack stops nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from infection_mt.config import ClampRange, TransformsConfig
from infection_mt.data.frame_cache import find_stack_range, prepare_page
from infection_mt.data.loading import evaluation_batches, normalise
from infection_mt.data.stacks import Stack, parse_name
from infection_mt.models.base import ResNetBase
from infection_mt.models.checkpoint import load_model
from medshared.batch import Task, run_batch, write_batch_report
from medshared.files import read_json, sha256_file, write_json
from medshared.images import StackReader
from medshared.leases import Shard
from medshared.tables import write_table

logger = logging.getLogger(__name__)

COLUMNS = [
    "stack", "condition", "well", "position", "frame_index", "hours_since_start",
    "probability_infected", "probability_std", "time_hours", "time_std", "infected",
]  # fmt: skip
_REAL = ("hours_since_start", "probability_infected", "probability_std", "time_hours", "time_std")


@dataclass(frozen=True)
class PredictionSettings:
    """How new stacks are read and judged.

    Attributes:
        frames_per_hour: Sampling rate of the new stacks.
        stride: Use every stride-th page.
        batch_size: Pages a batch.
        threshold: Decision threshold; None takes the first checkpoint's own (0.5 when it has none).
        layout: Well name → condition, for curves by condition; empty when unknown.
        max_positions: Positions used of each well (drawn with ``seed``); 0 = all.
        seed: Of that draw.
        clamp_range: Limits of predicted hours; None leaves them as predicted.
    """

    frames_per_hour: float = 2.0
    stride: int = 1
    batch_size: int = 32
    threshold: float | None = None
    layout: Mapping[str, str] = field(default_factory=dict)
    max_positions: int = 0
    seed: int = 42
    clamp_range: ClampRange | None = None


@dataclass(frozen=True)
class Ensemble:
    """Models that are averaged, and the preprocessing that they were trained with.

    Attributes:
        models: In evaluation mode on one device.
        transforms: Stored with the checkpoints, so that new frames are prepared like the training frames.
        infected_class: Column of the infected class.
        threshold: Decision threshold of the first checkpoint.
        fingerprint: Hash of all weight files.
        device: Where the models are.
    """

    models: tuple[ResNetBase, ...]
    transforms: TransformsConfig
    infected_class: int
    threshold: float
    fingerprint: str
    device: torch.device


@dataclass(frozen=True)
class PredictionReport:
    """What a prediction run did.

    Attributes:
        table: One row a frame.
        done: Stacks predicted now.
        reused: Stacks whose earlier result was still valid.
        failed: Stack path → reason.
    """

    table: pd.DataFrame
    done: int
    reused: int
    failed: Mapping[str, str]


def load_ensemble(weights: Sequence[Path], device: torch.device) -> Ensemble:
    """Load one checkpoint or several that are averaged.

    Raises:
        medshared.weights.WeightsError: A file is no checkpoint of this package or of the original.
        ValueError: The checkpoints were trained with different preprocessing.
    """
    models, transforms, thresholds, classes = [], [], [], []
    for path in weights:
        model, extras = load_model(path)
        config = extras.get("config") or {}
        data = config.get("data") or {}
        models.append(model.to(device))
        known = {
            k: v for k, v in (data.get("transforms") or {}).items() if k in TransformsConfig.model_fields
        }
        transforms.append(TransformsConfig.model_validate(known))
        classes.append(int(data.get("infected_label", 1)))
        thresholds.append(float(extras.get("threshold", 0.5)))
    for path, other, label in zip(weights, transforms, classes, strict=True):
        if other != transforms[0] or label != classes[0]:
            raise ValueError(
                f"{path}: was trained with other preprocessing than {weights[0]}; only models with the same "
                "data.transforms and labels can be averaged"
            )
    digest = hashlib.sha256("".join(sha256_file(path) for path in weights).encode()).hexdigest()
    return Ensemble(tuple(models), transforms[0], classes[0], thresholds[0], digest, device)


def find_stacks(paths: Iterable[Path]) -> list[Path]:
    """Return the TIFF files among ``paths``, folders being searched one level deep, sorted.

    Raises:
        FileNotFoundError: A path does not exist, or there is no stack.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        found += [item for item in path.glob("*.tif*") if item.is_file()] if path.is_dir() else [path]
    if not found:
        raise FileNotFoundError(f"no *.tif* files in {', '.join(map(str, paths))}")
    return sorted(set(found), key=str)


def predict_stacks(
    paths: Sequence[Path],
    ensemble: Ensemble,
    output: Path,
    settings: PredictionSettings,
    *,
    resume: bool = False,
    shard: Shard | None = None,
) -> PredictionReport:
    """Predict every frame of every stack; a bad stack is recorded and the others go on.

    Several processes may work on one folder, with or without shards; each stack is predicted by one of them.

    Args:
        paths: TIFF stacks.
        ensemble: Models and preprocessing.
        output: Receives ``stacks/*.json`` (one a stack), ``predict-report.json``, ``predictions.csv``, ``wells.csv``,
            ``plate_predictions.json`` and, when any stack failed, ``failed.csv``; of a shard, the first two alone.
        settings: See :class:`PredictionSettings`.
        resume: Reuse results of unchanged stacks, weights and settings.
        shard: The part of the stacks that this process predicts.
    """
    shard = shard or Shard()
    chosen = choose_positions(paths, settings)
    tasks = [_task(path, ensemble, output, settings) for path in chosen]
    outcomes = run_batch("predict", tasks, shard=shard, again=not resume)
    part = "" if shard.count == 1 else f"-{shard.index + 1}-of-{shard.count}"
    write_batch_report(output / f"predict-report{part}.json", outcomes)
    mine = list(zip(shard.select(chosen), shard.select(tasks), outcomes, strict=True))
    # Of a shard, what another process is at work on is no failure: that one will say.
    bad = ("failed", "busy") if shard.count == 1 else ("failed",)
    failed = {str(path): outcome.message for path, _, outcome in mine if outcome.status in bad}
    frames = [_rows(task.output) for _, task, outcome in mine if outcome.status in ("done", "skipped")]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    if shard.count == 1:
        _write_tables(output, table, failed, len(ensemble.models), settings)
    done = sum(outcome.status == "done" for outcome in outcomes)
    return PredictionReport(table, done, sum(o.status == "skipped" for o in outcomes), failed)


def _task(path: Path, ensemble: Ensemble, output: Path, settings: PredictionSettings) -> Task:
    """Return the work on one stack."""
    name = f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}.json"
    record = output / "stacks" / name

    def work() -> str:
        rows = predict_stack(path, ensemble, settings)
        write_json(record, {"columns": COLUMNS, "rows": rows.to_numpy(dtype=object).tolist()})
        return f"{len(rows)} frames"

    return Task(str(path), record, lambda: {"key": _key(path, ensemble, settings), "columns": COLUMNS}, work)


def _rows(record: Path) -> pd.DataFrame:
    """Return the frames of a finished stack; a head that the models lack has no numbers."""
    rows = pd.DataFrame(read_json(record)["rows"], columns=COLUMNS).infer_objects()
    return rows.astype(dict.fromkeys(_REAL, float))


def _write_tables(
    output: Path, table: pd.DataFrame, failed: Mapping[str, str], n_models: int, settings: PredictionSettings
) -> None:
    if failed:
        write_table(
            output / "failed.csv", pd.DataFrame({"stack": list(failed), "reason": list(failed.values())})
        )
    else:
        (output / "failed.csv").unlink(missing_ok=True)
    if len(table):
        write_table(output / "predictions.csv", table)
        wells = well_curves(table)
        write_table(output / "wells.csv", wells)
        write_json(output / "plate_predictions.json", plate_summary(wells, n_models, settings.layout))


def choose_positions(paths: Sequence[Path], settings: PredictionSettings) -> list[Path]:
    """Return the stacks to predict: all, or ``max_positions`` drawn of each well."""
    if settings.max_positions <= 0:
        return list(paths)
    rng = np.random.default_rng(settings.seed)
    wells: dict[str, list[Path]] = {}
    for path in paths:
        wells.setdefault(parse_name(path.name).well or path.stem, []).append(path)
    chosen: list[Path] = []
    for members in wells.values():
        n = min(settings.max_positions, len(members))
        chosen += [members[i] for i in sorted(rng.choice(len(members), n, replace=False))]
    return chosen


@torch.inference_mode()
def predict_stack(path: Path, ensemble: Ensemble, settings: PredictionSettings) -> pd.DataFrame:
    """Predict the frames of one stack, reading one batch of pages at a time.

    Returns:
        One row a frame with the columns :data:`COLUMNS`; the standard deviations are those over models.
    """
    name = parse_name(path.name)
    probabilities: list[np.ndarray] = []
    hours: list[np.ndarray] = []
    with StackReader(path) as reader:
        stack = Stack(path, -1, "", name.position, reader.info.n_pages, name.well)
        limits = find_stack_range(stack, ensemble.transforms)
        indices = np.arange(0, stack.n_frames, max(1, settings.stride))
        for batch in evaluation_batches(len(indices), settings.batch_size):
            pages = [
                prepare_page(reader.page(int(i)), ensemble.transforms, f"{path}: page {i}", limits)
                for i in indices[batch]
            ]
            frames = torch.from_numpy(np.stack(pages))
            frames = frames[:, None] if frames.ndim == 3 else frames.permute(0, 3, 1, 2).contiguous()
            x = normalise(frames.to(ensemble.device), ensemble.transforms)
            outputs = [model.outputs(x) for model in ensemble.models]
            probabilities.append(
                np.stack([_probability(o.logits, ensemble.infected_class, len(batch)) for o in outputs])
            )
            hours.append(np.stack([_hours(o.time, len(batch)) for o in outputs]))
    probability, time = np.concatenate(probabilities, axis=1), np.concatenate(hours, axis=1)
    if settings.clamp_range is not None:
        low, high = settings.clamp_range
        time = np.clip(time, low, high)
    threshold = ensemble.threshold if settings.threshold is None else settings.threshold
    mean = probability.mean(axis=0)
    return pd.DataFrame(
        {
            "stack": path.name,
            "condition": settings.layout.get(name.well or "", ""),
            "well": name.well or "",
            "position": name.position,
            "frame_index": indices,
            "hours_since_start": indices / settings.frames_per_hour,
            "probability_infected": mean,
            "probability_std": probability.std(axis=0),
            "time_hours": time.mean(axis=0),
            "time_std": time.std(axis=0),
            "infected": np.where(np.isnan(mean), -1, mean >= threshold).astype(int),
        },
        columns=COLUMNS,
    )


def well_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over positions for each well and hour."""
    grouped = table.groupby(["well", "condition", "hours_since_start"], sort=True, dropna=False)
    curves = grouped.agg(
        n_positions=("stack", "nunique"),
        probability_mean=("probability_infected", "mean"),
        probability_std=("probability_infected", lambda v: float(np.std(v))),
        time_mean=("time_hours", "mean"),
        time_std=("time_hours", lambda v: float(np.std(v))),
    )
    return curves.reset_index()


def plate_summary(wells: pd.DataFrame, n_models: int, layout: Mapping[str, str]) -> dict[str, Any]:
    """Return the plate file: well → condition, counts and the mean and spread of both outputs over hours."""
    summary = {}
    for well, rows in wells.groupby("well", sort=True):
        summary[str(well) or "unknown"] = {
            "condition": layout.get(str(well), ""),
            "n_positions": max(rows["n_positions"].tolist()),
            "n_folds": n_models,
            "hours": rows["hours_since_start"].tolist(),
            "cls_prob_mean": rows["probability_mean"].tolist(),
            "cls_prob_std": rows["probability_std"].tolist(),
            "time_pred_mean": rows["time_mean"].tolist(),
            "time_pred_std": rows["time_std"].tolist(),
        }
    return summary


def parse_layout(entries: Sequence[str]) -> dict[str, str]:
    """Read ``condition=well,well`` entries into well → condition.

    Raises:
        ValueError: An entry has another form, or names a well twice.
    """
    layout: dict[str, str] = {}
    for entry in entries:
        condition, separator, wells = entry.partition("=")
        if not separator or not wells:
            raise ValueError(
                f"--plate-layout {entry!r}: expected condition=well,well (for example mock=a4,b4)"
            )
        for well in (name.strip().lower() for name in wells.split(",")):
            if well in layout:
                raise ValueError(f"--plate-layout: well {well} is both {layout[well]} and {condition}")
            layout[well] = condition.strip()
    return layout


def _probability(logits: torch.Tensor | None, infected_class: int, n: int) -> np.ndarray:
    if logits is None:
        return np.full(n, np.nan)
    if logits.shape[1] == 1:
        return torch.sigmoid(logits[:, 0].double()).cpu().numpy()
    return torch.softmax(logits.double(), dim=1)[:, infected_class].cpu().numpy()


def _hours(time: torch.Tensor | None, n: int) -> np.ndarray:
    return np.full(n, np.nan) if time is None else time[:, 0].double().cpu().numpy()


def _key(path: Path, ensemble: Ensemble, settings: PredictionSettings) -> str:
    """Identify a result: the file as it is, the weights and all settings that change a number."""
    status = path.stat()
    parts = [str(status.st_size), str(status.st_mtime_ns), ensemble.fingerprint, repr(settings)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
