"""Optimisers take the original's steps."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from advmil.optimisers import OPTIMISERS, build_optimizer, needs_second_order, parameter_groups

SUBSTITUTES = {"novograd"}  # stands for another optimiser, so its steps differ


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.n, self.b = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 1)

    def forward(self, x):
        return self.b(torch.tanh(self.n(self.a(x))))


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_steps_equal_the_original(golden_npz, golden_json, fill_golden_weights):
    facts, arrays = golden_json("optimisers"), golden_npz("optimisers")
    x, y = torch.from_numpy(arrays["X"]), torch.from_numpy(arrays["Y"])
    assert set(facts["results"]) - SUBSTITUTES <= set(OPTIMISERS) | {"lookahead_adam", "lookahead_radam"}
    for name, expected in facts["results"].items():
        if name in SUBSTITUTES:
            continue
        net = fill_golden_weights(Small(), facts["seed"]).double()
        torch.manual_seed(0)  # adahessian draws
        optimizer = build_optimizer(
            name, net, facts["lr"], facts["weight_decay"], expected["momentum"] or 0.9
        )
        groups = [[len(group["params"]), group["weight_decay"]] for group in optimizer.param_groups]
        assert groups == expected["groups"], name
        seen = []
        for _ in range(facts["steps"]):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward(create_graph=needs_second_order(name))
            optimizer.step()
            seen.append(loss.item())
        tolerance = 1e-7 if name == "adahessian" else 1e-9
        assert seen == pytest.approx(expected["losses"], abs=tolerance), name
        final = {key: p.detach().norm().item() for key, p in net.named_parameters()}
        assert final == pytest.approx(expected["final"], abs=tolerance * 10), name


def test_substitutes_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        optimizer = build_optimizer("NovoGrad", Small(), 0.01)
    assert type(optimizer).__name__ == "NvNovoGrad"
    assert "nvnovograd" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [("fusedlamb", "use adamw"), ("adma", "did you mean adam"), ("lookahead_", "expected one of sgd")],
)
def test_names_that_cannot_be_had(name, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(name, Small(), 0.01)


def test_groups_leave_out_what_is_frozen():
    groups = parameter_groups(Small(), 0.1, freeze=("n.weight", "n.bias"))
    assert [len(group["params"]) for group in groups] == [2, 2]
    assert len(parameter_groups(Small(), 0.0)) == 1
