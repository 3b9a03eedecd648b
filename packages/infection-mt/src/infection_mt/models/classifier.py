"""The single-task classifier."""

from __future__ import annotations

from torch import Tensor

from infection_mt.models.base import Outputs, ResNetBase
from infection_mt.models.heads import build_head


class ResNetClassifier(ResNetBase):
    """Backbone and one linear layer; a hidden layer only when asked for (then it equals the multi-task head).

    Args:
        backbone_name: ResNet variant.
        pretrained: ImageNet weights.
        num_classes: Number of logits; 1 for a binary logit.
        dropout: In [0, 1).
        train_backbone: False freezes the backbone.
        hidden_dim: Hidden width; 0 as in the original.
        freeze_bn: See :class:`ResNetBase`.
        download: Allow fetching ImageNet weights.
    """

    def __init__(
        self,
        backbone_name: str = "resnet50",
        pretrained: bool = True,
        num_classes: int = 2,
        dropout: float = 0.2,
        train_backbone: bool = True,
        *,
        hidden_dim: int = 0,
        freeze_bn: bool = True,
        download: bool = False,
    ) -> None:
        super().__init__(
            backbone_name,
            pretrained=pretrained,
            train_backbone=train_backbone,
            freeze_bn=freeze_bn,
            download=download,
        )
        self.classifier = build_head(self.num_features, num_classes, hidden_dim=hidden_dim, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of frames ``[B, 3, H, W]``."""
        return self.classifier(self.get_features(x))

    def outputs(self, x: Tensor, label: Tensor | None = None) -> Outputs:
        """Return the logits; there is no time output."""
        return Outputs(self(x), None)
