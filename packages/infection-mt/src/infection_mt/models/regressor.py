"""The single-task time regressor."""

from __future__ import annotations

from torch import Tensor

from infection_mt.models.base import Outputs, ResNetBase
from infection_mt.models.heads import build_head


class ResNetRegressor(ResNetBase):
    """Backbone and the regression head of the multi-task network.

    Args:
        backbone_name: ResNet variant.
        pretrained: ImageNet weights.
        dropout: In [0, 1).
        train_backbone: False freezes the backbone.
        hidden_dim: Hidden width; 0 = linear.
        freeze_bn: See :class:`ResNetBase`.
        download: Allow fetching ImageNet weights.
    """

    def __init__(
        self,
        backbone_name: str = "resnet50",
        pretrained: bool = True,
        dropout: float = 0.2,
        train_backbone: bool = True,
        hidden_dim: int = 256,
        *,
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
        self.regressor = build_head(self.num_features, 1, hidden_dim=hidden_dim, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return time in hours ``[B, 1]`` of frames ``[B, 3, H, W]``."""
        return self.regressor(self.get_features(x))

    def outputs(self, x: Tensor, label: Tensor | None = None) -> Outputs:
        """Return the time; there are no logits."""
        return Outputs(None, self(x))
