"""The optimizer: plain Adam without scales, and one step for all replicas with them."""

from __future__ import annotations

import copy

import pytest
import torch

from spars.models.replica_adam import ReplicaAdam


def _train(optimizer, parameters, steps=60):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.1
        optimizer.step()


def test_without_scales_it_is_adam():
    ours, theirs = ([torch.ones(3, 4, dtype=torch.float64, requires_grad=True)] for _ in range(2))
    _train(ReplicaAdam(ours, lr=1e-2), ours)
    _train(torch.optim.Adam(theirs, lr=1e-2, eps=1e-5), theirs)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [1.0, 1e-5], ids=["large gradients", "gradients like epsilon"])
def test_a_scaled_weight_moves_like_its_replicas(size):
    torch.manual_seed(0)
    counts = torch.tensor([1, 3, 8])
    replicas = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    owner = torch.repeat_interleave(torch.arange(3), counts)
    sums = torch.zeros(2, 3, dtype=torch.float64).index_add_(1, owner, replicas.detach())
    root = counts.double().sqrt()
    scaled = (sums / root).requires_grad_()
    plain = torch.optim.Adam([replicas], lr=1e-2, eps=1e-5)
    ours = ReplicaAdam([{"params": [scaled], "scale": root}], lr=1e-2)
    for step in range(60):
        x = size * torch.randn(3, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for weight, inputs, optimizer in ((replicas, x[owner], plain), (scaled, root[:, None] * x, ours)):
            optimizer.zero_grad()
            (weight @ inputs).sin().sum().backward()
            optimizer.step()
        torch.testing.assert_close(replicas.grad.norm(), scaled.grad.norm(), rtol=1e-11, atol=0.0)
    moved = torch.zeros(2, 3, dtype=torch.float64).index_add_(1, owner, replicas.detach())
    torch.testing.assert_close(scaled.detach() * root, moved, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(moved, sums, atol=1e-3)


def test_state_is_saved_and_resumed():
    def fresh():
        return [torch.ones(2, 3, dtype=torch.float64, requires_grad=True)]

    def build(parameters):
        return ReplicaAdam([{"params": parameters, "scale": torch.tensor([1.0, 2.0, 3.0])}], lr=1e-2)

    whole = fresh()
    optimizer = build(whole)
    _train(optimizer, whole, 5)
    resumed = [whole[0].detach().clone().requires_grad_()]
    other = build(resumed)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _train(optimizer, whole, 5)
    _train(other, resumed, 5)
    assert torch.equal(whole[0], resumed[0])


def test_closure():
    parameter = torch.ones(2, requires_grad=True)
    optimizer = ReplicaAdam([parameter], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2
    assert parameter[0].item() == pytest.approx(0.9, abs=1e-5)
