"""Losses, targets and schedule against the original's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infection_mt.config import Config, SingleTaskRegression
from infection_mt.losses import classification_loss, multitask_loss
from infection_mt.optimisation import build_scheduler
from infection_mt.targets import single_task_targets, time_targets


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("n", [6, 9, 4])
def test_multitask_loss_and_gradients(n, precision, golden_json, golden_npz):
    arrays, expected = golden_npz("losses"), golden_json("losses")[f"n{n}_{precision}"]
    dtype, tolerance = (torch.float32, 1e-6) if precision == "f32" else (torch.float64, 1e-12)
    logits = torch.from_numpy(arrays[f"n{n}__logits"]).to(dtype).requires_grad_()
    time = torch.from_numpy(arrays[f"n{n}__time"]).to(dtype)[:, None].requires_grad_()
    target = torch.from_numpy(arrays[f"n{n}__target"]).to(dtype)[:, None]
    labels = torch.from_numpy(arrays[f"n{n}__labels"])
    terms = multitask_loss(
        logits,
        time,
        labels,
        target,
        classification_weight=expected["cls_weight"],
        regression_weight=expected["reg_weight"],
    )
    terms.total.backward()
    for name, term in zip(("total_loss", "cls_loss", "reg_loss"), terms, strict=True):
        assert term.item() == pytest.approx(expected[name], rel=tolerance, abs=tolerance)
    for name, tensor in (("logits", logits), ("time", time)):
        golden = arrays[f"n{n}_{precision}__grad_{name}"]
        np.testing.assert_allclose(tensor.grad, golden, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("n", [6, 9, 4])
def test_bce(n, golden_json, golden_npz):
    arrays = golden_npz("losses")
    logit = torch.from_numpy(arrays[f"n{n}__logits"][:, :1]).double().requires_grad_()
    loss = classification_loss(logit, torch.from_numpy(arrays[f"n{n}__labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(golden_json("losses")[f"n{n}_bce_f64"], rel=1e-12)
    np.testing.assert_allclose(logit.grad, arrays[f"n{n}__grad_bce"], rtol=1e-9, atol=1e-12)


def test_multitask_targets(golden_json):
    for case in golden_json("targets")["multitask"]:
        labels, hours = np.array(case["labels"]), np.array(case["hours"])
        targets = time_targets(hours, labels == 1, case["onset"], tuple(case["clamp"]))
        assert targets.dtype == np.float32
        assert targets.tolist() == case["time_targets"]
        for target_class in (None, 0, 1):
            keep = slice(None) if target_class is None else labels == target_class
            expected = case[f"regression_{target_class}"]
            assert labels[keep].tolist() == expected["labels"]
            assert targets[keep].tolist() == expected["targets"]


def test_single_task_targets(golden_json):
    for case in golden_json("targets")["single_task_regression"]:
        # The original reads any other word as "time_since_onset"; here it is refused in the configuration.
        known = case["target"] in ("time_since_onset", "time_to_onset")
        if not known:
            with pytest.raises(ValueError, match="time_to_onset"):
                SingleTaskRegression(target=case["target"])
        settings = SingleTaskRegression(
            target=case["target"] if known else "time_since_onset",
            infection_onset_hour=case["onset"],
            uninfected_target=case["uninfected_target"],
            clamp_range=tuple(case["clamp"]),
        )
        targets = single_task_targets(case["hours"], np.array(case["labels"]) == 1, settings)
        assert targets.tolist() == case["targets"]


def test_onset_follows_the_condition_not_the_literal_label(golden_json):
    case = golden_json("targets")["other_label_values"]
    labels = np.array(case["labels"])
    original = time_targets(case["hours"], labels == 1, case["onset"], (0.0, 48.0))
    assert original.tolist() == case["original"]
    # With infected_label 2 the infected frame (label 2) is the one whose time counts from the onset.
    corrected = time_targets(case["hours"], labels == 2, case["onset"], (0.0, 48.0))
    assert corrected.tolist() == [9.0, 10.0, 10.0]


def test_missing_hours_count_as_zero(golden_json):
    expected = golden_json("targets")["missing_hours"]
    assert time_targets([np.nan, np.nan], [True, False], 1.0, (0.0, 48.0)).tolist() == expected


def test_learning_rates(golden_json):
    for case in golden_json("lr_schedule"):
        config = Config.model_validate(
            {
                "data": {"manifest": "m.csv"},
                "training": {"epochs": case["epochs"]},
                "scheduler": {"t_max": case["t_max"], "eta_min": case["eta_min"]},
            }
        )
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.AdamW([parameter], lr=case["lr"])
        scheduler = build_scheduler(config, optimizer)
        rates = []
        for _ in range(case["epochs"]):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(rates, case["lr_used_in_epoch_1_to_n"], rtol=0, atol=1e-12)
