"""Adam for weights that stand for many replicas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer


class ReplicaAdam(Optimizer):
    """Adam whose step on a scaled weight is the one that plain Adam takes on each of its replicas.

    Weights W_i of replicas i = 1…r of an input act through their sum W' alone and get the same gradient g = ∂L/∂W'.
    This optimizer sees S = W'/√r, whose gradient √r·g has the norm of all r gradients together, so that clipping by the
    total norm needs no care. Plain Adam moves each replica by Δ = −lr·m/(√v + ε), hence S by √r·Δ, with m and v of g.
    In terms of the moments of √r·g, which are √r·m and r·v, that is the step with lr and ε multiplied by √r.

    Args:
        params: Parameters, or groups of them; the key ``scale`` of a group is √r, a tensor that broadcasts to its
            parameters, or None for plain Adam.
        lr: Learning rate.
        betas: Decay of both moments.
        eps: ε; the default is that of stable-baselines3.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "scale": None})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Computes the loss anew, as in all of torch's optimizers.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        mean: Tensor = state["exp_avg"].lerp_(gradient, 1 - first)
        square: Tensor = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        step_size = group["lr"] / (1 - first ** state["step"])
        denominator = square.sqrt().div_(math.sqrt(1 - second ** state["step"]))
        scale: Tensor | None = group["scale"]
        if scale is None:
            parameter.addcdiv_(mean, denominator.add_(group["eps"]), value=-step_size)
        else:
            scale = scale.to(parameter)
            denominator.add_(scale, alpha=group["eps"])
            parameter.addcmul_(mean.div(denominator), scale, value=-step_size)
