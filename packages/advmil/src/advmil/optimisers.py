"""Optimisers by the names of the original, from torch and timm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

logger = logging.getLogger(__name__)

LOOKAHEAD = "lookahead_"
# What the original's factory named and what stands for it now. `{}` are the settings passed on.
_ALIASES = {
    "novograd": (
        "nvnovograd",
        "no maintained library has it; nvnovograd, a variant with other steps, is used",
    ),
    "fusedadam": ("adam", "torch's fused Adam is used"),
    "fusedadamw": ("adamw", "torch's fused AdamW is used"),
    "fusedsgd": ("sgd", "torch's fused SGD is used"),
    "fusedmomentum": ("momentum", "torch's fused SGD is used"),
}
_DEAD = {
    "fusedlamb": "it exists in a CUDA-only library that no longer builds; use adamw",
    "fusednovograd": "it exists in a CUDA-only library that no longer builds; use nvnovograd",
}


def _torch(name: str, **fixed: Any) -> Callable[..., Optimizer]:
    return lambda groups, **settings: getattr(torch.optim, name)(groups, **fixed, **settings)


def _timm(name: str, **fixed: Any) -> Callable[..., Optimizer]:
    def build(groups: Any, **settings: Any) -> Optimizer:
        import timm.optim  # takes seconds to import; only the rarer names need it

        return getattr(timm.optim, name)(groups, **fixed, **settings)

    return build


# Name -> (builder, whether it takes the momentum). The settings are those under which each was measured to take the
# original's steps.
_FACTORIES: dict[str, tuple[Callable[..., Optimizer], bool]] = {
    "sgd": (_torch("SGD", nesterov=True), True),
    "nesterov": (_torch("SGD", nesterov=True), True),
    "momentum": (_torch("SGD"), True),
    "adam": (_torch("Adam"), False),
    "adamw": (_torch("AdamW"), False),
    "adadelta": (_torch("Adadelta"), False),
    "nadam": (_timm("NAdamLegacy"), False),
    "radam": (_timm("RAdamLegacy"), False),
    "adamp": (_timm("AdamP", wd_ratio=0.01, nesterov=True), False),
    "sgdp": (_timm("SGDP", nesterov=True), True),
    "adafactor": (_timm("Adafactor", min_dim_size_to_factor=0), False),
    "adahessian": (_timm("Adahessian"), False),
    "rmsprop": (_torch("RMSprop", alpha=0.9), True),
    "rmsproptf": (_timm("RMSpropTF", alpha=0.9), True),
    "nvnovograd": (_timm("NvNovoGrad"), False),
}
OPTIMISERS = tuple(_FACTORIES)


def base_name(name: str) -> str:
    """Return an optimiser's name in lower case, without ``lookahead_``, with its stand-in where it has one.

    Raises:
        ValueError: The name is unknown, or nothing stands for it any more.
    """
    plain = name.lower().removeprefix(LOOKAHEAD)
    plain = _ALIASES[plain][0] if plain in _ALIASES else plain
    if plain in _DEAD:
        raise ValueError(f"optimiser {name!r} cannot be had: {_DEAD[plain]}")
    if plain not in _FACTORIES:
        import difflib

        close = difflib.get_close_matches(plain, OPTIMISERS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"optimiser {name!r}: expected one of {', '.join(OPTIMISERS)}{hint}")
    return plain


def needs_second_order(name: str) -> bool:
    """Whether an optimiser needs gradients that can be differentiated again (``backward(create_graph=True)``)."""
    return base_name(name) == "adahessian"


def parameter_groups(
    parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    freeze: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the original's two groups: first vectors and biases, without decay, then everything else.

    Args:
        parameters: A module, or names and parameters.
        weight_decay: Of the second group; at zero all parameters are one group.
        freeze: Names to leave out.
    """
    named: Iterator[tuple[str, nn.Parameter]] | Iterable[tuple[str, nn.Parameter]]
    named = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
    kept = [(name, p) for name, p in named if name not in freeze and p.requires_grad]
    if weight_decay <= 0:
        return [{"params": [p for _, p in kept], "weight_decay": 0.0}]

    def is_plain(name: str, p: nn.Parameter) -> bool:
        return p.ndim <= 1 or name.endswith(".bias")

    return [
        {"params": [p for name, p in kept if is_plain(name, p)], "weight_decay": 0.0},
        {"params": [p for name, p in kept if not is_plain(name, p)], "weight_decay": weight_decay},
    ]


def build_optimizer(
    name: str,
    parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    freeze: Collection[str] = (),
) -> Optimizer:
    """Build an optimiser.

    Args:
        name: One of :data:`OPTIMISERS`, in any case; ``lookahead_<name>`` wraps it (alpha 0.5, k 6). ``sgd`` is
            Nesterov's, as in the original; ``momentum`` is the plain one.
        parameters: A module, or names and parameters.
        lr: Learning rate.
        weight_decay: Of matrices; vectors and biases are never decayed.
        momentum: For the names that have one.
        freeze: Names of parameters to leave out.

    Raises:
        ValueError: Unknown name, or one that nothing stands for any more.
    """
    plain = base_name(name)
    asked = name.lower().removeprefix(LOOKAHEAD)
    if asked in _ALIASES:
        logger.warning("optimiser %s: %s", asked, _ALIASES[asked][1])
    build, has_momentum = _FACTORIES[plain]
    settings: dict[str, Any] = {"momentum": momentum} if has_momentum else {}
    if asked.startswith("fused"):
        settings["fused"] = True
    groups = parameter_groups(parameters, weight_decay, freeze)
    # Some libraries decay every group that does not say otherwise: each group here does.
    optimizer = build(groups, lr=lr, **settings)
    if name.lower().startswith(LOOKAHEAD):
        from timm.optim.lookahead import Lookahead

        optimizer = Lookahead(optimizer, alpha=0.5, k=6)
    return optimizer
