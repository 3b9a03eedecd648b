from typing import Any

import pytest

from infection_mt.analysis.summary import judge_training, training_summary
from infection_mt.analysis.training_log import TrainingLog


@pytest.mark.parametrize(
    "config", [None, {}, {"model": None}, {"model": {"name": "resnet18"}}, {"data": "x"}]
)
def test_missing_settings_are_named_not_raised(config: Any) -> None:
    text = training_summary({"config": config, "test_metrics": {}}, None)
    assert "Dropout: not recorded" in text
    assert ("Model: resnet18" in text) == bool(config and config.get("model"))


def test_the_batch_size_that_was_used_is_told() -> None:
    config = {"data": {"batch_size": 128}, "training": {"batch_size": 16}}
    assert "Batch size: 16" in training_summary({"config": config}, None)


def test_undefined_metrics_are_told() -> None:
    text = training_summary({"test_metrics": {"cls_auc": None, "reg_mae": 1.2}}, None)
    assert "cls_auc: undefined" in text
    assert "Classification: undefined" in text
    assert "Time: GOOD (MAE 1.2000 h)" in text


def test_baselines_stand_beside_the_results() -> None:
    results = {
        "test_metrics": {"cls_accuracy": 0.9, "reg_mae": 2.0},
        "baselines": {"majority_accuracy": 0.5, "constant_mae": 11.5},
    }
    text = training_summary(results, None)
    assert "The best constant time has MAE 11.500 h; the model 2.000 h." in text
    assert "The commonest class has accuracy 0.5000; the model 0.9000." in text


def test_runs_with_one_task_are_judged_by_their_loss() -> None:
    log = TrainingLog({1: {"loss": 1.0}}, {1: {"loss": 2.0}})
    assert judge_training(log) == "overfit_warning"
    assert judge_training(TrainingLog({1: {"loss": 1.0}}, {1: {"loss": 1.0}})) == "converged"
    assert judge_training(TrainingLog()) == "unknown"
