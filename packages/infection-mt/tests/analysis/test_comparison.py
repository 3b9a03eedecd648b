from typing import Any

import numpy as np
import pytest

from infection_mt.analysis import comparison as c
from infection_mt.prediction_table import Predictions
from medshared.metrics.statistics import holm


def table(seed: int, noise: float = 1.0, stacks: int = 8, frames: int = 10) -> Predictions:
    rng = np.random.default_rng(seed)
    metadata: list[dict[str, Any]] = [
        {
            "path": f"x_s5_{'b2' if s % 2 else 'c4'}_p{s}_t0-9_.tif",
            "position": str(s),
            "frame_index": f,
            "hours_since_start": float(f),
        }
        for s in range(stacks)
        for f in range(frames)
    ]
    label = np.repeat(np.arange(stacks) % 2, frames)
    target = np.tile(np.arange(float(frames)), stacks)
    return Predictions.from_outputs(
        (2 * label - 1) / noise + rng.normal(size=label.size),
        target + rng.normal(0, noise, label.size),
        label,
        target,
        metadata=metadata,
    )


def test_average_is_taken_frame_by_frame() -> None:
    a, b = table(1), table(2)
    mean = c.average_predictions([a, b.subset(np.arange(len(b))[::-1])])
    np.testing.assert_allclose(mean.probability, (a.probability + b.probability) / 2)
    np.testing.assert_allclose(mean.time, (a.time + b.time) / 2)
    assert mean.keys == a.keys
    with pytest.raises(ValueError, match="share no frame"):
        c.average_predictions([a.subset([0]), a.subset([1])])


def test_models_are_cut_to_common_frames() -> None:
    a, b, d = table(1), table(2).subset(np.arange(10, 80)), table(3).subset(np.arange(60)[::-1])
    found = c.common_frames({"a": a, "b": b, "c": d})
    assert found["a"].keys == found["b"].keys == found["c"].keys == a.keys[10:60]
    windows = c.fair_windows({"a": a, "b": b, "c": d})
    assert len({tuple(window.n for window in found) for found in windows.values()}) == 1


def test_table_of_model_families() -> None:
    a = table(1)
    only_time = Predictions(
        **{**a.__dict__, "probability": np.full(80, np.nan), "logit": np.full(80, np.nan)}
    )
    rows = c.model_table({"multi": [a, table(2)], "time": [only_time]})
    assert list(rows[0])[:8] == [
        "Model",
        "Cls_Accuracy",
        "Cls_F1",
        "Cls_AUC",
        "Reg_MAE",
        "Reg_RMSE",
        "Reg_MAE_Infected",
        "Reg_MAE_Uninfected",
    ]
    errors = [np.abs(p.time - p.time_target).mean() for p in (a, table(2))]
    assert rows[0]["Reg_MAE"] == f"{np.mean(errors):.3f}±{np.std(errors):.3f}"
    assert rows[1]["Cls_AUC"] == "n/a"


def test_all_pairs_are_corrected_together() -> None:
    models = {"good": table(1, 0.2), "bad": table(2, 5.0), "worse": table(3, 9.0)}
    rows = c.compare_models(models, n_resamples=200)
    assert len(rows) == 3 * 4
    np.testing.assert_allclose([row["p_holm"] for row in rows], holm([row["p_value"] for row in rows]))
    first = rows[0]
    assert (first["Model_1"], first["Model_2"], first["metric"], first["n_groups"]) == (
        "good",
        "bad",
        "cls_auc",
        8,
    )
    assert first["low"] <= first["difference"] <= first["high"]
    assert first["delong_p"] is not None
    assert all(row["delong_p"] is None for row in rows if row["metric"] != "cls_auc")


def test_cut_to_shorter_pairs_by_position() -> None:
    a, b = c.cut_to_shorter([1, 2, 3], [4, 5])
    assert (a.tolist(), b.tolist()) == ([1, 2], [4, 5])
