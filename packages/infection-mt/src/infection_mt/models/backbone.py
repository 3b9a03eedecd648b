"""The ResNet feature extractor that all networks of this package share (torchvision ResNet, ``fc`` removed)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

_BLOCKS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),  # not in the paper: small enough for tests and demonstrations
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}


class PretrainedWeightsError(RuntimeError):
    """ImageNet weights were asked for and are not on this machine."""


class GrayStemConv(nn.Conv2d):
    """First convolution that also takes one channel in place of three equal ones.

    A convolution over three equal channels equals one over a single channel with the weights summed over the
    input channels, up to rounding; gray frames then need a third of the memory traffic. The parameters (and so
    the checkpoint keys) are those of a plain three-channel convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[B, 3, H, W]``, or ``[B, 1, H, W]`` standing for three equal channels."""
        if input.shape[1] == 1 and self.in_channels == 3:
            weight = self.weight.sum(dim=1, keepdim=True)
            return functional.conv2d(input, weight, self.bias, self.stride, self.padding)
        return super().forward(input)


def build_backbone(name: str, *, pretrained: bool = False, download: bool = False) -> tuple[ResNet, int]:
    """Build the feature extractor.

    Args:
        name: ``resnet10`` (new), ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101`` or ``resnet152``.
        pretrained: Start from torchvision's ``IMAGENET1K_V1`` weights.
        download: Allow fetching these weights when the torch cache lacks them.

    Returns:
        The network, mapping ``[B, 3, H, W]`` to ``[B, F]`` features, and F (512 or 2048).

    Raises:
        KeyError: The name is unknown.
        PretrainedWeightsError: Weights are wanted, not cached, and may not be downloaded.
    """
    if name not in _BLOCKS:
        raise KeyError(f"model.name: unknown backbone {name!r}; expected one of {', '.join(_BLOCKS)}")
    block, counts = _BLOCKS[name]
    network = ResNet(block, counts)
    stem = GrayStemConv(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
    stem.load_state_dict(network.conv1.state_dict())
    network.conv1 = stem
    if pretrained:
        network.load_state_dict(_imagenet_state(name, download=download))
    features = network.fc.in_features
    network.fc = nn.Identity()  # type: ignore[assignment]
    return network, features


def imagenet_cache_file(name: str) -> Path:
    """Return where torchvision's ImageNet V1 weights of ``name`` are looked for."""
    weights = _imagenet_entry(name)
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def _imagenet_entry(name: str):
    entry = getattr(resnet, f"ResNet{name.removeprefix('resnet')}_Weights", None)
    if entry is None:
        raise PretrainedWeightsError(
            f"model.pretrained: there are no ImageNet weights for {name}; set model.pretrained: false"
        )
    return entry.IMAGENET1K_V1


def _imagenet_state(name: str, *, download: bool) -> dict[str, Tensor]:
    weights = _imagenet_entry(name)
    cached = imagenet_cache_file(name)
    if not cached.exists() and not download:
        raise PretrainedWeightsError(
            f"model.pretrained: the ImageNet weights of {name} are not at {cached}. "
            "Allow the download with --download, put the file there, or set model.pretrained: false"
        )
    return dict(weights.get_state_dict(progress=False, check_hash=True))
