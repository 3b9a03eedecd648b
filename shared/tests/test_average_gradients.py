"""Gradients of several processes, with the exchange played by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medshared import distributed
from medshared.distributed import average_gradients


@pytest.fixture
def meet(monkeypatch):
    """Pretend that there are two processes, of which the other one has the gradients of the network given."""

    def play(other: nn.Module, used: int = 4) -> None:
        theirs, asked = list(other.parameters()), []

        def summed(values: torch.Tensor) -> torch.Tensor:
            asked.append(1)
            if len(asked) == 1:
                return values + torch.tensor([float(p.grad is not None) for p in theirs])
            return values + torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in theirs[:used]]
            )

        monkeypatch.setattr(distributed, "_met", lambda: True)
        monkeypatch.setattr(distributed, "process_count", lambda: 2)
        monkeypatch.setattr(distributed, "summed", summed)

    return play


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_gradients_become_the_mean_of_both_processes(meet):
    mine, theirs, whole = network(), network(), network()
    x = torch.rand(4, 3)
    mine(x[:2]).mean().backward()
    theirs(x[2:]).mean().backward()
    whole(x).mean().backward()
    meet(theirs)
    average_gradients(mine.parameters())
    for p, q in zip(mine.parameters(), whole.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).abs().max() < 1e-6


def test_a_part_that_one_process_did_not_use_counts_as_zero(meet):
    mine, theirs = network(), network()
    mine[0](torch.rand(2, 3)).sum().backward()  # type: ignore[index]
    theirs(torch.rand(2, 3)).sum().backward()
    meet(theirs)
    average_gradients(mine.parameters())
    for p, q in zip(mine[1].parameters(), theirs[1].parameters(), strict=True):  # type: ignore[index]
        assert torch.equal(p.grad, q.grad / 2)


def test_a_part_that_nobody_used_keeps_no_gradient(meet):
    """The optimiser must leave it alone, as it does in one process."""
    mine, theirs = network(), network()
    meet(theirs, used=2)
    for each in (mine, theirs):
        each[0](torch.rand(2, 3)).sum().backward()  # type: ignore[index]
    average_gradients(mine.parameters())
    assert all(p.grad is None for p in mine[1].parameters())  # type: ignore[index]
    assert all(p.grad is not None for p in mine[0].parameters())  # type: ignore[index]
