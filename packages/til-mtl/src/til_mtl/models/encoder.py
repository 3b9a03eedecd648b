"""Encoders: the ResNet-50 trunk with the original's checkpoint keys, and any convolutional network of timm."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import Tensor, nn

from til_mtl.config import STAGES
from til_mtl.errors import DataError
from til_mtl.models.encoder_weights import load_encoder

__all__ = ["RESNET50", "Encoder", "Features", "build_encoder", "load_encoder"]

RESNET50 = "resnet50"
_PROBE_PX = 64  # side of the image that a timm encoder is tried with
_STAGE_STRIDES = (2, 4, 8, 16)  # of the outputs of conv1, layer1, layer2, layer3


class Features(NamedTuple):
    """What the decoder needs of an image."""

    c2: Tensor  # [B, 512, H/8, W/8] in ResNet-50
    c3: Tensor  # [B, 1024, H/16, W/16]

    def channels_last(self) -> Features:
        """Return the same features in the memory layout of a network that is in it."""
        return Features(*(part.contiguous(memory_format=torch.channels_last) for part in self))


class Encoder(NamedTuple):
    """An encoder in parts, as the network holds them.

    Attributes:
        modules: Name → module, in the order of the forward pass; parameters of the network get these names.
        channels: Of c2 and c3.
        stages: Per stage (conv1, layer1, layer2, layer3) the modules that it consists of.
    """

    modules: dict[str, nn.Module]
    channels: tuple[int, int]
    stages: dict[str, tuple[nn.Module, ...]]


def build_encoder(name: str) -> Encoder:
    """Build an encoder with random weights.

    Args:
        name: ``resnet50``, or the name of a timm network that gives maps of strides 8 and 16.

    Returns:
        The parts: ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``layer1`` … ``layer3`` for ResNet-50, each wrapped in a
        ``Sequential`` of its own as in the original; ``encoder`` for networks of timm.

    Raises:
        DataError: timm does not know the name, or the network's maps do not fit.
    """
    return _resnet50() if name == RESNET50 else _timm_encoder(name)


def _resnet50() -> Encoder:
    from torchvision.models import resnet

    trunk = resnet.resnet50(weights=None)
    names = ("conv1", "bn1", "relu", "maxpool", *STAGES[1:])
    modules: dict[str, nn.Module] = {name: nn.Sequential(trunk.get_submodule(name)) for name in names}
    stages: dict[str, tuple[nn.Module, ...]] = {name: (modules[name],) for name in STAGES}
    stages["conv1"] = (modules["conv1"], modules["bn1"])
    return Encoder(modules, (512, 1024), stages)


def _timm_encoder(name: str) -> Encoder:
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=6)
        raise DataError(
            f"encoder: timm knows no network {name!r}; similar names: {', '.join(near) or 'none'}"
        )
    try:
        probe = timm.create_model(name, pretrained=False, features_only=True)
        strides = [int(stride) for stride in probe.feature_info.reduction()]  # type: ignore[union-attr]
        wanted = (strides.index(8), strides.index(16))
        network = timm.create_model(name, pretrained=False, features_only=True, out_indices=wanted)
    except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise DataError(
            f"encoder: {name} gives no maps of strides 8 and 16, which the decoder needs; "
            "choose a convolutional network, e.g. resnet18 or convnext_tiny"
        ) from error
    channels = [int(count) for count in network.feature_info.channels()]  # type: ignore[union-attr]
    _check_maps(name, network, channels)
    ends = {int(info["reduction"]): str(info["module"]) for info in probe.feature_info.info}  # type: ignore[union-attr]
    return Encoder({"encoder": network}, (channels[0], channels[1]), _timm_stages(network, ends))


def _check_maps(name: str, network: nn.Module, channels: Sequence[int]) -> None:
    """Run the network once, because the shapes that timm announces are not always those that come."""
    network.eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, _PROBE_PX, _PROBE_PX))
    network.train()
    found = [tuple(each.shape[1:]) for each in maps]
    expected = [
        (channels[0], _PROBE_PX // 8, _PROBE_PX // 8),
        (channels[1], _PROBE_PX // 16, _PROBE_PX // 16),
    ]
    if found != expected:
        raise DataError(
            f"encoder: {name} gives maps {found} for an image of {_PROBE_PX} px, expected {expected} "
            "(channels, height, width); choose a convolutional network, e.g. resnet18 or convnext_tiny"
        )


def _timm_stages(network: nn.Module, ends: dict[int, str]) -> dict[str, tuple[nn.Module, ...]]:
    """Cut the network's modules, in their order, behind those that give the maps of stride 2, 4, 8 and 16.

    Only modules that own numbers, and leaves, are listed: a container may reach across a cut.
    """
    parts = {
        name: module
        for name, module in network.named_modules()
        if name
        and (
            next(module.children(), None) is None
            or next(module.parameters(recurse=False), None) is not None
            or next(module.buffers(recurse=False), None) is not None
        )
    }
    names = list(parts)
    stages: dict[str, tuple[nn.Module, ...]] = {}
    start = 0
    for stage, stride in zip(STAGES, _STAGE_STRIDES, strict=True):
        end = start
        for spelling in (ends.get(stride, ""), ends.get(stride, "").replace(".", "_")):
            inside = [
                index
                for index, name in enumerate(names)
                if spelling and f"{name}.".startswith(f"{spelling}.")
            ]
            end = max([end, *(index + 1 for index in inside)])
        if stage == STAGES[-1]:
            end = len(names)
        stages[stage] = tuple(parts[name] for name in names[start:end])
        start = end
    return stages
