"""Predictions on disk, in the original's files and both of its layouts.

``test_predictions.npz`` holds ``time_preds``, ``time_targets``, ``cls_preds`` (P(infected)) and
``cls_targets``, here also ``sample_key``, ``logit``, ``hours`` and ``stack_index``; ``test_metadata.jsonl``
has one object per row in the same order. The second layout (``cls_probs``, ``cls_preds``, ``cls_labels``,
``reg_preds``, ``reg_labels``, ``image_paths``) is only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infection_mt.prediction_table import Predictions
from infection_mt.probabilities import clip_probability, logit_of, sigmoid
from infection_mt.sample_keys import hours_of, number_stacks, sample_key
from infection_mt.targets import time_targets
from medshared.files import write_npz
from medshared.tables import read_jsonl, write_jsonl

PREDICTIONS_NAME = "test_predictions.npz"
METADATA_NAME = "test_metadata.jsonl"
_FIRST_LAYOUT = ("time_preds", "time_targets", "cls_preds", "cls_targets")
_SECOND_LAYOUT = ("cls_probs", "cls_labels", "reg_preds", "reg_labels")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class PredictionFileError(ValueError):
    """A predictions file is unusable; the message names file, expectation and finding."""


def write_predictions(folder: Path | str, predictions: Predictions) -> list[Path]:
    """Write ``test_predictions.npz`` and ``test_metadata.jsonl``, atomically.

    Args:
        folder: Created if needed.
        predictions: What to write.

    Returns:
        The two paths.
    """
    folder = Path(folder)
    probability = clip_probability(predictions.probability)
    npz = write_npz(
        folder / PREDICTIONS_NAME,
        time_preds=predictions.time.astype(np.float32),
        time_targets=predictions.time_target.astype(np.float32),
        # Readers of the original's files expect 0.5 where a model does not classify.
        cls_preds=np.where(np.isnan(probability), np.float32(0.5), probability),
        cls_targets=predictions.label.astype(np.int64),
        sample_key=np.asarray(predictions.keys, dtype=np.str_),
        logit=predictions.logit,
        hours=predictions.hours,
        stack_index=predictions.stack_index,
    )
    return [npz, write_jsonl(folder / METADATA_NAME, predictions.metadata)]


def read_predictions(
    path: Path | str,
    *,
    onset_hour: float | None = None,
    clamp_range: tuple[float | None, float | None] = (0.0, 48.0),
) -> Predictions:
    """Read predictions of either layout; see `Predictions.load`.

    Args:
        path: The npz file or its folder.
        onset_hour: Needed for the second layout.
        clamp_range: Used like `onset_hour`.

    Returns:
        The predictions.
    """
    path = Path(path)
    npz = path / PREDICTIONS_NAME if path.is_dir() else path
    arrays = _load_arrays(npz)
    metadata_path = npz.with_name(METADATA_NAME)
    metadata = read_jsonl(metadata_path) if metadata_path.is_file() else None
    if all(name in arrays for name in _SECOND_LAYOUT):
        arrays, metadata = _second_to_first(npz, arrays, metadata, onset_hour, clamp_range)
    missing = [name for name in _FIRST_LAYOUT if name not in arrays]
    if missing:
        raise PredictionFileError(f"{npz}: arrays {missing} are missing; found {sorted(arrays)}")
    label = arrays["cls_targets"].astype(np.int64)
    rows = _match_metadata(npz, label, metadata)
    probability = arrays["cls_preds"].astype(np.float64)
    if label.size > 1 and np.all(probability == 0.5):  # what runs without a classifier store
        probability = np.full(label.size, np.nan)
    logit = arrays["logit"] if "logit" in arrays else logit_of(probability)
    if "logit" in arrays:
        probability = sigmoid(arrays["logit"])
    hours = arrays.get("hours")
    if hours is None:
        hours = hours_of(rows)
    keys = arrays["sample_key"].tolist() if "sample_key" in arrays else _keys_of(rows)
    return Predictions(
        probability=probability,
        logit=np.asarray(logit, dtype=np.float64),
        time=arrays["time_preds"].astype(np.float64),
        time_target=arrays["time_targets"].astype(np.float64),
        label=label,
        hours=np.asarray(hours, dtype=np.float64),
        stack_index=arrays["stack_index"] if "stack_index" in arrays else number_stacks(rows),
        keys=keys,
        metadata=rows,
    )


def _keys_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sample keys; frames that the metadata do not tell apart are numbered."""
    keys = [sample_key(row) for row in rows]
    return keys if len(set(keys)) == len(keys) else [f"{key}#{row}" for row, key in enumerate(keys)]


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no predictions there; evaluate the run first")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # the zip and npy readers raise many kinds
        raise PredictionFileError(
            f"{path}: unreadable ({error}); the file may be cut, write it again"
        ) from error


def _match_metadata(
    path: Path, label: Integers, metadata: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return one metadata row per prediction.

    Single-class runs of the original list the frames of both classes: only those of the kept class belong
    here.
    """
    if metadata is None:
        return [{"label": int(value)} for value in label]
    kept = np.unique(label)
    if len(metadata) > label.size and kept.size == 1:
        metadata = [row for row in metadata if row.get("label") == int(kept[0])]
    if len(metadata) != label.size:
        raise PredictionFileError(
            f"{path}: {label.size} predictions but {len(metadata)} rows in {METADATA_NAME}: "
            "the files are of two runs"
        )
    stated = np.array([row.get("label", value) for row, value in zip(metadata, label, strict=True)])
    if not np.array_equal(stated, label):
        first = int(np.nonzero(stated != label)[0][0])
        raise PredictionFileError(
            f"{path}: row {first} has label {label[first]} but {METADATA_NAME} {stated[first]}"
        )
    return metadata


def _second_to_first(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    metadata: list[dict[str, Any]] | None,
    onset_hour: float | None,
    clamp_range: tuple[float | None, float | None],
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]] | None]:
    """Translate the layout whose time labels are the hours since the first frame."""
    if onset_hour is None:
        raise PredictionFileError(
            f"{path}: 'reg_labels' holds hours since the first frame instead of time targets; "
            "give the run's onset_hour (and clamp_range) so that the targets can be computed"
        )
    label = arrays["cls_labels"].astype(np.int64)
    hours = arrays["reg_labels"].astype(np.float64).reshape(-1)
    if metadata is None and "image_paths" in arrays:
        metadata = [
            {"path": str(name), "hours_since_start": float(hour), "label": int(value)}
            for name, hour, value in zip(arrays["image_paths"], hours, label, strict=True)
        ]
    translated = {
        "time_preds": arrays["reg_preds"].reshape(-1),
        "time_targets": time_targets(hours, label == 1, onset_hour, clamp_range),
        "cls_preds": arrays["cls_probs"][:, 1],
        "cls_targets": label,
        "hours": hours,
    }
    return translated, metadata
