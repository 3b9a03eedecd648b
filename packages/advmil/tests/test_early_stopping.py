"""Early stopping and the plateau schedule, epoch by epoch."""

from __future__ import annotations

import math

import pytest
import torch

from advmil.early_stopping import EarlyStopping, plateau_schedule
from advmil.optimisers import build_optimizer

CASES = {
    "w5_p3": {"warmup": 5, "patience": 3},
    "w0_p4": {"warmup": 0, "patience": 4},
    "w2_p2_s8": {"warmup": 2, "patience": 2, "start_epoch": 8},
}


def trace(stopper, values):
    rows = []
    for epoch, value in enumerate(values):
        decision = stopper.update(epoch, value)
        rows.append([decision.save, decision.stop, stopper.counter])
    return rows


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mode", ["min", "max"])
def test_trace_equals_the_original(name, mode, golden_json):
    facts = golden_json("utilities")["early_stopping"]
    values = [value if mode == "min" else -value for value in facts["values"]]
    assert trace(EarlyStopping(**CASES[name], mode=mode), values) == facts["cases"][name]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_tiny_gain_is_none(mode, golden_json):
    sign = 1 if mode == "min" else -1
    values = [sign * value for value in (0.5, 0.5 - 5e-7, 0.5 - 2e-6)]
    expected = golden_json("utilities")["early_stopping"]["cases"]["tiny_gain"]
    assert trace(EarlyStopping(warmup=0, patience=5, mode=mode), values) == expected


def test_state_is_plain_and_continues():
    values = [0.5, 0.4, 0.45, 0.3, 0.6, 0.6, 0.6]
    whole = trace(EarlyStopping(warmup=1, patience=2), values)
    first = EarlyStopping(warmup=1, patience=2)
    trace(first, values[:4])
    second = EarlyStopping(warmup=1, patience=2)
    second.load_state_dict(first.state_dict())
    rest = []
    for epoch in range(4, 7):
        decision = second.update(epoch, values[epoch])
        rest.append([decision.save, decision.stop, second.counter])
    assert rest == whole[4:]
    assert second.best_epoch == 3
    assert all(isinstance(value, (int, float)) for value in first.state_dict().values())


def test_nan_is_never_better_and_always_beaten():
    stopper = EarlyStopping(warmup=0, patience=2)
    assert trace(stopper, [math.nan, 0.5, math.nan, 0.4]) == [
        [True, False, 0], [True, False, 0], [False, False, 1], [True, False, 0],
    ]  # fmt: skip


def test_without_patience_it_never_stops():
    assert not any(stop for _, stop, _ in trace(EarlyStopping(patience=None, warmup=0), [1.0] * 50))


def test_plateau_equals_the_original(golden_json):
    facts = golden_json("utilities")["plateau"]
    optimizer = build_optimizer("adam", torch.nn.Linear(1, 1), 8e-5)
    schedule, rates = plateau_schedule(optimizer), []
    for value in facts["values"]:
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(facts["lr_after_step"], abs=1e-15)
