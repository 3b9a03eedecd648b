"""The files that the original's README promises, byte for byte in its formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medshared.files import write_npz, write_text

CONFIG_BANNER = "**************** MODEL CONFIGURATION ****************"
METRICS_BANNER = "**************** MODEL METRICS ****************"
ARROW = " -->   "


def config_text(config: Mapping[str, Any]) -> str:
    """Return the text of ``print_config.txt``: sorted keys padded to 24 characters between two banners."""
    lines = [f"{key:<24}{ARROW}{config[key]}" for key in sorted(config)]
    return "\n".join([CONFIG_BANNER, *lines, CONFIG_BANNER]) + "\n"


def metrics_text(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return the text of ``metrics-best.txt``.

    Args:
        metrics: Set → ``cindex`` and ``loss``, printed with the sets sorted by name.
    """
    lines = [
        f"{f'{name}/{metric}':<20}{ARROW}{metrics[name][metric]}"
        for name in sorted(metrics)
        for metric in ("cindex", "loss")
    ]
    return "\n".join([METRICS_BANNER, *lines, METRICS_BANNER]) + "\n"


def read_metrics_text(path: Path) -> dict[str, dict[str, float]]:
    """Read ``metrics-best.txt`` back: set → metric → value.

    Raises:
        ValueError: A line is neither a banner nor ``set/metric --> value``.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line == METRICS_BANNER:
            continue
        key, arrow, value = line.partition(ARROW)
        name, slash, metric = key.strip().partition("/")
        if not arrow or not slash:
            raise ValueError(f"{path}:{number}: expected 'set/metric{ARROW}value', found {line!r}")
        found.setdefault(name, {})[metric] = float(value)
    return found


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """Write ``print_config.txt``."""
    return write_text(path, config_text(config))


def write_metrics(path: Path, metrics: Mapping[str, Mapping[str, float]]) -> Path:
    """Write ``metrics-best.txt``."""
    return write_text(path, metrics_text(metrics))


def _cells(values: NDArray[Any]) -> list[str]:
    """Return numbers as the original's tables show them: shortest text of a float32."""
    return [str(value) for value in np.asarray(values, dtype=np.float32)]


def write_continuous_predictions(
    path: Path,
    patients: Sequence[str],
    time: NDArray[Any],
    event: NDArray[Any],
    predicted: NDArray[Any],
    samples: NDArray[Any] | None = None,
) -> Path:
    """Write ``best_pred_<set>.csv`` (patient_id, t, e, pred_t) and, with samples, ``best_pred_<set>_dist.npz``.

    Args:
        path: The CSV file; the samples lie beside it with ``_dist.npz`` for ``.csv``.
        patients: Ids, [n].
        time: Labels in units of ``time_format``, [n].
        event: 1 = event observed, [n].
        predicted: Predicted times in the same units, [n].
        samples: Draws, [n, times].
    """
    columns = (list(patients), _cells(time), _cells(event), _cells(predicted))
    rows = [",".join(cells) for cells in zip(*columns, strict=True)]
    write_text(path, "\n".join(["patient_id,t,e,pred_t", *rows]) + "\n")
    if samples is not None:
        write_npz(
            path.with_name(f"{path.stem}_dist.npz"),
            patient_id=np.asarray(patients, dtype=np.str_),
            pred_dist=np.asarray(samples, dtype=np.float32),
        )
    return path


def write_discrete_predictions(
    path: Path,
    patients: Sequence[str],
    time: NDArray[Any],
    event: NDArray[Any],
    survival: NDArray[Any],
) -> Path:
    """Write ``best_pred_<set>.csv`` of a discrete task: patient_id, t, e, risk, surf_1 … surf_K.

    Args:
        path: The CSV file.
        patients: Ids, [n].
        time: Bin indices, [n].
        event: 1 = event observed, [n].
        survival: Survival after each bin, [n, K]; ``risk`` is its sum, so that large means long survival.
    """
    survival = np.asarray(survival, dtype=np.float32)
    names = [f"surf_{k + 1}" for k in range(survival.shape[1])]
    columns = (list(patients), _cells(time), _cells(event), _cells(survival.sum(axis=1, dtype=np.float32)))
    rows = [",".join([*cells, *_cells(curve)]) for *cells, curve in zip(*columns, survival, strict=True)]
    write_text(path, "\n".join([",".join(["patient_id", "t", "e", "risk", *names]), *rows]) + "\n")
    return path


def write_risk_predictions(
    path: Path, patients: Sequence[str], time: NDArray[Any], event: NDArray[Any], log_risk: NDArray[Any]
) -> Path:
    """Write ``best_pred_<set>.csv`` of the Cox baseline: patient_id, t, e, pred_t with the log-risk as ``pred_t``."""
    return write_continuous_predictions(path, patients, time, event, log_risk)
