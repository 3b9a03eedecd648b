"""What the three networks have in common: a backbone that can be frozen, and two named outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from infection_mt.models.backbone import build_backbone


class Outputs(NamedTuple):
    """What a network says of a batch; an output that the network does not have is None."""

    logits: Tensor | None  # [B, C]
    time: Tensor | None  # [B, 1] hours


class ResNetBase(nn.Module, ABC):
    """A ResNet backbone under the attribute ``backbone``.

    Args:
        backbone_name: See :func:`infection_mt.models.backbone.build_backbone`.
        pretrained: ImageNet weights.
        train_backbone: False freezes the backbone's parameters.
        freeze_bn: Keep a frozen backbone in evaluation mode, so that its batch-norm statistics stay as they
            are; False restores the original's drift.
        download: Allow fetching ImageNet weights.
    """

    def __init__(
        self, backbone_name: str, *, pretrained: bool, train_backbone: bool, freeze_bn: bool, download: bool
    ) -> None:
        super().__init__()
        self.backbone, self.num_features = build_backbone(
            backbone_name, pretrained=pretrained, download=download
        )
        self.train_backbone = train_backbone
        self.freeze_bn = freeze_bn
        if not train_backbone:
            self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNetBase:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.train_backbone and self.freeze_bn:
            self.backbone.eval()
        return self

    def get_features(self, x: Tensor) -> Tensor:
        """Return ``[B, F]`` features of ``[B, 3, H, W]`` (or ``[B, 1, H, W]`` gray) inputs."""
        return self.backbone(x)

    @abstractmethod
    def outputs(self, x: Tensor, label: Tensor | None = None) -> Outputs:
        """Return the outputs by name, whatever the network."""
