"""Gradients of several devices, with the exchange played by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aespa.gradients import average_gradients


class TwoDevices:
    """Stands for a Fabric of two processes, of which the other one sends what is given here."""

    device = torch.device("cpu")

    def __init__(self, other: nn.Module, used: int = 4) -> None:
        self.other, self.used = other, used
        self.asked = 0

    def all_reduce(self, values: torch.Tensor, reduce_op: str) -> Any:
        self.asked += 1
        theirs = list(self.other.parameters())
        if self.asked == 1:
            assert reduce_op == "sum"
            return values + torch.tensor([float(p.grad is not None) for p in theirs])
        assert reduce_op == "mean"
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in theirs[: self.used]]
        )
        return (values + flat) / 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_gradients_become_the_mean_of_both_devices():
    mine, theirs, whole = network(), network(), network()
    x = torch.rand(4, 3)
    mine(x[:2]).mean().backward()
    theirs(x[2:]).mean().backward()
    whole(x).mean().backward()
    average_gradients(TwoDevices(theirs), mine)  # type: ignore[arg-type]
    for p, q in zip(mine.parameters(), whole.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).abs().max() < 1e-6


def test_a_part_that_one_device_did_not_use_counts_as_zero():
    mine, theirs = network(), network()
    mine[0](torch.rand(2, 3)).sum().backward()  # type: ignore[index]
    theirs(torch.rand(2, 3)).sum().backward()
    average_gradients(TwoDevices(theirs), mine)  # type: ignore[arg-type]
    for p, q in zip(mine[1].parameters(), theirs[1].parameters(), strict=True):  # type: ignore[index]
        assert torch.equal(p.grad, q.grad / 2)


def test_a_part_that_nobody_used_keeps_no_gradient():
    """The optimiser must leave it alone, as it does on one device."""
    mine, theirs = network(), network()
    fabric = TwoDevices(theirs, used=2)
    for each in (mine, theirs):
        each[0](torch.rand(2, 3)).sum().backward()  # type: ignore[index]
    average_gradients(fabric, mine)  # type: ignore[arg-type]
    assert all(p.grad is None for p in mine[1].parameters())  # type: ignore[index]
    assert all(p.grad is not None for p in mine[0].parameters())  # type: ignore[index]
