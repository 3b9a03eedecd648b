import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch.nn import functional

from infection_mt import evaluation as e
from infection_mt.prediction_table import Predictions
from medshared.files import read_json, write_json


def outputs(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    target = rng.uniform(0, 48, n)
    return rng.normal(size=(n, 2)) + np.eye(2)[label], target + rng.normal(size=n), label, target


def table(seed: int = 0, stacks: int = 8, frames: int = 12, skill: float = 1.0) -> Predictions:
    rng = np.random.default_rng(seed)
    metadata: list[dict[str, Any]] = [
        {
            "path": f"x_s5_{'b2' if s % 2 else 'c4'}_p{s}_t0-9_ec.tiff",
            "position": str(s),
            "frame_index": f,
            "hours_since_start": f / 2,
            "label": s % 2,
        }
        for s in range(stacks)
        for f in range(frames)
    ]
    label = np.array([row["label"] for row in metadata])
    target = np.array([row["hours_since_start"] for row in metadata])
    by_stack = np.repeat(rng.normal(0, 0.5, stacks), frames)
    logit = skill * (2 * label - 1) + by_stack + rng.normal(0, 1, label.size)
    return Predictions.from_outputs(
        logit, target + by_stack + rng.normal(0, 1 / skill, label.size), label, target, metadata=metadata
    )


def test_losses_equal_torch() -> None:
    logits, time, label, target = outputs()
    found = e.evaluate_multitask(
        logits, time, label, target, classification_weight=2.0, regression_weight=0.5
    )
    cls = functional.cross_entropy(torch.tensor(logits), torch.tensor(label)).item()
    reg = functional.smooth_l1_loss(torch.tensor(time), torch.tensor(target)).item()
    assert found["cls_loss"] == pytest.approx(cls, abs=1e-12)
    assert found["reg_loss"] == pytest.approx(reg, abs=1e-12)
    assert found["total_loss"] == pytest.approx(2 * cls + 0.5 * reg, abs=1e-12)
    bce = functional.binary_cross_entropy_with_logits(
        torch.tensor(time), torch.tensor(label, dtype=torch.float64)
    )
    assert e.evaluate_classification(time[:, None], label)["loss"] == pytest.approx(bce.item(), abs=1e-12)


def test_metrics_equal_sklearn() -> None:
    logits, time, label, target = outputs(seed=1)
    found = e.evaluate_multitask(
        torch.tensor(logits), torch.tensor(time)[:, None], torch.tensor(label), target
    )
    score = logits[:, 1] - logits[:, 0]
    assert found["cls_auc"] == pytest.approx(sk.roc_auc_score(label, score))
    assert found["cls_f1"] == pytest.approx(sk.f1_score(label, score >= 0))
    for name, value in (("infected", 1), ("uninfected", 0)):
        rows = label == value
        assert found[f"reg_mae_{name}"] == pytest.approx(sk.mean_absolute_error(target[rows], time[rows]))
        assert found[f"reg_r2_{name}"] == pytest.approx(sk.r2_score(target[rows], time[rows]))
    scale = 1 - found["reg_mae"] / 48
    assert found["combined"] == pytest.approx(0.6 * found["cls_f1"] + 0.4 * scale)


def test_a_threshold_moves_decisions_only() -> None:
    logits, time, label, target = outputs(seed=2)
    fixed = e.evaluate_multitask(logits, time, label, target)
    moved = e.evaluate_multitask(logits, time, label, target, threshold=0.99)
    assert moved["cls_recall"] < fixed["cls_recall"]
    assert moved["cls_auc"] == fixed["cls_auc"]
    assert moved["cls_loss"] == fixed["cls_loss"]


@given(st.floats(0.1, 20.0))
def test_scaling_logits_changes_no_ranking(factor: float) -> None:
    logits, _, label, _ = outputs(seed=3)
    score = logits[:, 1] - logits[:, 0]
    assert e.evaluate_binary(score * factor, label)["auc"] == pytest.approx(
        e.evaluate_binary(score, label)["auc"]
    )


def test_one_class_has_no_auc_and_json_says_null(tmp_path: Path) -> None:
    logits, time, _, target = outputs(10)
    found = e.evaluate_multitask(logits, time, np.ones(10, dtype=int), target)
    assert np.isnan(found["cls_auc"])
    assert found["n_uninfected"] == 0
    stored = read_json(write_json(tmp_path / "m.json", found))
    assert stored["cls_auc"] is None
    assert stored["reg_mae_uninfected"] is None
    assert stored["cls_accuracy"] == found["cls_accuracy"]


def test_nan_time_never_looks_good() -> None:
    logits, time, label, target = outputs()
    time[3] = np.nan
    assert np.isnan(e.evaluate_multitask(logits, time, label, target)["combined"])


def test_rows_must_agree() -> None:
    logits, time, label, target = outputs()
    with pytest.raises(ValueError, match="one row per frame"):
        e.evaluate_multitask(logits, time[:-1], label, target)


def test_a_class_without_frames_is_named() -> None:
    with pytest.raises(ValueError, match="no frames of class 1"):
        e.evaluate_regression([1.0], [0], [1.0], target_class=1)


def test_saved_predictions_are_evaluated_by_what_they_hold() -> None:
    p = table()
    both = e.evaluate_predictions(p)
    assert tuple(both)[:12] == e.MULTITASK_METRICS
    assert both["cls_auc"] == pytest.approx(sk.roc_auc_score(p.label, p.logit))
    nan = np.full(len(p), np.nan)
    without_time = Predictions(**{**p.__dict__, "time": nan})
    assert "reg_mae" not in e.evaluate_predictions(without_time)
    without_class = Predictions(**{**p.__dict__, "probability": nan, "logit": nan})
    assert e.evaluate_predictions(without_class)["reg_mae"] == both["reg_mae"]


def test_baselines_can_be_learnt_on_the_training_frames() -> None:
    found = e.naive_baselines(
        [1, 1, 1, 0], [0.0, 2.0, 4.0, 10.0], train_label=[0, 0, 1], train_time_target=[4.0]
    )
    assert (found["majority_class"], found["majority_accuracy"]) == (0, 0.25)
    assert found["constant_mae"] == 3.0


def test_intervals_cover_the_estimate_and_count_stacks() -> None:
    p = table()
    found = e.bootstrap_intervals(p, n_resamples=200)
    assert list(found) == ["cls_auc", "cls_f1", "cls_accuracy", "reg_mae", "reg_rmse"]
    for interval in found.values():
        assert interval.low <= interval.estimate <= interval.high
        assert (interval.n_groups, interval.n_valid) == (8, 200)
    assert found["reg_mae"].estimate == pytest.approx(np.abs(p.time - p.time_target).mean())
    by_frame = e.bootstrap_intervals(p, np.arange(len(p)), n_resamples=200)
    assert by_frame["cls_auc"].high - by_frame["cls_auc"].low < found["cls_auc"].high - found["cls_auc"].low


def test_one_well_per_class_gives_no_interval(caplog: pytest.LogCaptureFixture) -> None:
    p = table()
    with caplog.at_level(logging.WARNING):
        found = e.bootstrap_intervals(p, p.groups("well"), n_resamples=50)
    assert np.isnan(found["cls_auc"].low)
    assert found["cls_auc"].estimate > 0.5
    assert "a class has a single group" in caplog.text


def test_a_better_model_is_found_better() -> None:
    good, bad = table(1, skill=4.0), table(2, skill=0.3)
    found = {row.metric: row for row in e.compare_predictions(good, bad, n_resamples=300)}
    assert list(found) == ["cls_auc", "cls_f1", "cls_accuracy", "reg_mae"]
    assert found["cls_auc"].difference.low > 0
    assert found["cls_auc"].p_value < 0.05
    assert found["reg_mae"].difference.high < 0
    assert found["cls_auc"].delong is not None
    assert found["cls_auc"].delong.difference == pytest.approx(found["cls_auc"].difference.estimate)


def test_comparison_does_not_depend_on_the_order_of_frames() -> None:
    a, b = table(1), table(2)
    shuffled = b.subset(np.random.default_rng(0).permutation(len(b)))
    assert e.compare_predictions(a, b, n_resamples=50) == e.compare_predictions(a, shuffled, n_resamples=50)


def test_a_model_does_not_differ_from_itself() -> None:
    p = table()
    for row in e.compare_predictions(p, p, n_resamples=50):
        assert row.difference.estimate == row.difference.low == row.difference.high == 0.0
        assert row.p_value == 1.0


def test_one_class_comparison_has_no_auc() -> None:
    p = table().subset(table().label == 1)
    found = {row.metric: row for row in e.compare_predictions(p, p, n_resamples=20)}
    assert np.isnan(found["cls_auc"].a)
    assert np.isnan(found["cls_auc"].p_value)
    assert found["cls_auc"].delong is None
    assert found["reg_mae"].p_value == 1.0
