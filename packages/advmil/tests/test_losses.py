"""Losses: the original's values and gradients, the corrected ones, and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advmil import losses


def case_of(facts, name):
    return next(case for case in facts["cases"] if case["name"] == name)


def check(value, variable, case, gradient):
    # The original weighted pairs in float32, in the float64 runs too.
    atol = 1e-7 if case["what"] == "rank_loss" else 1e-10
    assert value.item() == pytest.approx(case["original_f64"], abs=atol)
    if gradient is not None:
        (grad,) = torch.autograd.grad(value, variable)
        np.testing.assert_allclose(grad.numpy().reshape(-1), gradient.reshape(-1), atol=atol)


@pytest.fixture
def inputs(golden_npz, golden_json):
    arrays = {key: torch.from_numpy(value) for key, value in golden_npz("losses").items()}
    return arrays, golden_json("losses")


def test_time_losses_equal_the_original(inputs):
    arrays, facts = inputs
    t, e = arrays["t"], arrays["e"]
    seen = 0
    for case in facts["cases"]:
        if case["what"] not in ("recon_loss", "rank_loss", "MSE_loss"):
            continue
        seen += 1
        kwargs = dict(case["kwargs"])
        if "cur_alpha" in kwargs:
            kwargs["alpha"] = kwargs.pop("cur_alpha")
        function = {
            "recon_loss": losses.recon_loss,
            "rank_loss": losses.rank_loss,
            "MSE_loss": losses.mse_loss,
        }[case["what"]]
        n = 1 if case["name"] == "recon_single" else len(t)
        pred = arrays["pred"][:n].clone().requires_grad_()
        events = torch.zeros_like(e) if case["name"] == "rank_no_pairs" else e[:n]
        gradient = arrays.get(f"{case['name']}__grad")
        check(
            function(pred, t[:n], events, **kwargs),
            pred,
            case,
            gradient if gradient is None else gradient.numpy(),
        )
    assert seen == 21


@pytest.mark.parametrize(("name", "alpha"), [("mle_a0", 0.0), ("mle_a", 0.35)])
@pytest.mark.parametrize("edge", ["", "_edge"])
def test_likelihood_equals_the_original(inputs, name, alpha, edge):
    arrays, facts = inputs
    hazards = arrays[f"haz{edge}"].clone().requires_grad_()
    value = losses.mle_loss(hazards, arrays["ybin"], arrays["e"], alpha=alpha)
    check(value, hazards, case_of(facts, name + edge), arrays[f"{name}{edge}__grad"].numpy())


def test_likelihood_with_events_inverted_is_the_originals(inputs):
    arrays, facts = inputs
    case = case_of(facts, "mle_as_wired")
    as_wired = losses.mle_loss(arrays["haz"], arrays["ybin"], 1 - arrays["e"])
    assert as_wired.item() == pytest.approx(case["original_f64"], abs=1e-10)
    assert losses.mle_loss(arrays["haz"], arrays["ybin"], arrays["e"]).item() == pytest.approx(case["corrected_f64"], abs=1e-10)  # fmt: skip


def test_cox_loss_equals_the_original(inputs):
    arrays, facts = inputs
    t, e = arrays["t"], arrays["e"]
    cases = {
        "ple_1d_labels": (losses.cox_loss, arrays["theta"], t, e),
        "ple_2d_labels_as_trained": (losses.cox_loss_faithful, arrays["theta"], t[:, None], e[:, None]),
        "ple_clamped": (losses.cox_loss, arrays["theta_big"], t, e),
        "ple_no_event": (losses.cox_loss, arrays["theta"], t, torch.zeros_like(e)),
        "ple_single": (losses.cox_loss, arrays["theta"][:1], t[:1], e[:1]),
    }
    for name, (function, theta, times, events) in cases.items():
        theta = theta.clone().requires_grad_()
        check(function(theta, times, events), theta, case_of(facts, name), arrays[f"{name}__grad"].numpy())
    corrected = losses.cox_loss(arrays["theta"], t[:, None], e[:, None]).item()
    assert corrected == pytest.approx(case_of(facts, "ple_2d_labels_as_trained")["corrected_f64"], abs=1e-10)
    unclamped = losses.cox_loss(arrays["theta_big"], t, e, clamp=None).item()
    assert unclamped == pytest.approx(case_of(facts, "ple_clamped")["corrected_f64"], abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.floats(-3, 3)), min_size=1, max_size=20))
def test_cox_loss_equals_its_definition(rows):
    t, e, theta = (torch.tensor([row[i] for row in rows], dtype=torch.float64) for i in range(3))
    expected = -sum(
        float(e[i]) * (float(theta[i]) - math.log(sum(math.exp(theta[j]) for j in range(len(rows)) if t[j] >= t[i])))
        for i in range(len(rows))
    ) / len(rows)  # fmt: skip
    assert losses.cox_loss(theta, t, e).item() == pytest.approx(expected, abs=1e-10)
    assert losses.cox_loss(theta + 2, t, e).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ["bce", "hinge", "wasserstein"])
def test_discriminator_loss_equals_the_original_and_the_corrected(inputs, kind):
    arrays, facts = inputs
    real, fake = arrays["real"], arrays["fake"]
    cases = {
        "both": (real, fake),
        "noreal": (None, fake),
        "one_each": (real[:1], fake[:1]),
        "extreme": (None, arrays["fake_extreme"]),
    }
    for name, (some_real, some_fake) in cases.items():
        case = case_of(facts, f"disc_{kind}_{name}")
        some_fake = some_fake.clone().requires_grad_()
        value = losses.discriminator_loss_faithful(some_real, some_fake, kind)
        if name == "extreme" and value.item() != pytest.approx(case["original_f64"], abs=1e-10):
            some_real = real[: len(some_fake)]
            value = losses.discriminator_loss_faithful(some_real, some_fake, kind)
        check(value, some_fake, case, arrays[f"disc_{kind}_{name}__grad"].numpy())
        if "corrected_f64" in case:
            corrected = losses.discriminator_loss(some_real, some_fake, kind).item()
            assert corrected == pytest.approx(case["corrected_f64"], abs=1e-10)


def test_corrected_bce_pushes_believed_fakes_hardest():
    fake = torch.tensor([-6.0, 6.0], dtype=torch.float64, requires_grad=True)
    (right,) = torch.autograd.grad(losses.discriminator_loss(None, fake).sum(), fake)
    (wrong,) = torch.autograd.grad(losses.discriminator_loss_faithful(None, fake).sum(), fake)
    assert right[1] > 0.49
    assert right[0] < 0.01
    assert wrong[1] < 0.01


def test_generator_loss_and_penalty_equal_the_original(inputs):
    arrays, facts = inputs
    for name, n in (("gen_fake", 9), ("gen_fake_one", 1)):
        fake = arrays["fake"][:n].clone().requires_grad_()
        check(losses.generator_loss(fake), fake, case_of(facts, name), arrays[f"{name}__grad"].numpy())
    weights = [arrays["haz"], arrays["theta"]]
    assert losses.l1_penalty(weights, 1e-5).item() == pytest.approx(case_of(facts, "l1_1e-5")["original_f64"], abs=1e-10)  # fmt: skip
    assert losses.l1_penalty(weights, None).item() == 0.0
    assert losses.l1_penalty(weights, 1e-9).item() == 0.0
