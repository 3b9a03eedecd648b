"""Losses beyond the goldens: masks and learned weights."""

from __future__ import annotations

import math

import pytest
import torch

from infection_mt.losses import LossTerms, UncertaintyWeighting, multitask_loss, regression_loss


def test_masked_time_loss_is_the_mean_over_the_counted_frames():
    time, target = torch.tensor([[1.0], [5.0], [9.0]]), torch.tensor([[1.5], [5.0], [0.0]])
    counted = torch.tensor([True, True, False])
    assert regression_loss(time, target, counted) == regression_loss(time[:2], target[:2])


def test_an_empty_mask_gives_zero_and_no_gradient():
    time = torch.tensor([[1.0], [5.0]], requires_grad=True)
    loss = regression_loss(time, torch.zeros(2, 1), torch.tensor([False, False]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(time.grad, torch.zeros(2, 1))


def test_uncertainty_weighting_starts_at_the_fixed_weights_and_finds_its_optimum():
    """At s = 0 the total is the weighted sum; for constant losses the optimum is s = log(2 w L)."""
    weighting = UncertaintyWeighting()
    terms = LossTerms(torch.tensor(0.0), torch.tensor(0.5), torch.tensor(8.0))
    assert weighting(terms, 2.0, 0.25).total.item() == pytest.approx(2.0 * 0.5 + 0.25 * 8.0)
    optimizer = torch.optim.LBFGS(weighting.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        total = weighting(terms, 2.0, 0.25).total
        total.backward()
        return total

    optimizer.step(closure)
    expected = [math.log(2 * 2.0 * 0.5), math.log(2 * 0.25 * 8.0)]
    assert weighting.log_variance.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("wc", "wr"), [(1.0, 0.0), (0.0, 1.0), (3.0, 0.5)])
def test_weights_scale_their_own_gradient_only(wc, wr):
    torch.manual_seed(0)
    logits, time = torch.randn(4, 2, requires_grad=True), torch.randn(4, 1, requires_grad=True)
    label, target = torch.tensor([0, 1, 1, 0]), torch.randn(4, 1)
    one = torch.autograd.grad(multitask_loss(logits, time, label, target).total, [logits, time])
    other = torch.autograd.grad(
        multitask_loss(logits, time, label, target, classification_weight=wc, regression_weight=wr).total,
        [logits, time],
    )
    torch.testing.assert_close(other[0], wc * one[0])
    torch.testing.assert_close(other[1], wr * one[1])
