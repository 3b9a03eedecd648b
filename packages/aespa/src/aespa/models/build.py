"""New networks with seeded weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aespa.models.architecture import Architecture
from aespa.models.attention import RelativeAttention
from aespa.models.em import EMMeanVariance
from aespa.models.image_encoder import ImageEncoder
from aespa.models.network import AespaNetwork

_DRAWS = (Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)
INITIAL_VARIANCE = 0.02  # of a component, where the means are spread over the probabilities


def build_network(architecture: Architecture, *, generator: torch.Generator | None = None) -> AespaNetwork:
    """Return a network with random weights.

    Args:
        architecture: what to build.
        generator: of the weights; without one, a fixed seed. The global generator is left as it was.

    Returns:
        The network, on the CPU, in training mode.
    """
    seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator).item())
    network = empty_network(architecture)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        _initialise(network)
    return network


def empty_network(architecture: Architecture, device: str | torch.device = "cpu") -> AespaNetwork:
    """Return a network whose weights are still to be written: drawing 94 million of them takes a second."""
    with torch.device(device), _Undrawn():
        return AespaNetwork(architecture)


class _Undrawn(TorchFunctionMode):
    """Leaves weights as memory has them (the meta device does too, but imports PyTorch's compiler for seconds)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function, unless it draws."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _initialise(network: AespaNetwork) -> None:
    """Draw all weights: layers first, then what holds them and knows better."""
    for module in reversed(list(network.modules())):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    _initialise_encoder(network.image_encoder)
    uniform = torch.rand_like(network.initial_responsibilities)
    network.initial_responsibilities.copy_(uniform / uniform.sum())
    if network.architecture.variance == "softplus":
        _spread_components(network.EM_mean_variance)


def _initialise_encoder(encoder: ImageEncoder) -> None:
    """Draw the transformer's weights as vision transformers are trained from scratch; relative places add nothing."""
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, RelativeAttention):
            nn.init.zeros_(module.rel_h)
            nn.init.zeros_(module.rel_w)


def _spread_components(em: EMMeanVariance) -> None:
    """Spread the means over the probabilities: components that start alike answer alike for every value."""
    k = em.n_components
    em.fc3.bias[:k] += torch.linspace(0, 1, k)
    em.fc3.bias[k:] += math.log(math.expm1(INITIAL_VARIANCE))
