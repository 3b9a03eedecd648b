"""Small parts that several networks are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Normalisation over the channels of every pixel of a map ``[B,C,H,W]``."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def reset_parameters(self) -> None:
        """Set scale 1 and shift 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def last(self, x: Tensor) -> Tensor:
        """Normalise ``[...,C]``, channels last."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map ``[B,C,H,W]``."""
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DerivedTables:
    """Tables that follow from weights, kept while no gradient is wanted and the weights do not change.

    A training step changes the weights between any two calls, and its graph must hold the tables; so nothing is
    kept while gradients are on.
    """

    def __init__(self) -> None:
        self._kept: dict[object, tuple[tuple[object, ...], Tensor]] = {}

    def get(self, name: object, make: Callable[[], Tensor], *sources: Tensor) -> Tensor:
        """Return ``make()``, or what it returned when the ``sources`` were last as they are now."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(s.is_inference() for s in sources):
            self._kept.pop(name, None)
            return make()
        state = tuple((id(s), s.data_ptr(), s._version, s.device, s.dtype) for s in sources)
        kept = self._kept.get(name)
        if kept is None or kept[0] != state or kept[1].is_inference() != torch.is_inference_mode_enabled():
            kept = state, make()
            self._kept[name] = kept
        return kept[1]

    def __deepcopy__(self, memo: dict[int, object]) -> DerivedTables:
        return DerivedTables()

    def __getstate__(self) -> dict[str, object]:
        return {"_kept": {}}
