"""Losses: goldens, and the formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aespa.losses import mixture_mse, weighted_bce


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("losses")


@pytest.mark.parametrize(("dtype", "suffix"), [(torch.float32, ""), (torch.float64, "_float64")])
def test_golden_soft_targets_and_their_gradient(golden, dtype, suffix):
    logits = torch.from_numpy(golden["logits"]).to(dtype).requires_grad_()
    loss = weighted_bce(logits, torch.from_numpy(golden["target_soft"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden[f"bce_soft{suffix}"]), abs=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, golden[f"bce_soft_grad{suffix}"], atol=1e-8)


def test_golden_binary_targets(golden):
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    loss = weighted_bce(logits, torch.from_numpy(golden["target_binary"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden["bce_binary"]), abs=1e-6)
    assert logits.grad is not None
    assert float(logits.grad.norm()) == pytest.approx(float(golden["bce_binary_grad_l2"]), abs=1e-6)


@pytest.mark.parametrize(("kind", "level"), [("original", 0.5), ("corrected", 0.0)])
def test_golden_validation_mask_and_loss(golden, kind, level):
    logits = torch.from_numpy(golden["logits"])
    target = torch.from_numpy(golden["target_binary"])
    mask = logits > level  # the original's 0.5 is a level of logits
    np.testing.assert_array_equal(mask, golden[f"spa_validation_mask_{kind}"].astype(bool))
    loss = weighted_bce(mask.float() if kind == "original" else logits, target)
    assert float(loss) == pytest.approx(float(golden[f"spa_validation_loss_{kind}"]), abs=1e-6)


def test_zero_logits_give_the_logarithm_of_two(golden):
    zeros = torch.zeros(2, 1, 4, 4)
    assert float(weighted_bce(zeros, zeros)) == pytest.approx(
        float(golden["zero_logits_background"]), abs=1e-6
    )
    assert float(weighted_bce(zeros, zeros + 1)) == pytest.approx(2 * math.log(2), abs=1e-6)
    assert float(weighted_bce(zeros, zeros + 1, pos_weight=3.5)) == pytest.approx(3.5 * math.log(2), abs=1e-6)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 1, 4, 4\] and \[2, 4, 4\]"):
        weighted_bce(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="mixture weights"):
        mixture_mse(torch.zeros(2, 4), torch.zeros(1, 4))


def test_gradient_of_the_mixture_loss_reaches_the_target_only_on_request():
    predicted = torch.tensor([[0.5, 0.5], [0.2, 0.8]], requires_grad=True)
    wanted = torch.tensor([[0.9, 0.1], [0.2, 0.8]], requires_grad=True)
    loss = mixture_mse(predicted, wanted)
    assert float(loss.detach()) == pytest.approx((0.16 + 0.16) / 4)
    loss.backward()
    assert wanted.grad is None
    assert predicted.grad is not None
    mixture_mse(predicted, wanted, detach=False).backward()
    np.testing.assert_allclose(wanted.grad, -predicted.grad / 2, rtol=1e-5, atol=1e-6)
