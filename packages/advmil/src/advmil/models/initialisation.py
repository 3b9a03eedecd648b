"""How the networks' weights start."""

from __future__ import annotations

import math

from torch import nn


def initialise_xavier(module: nn.Module) -> None:
    """Give every linear layer Xavier-uniform weights and zero biases (generator, ``surv_reg``, ``surv_nll``).

    The projections inside attention layers and convolutions keep torch's own start, as in the original.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialise_narrow(module: nn.Module) -> None:
    """Give linear layers U(-s, s) with ``s = 0.5 / sqrt(in)`` and convolutions ``s = 1 / sqrt(in k^2)`` (``surv_cox``).

    Weights and biases alike; batch norms get weights U(0, 1) and zero biases.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            _uniform(part, 0.5 / math.sqrt(part.in_features))
        elif isinstance(part, nn.Conv2d):
            _uniform(part, 1.0 / math.sqrt(part.in_channels * math.prod(part.kernel_size)))
        elif isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
            nn.init.uniform_(part.weight)
            nn.init.zeros_(part.bias)


def _uniform(layer: nn.Linear | nn.Conv2d, bound: float) -> None:
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound)
