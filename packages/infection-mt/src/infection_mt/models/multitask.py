"""The multi-task network: one backbone, a classifier and a time regressor."""

from __future__ import annotations

import torch
from torch import Tensor

from infection_mt.models.base import Outputs, ResNetBase
from infection_mt.models.heads import build_head


class MultiTaskResNet(ResNetBase):
    """``f = backbone(x); logits = classifier(f); time = regressor(f)`` or ``regressor([f, logits])``.

    With ``use_cls_conditioning`` the logits enter the regressor with their gradient, so the time loss also
    trains the classifier. With ``time_head="per_class"`` (not in the paper) the regressor has one output a
    class: training reads the output of the true class, inference averages them by class probability.

    Args:
        backbone_name: ResNet variant.
        pretrained: ImageNet weights.
        num_classes: Length C of the logits.
        dropout: Dropout of both heads, in [0, 1).
        train_backbone: False freezes the backbone.
        hidden_dim: Hidden width of both heads; 0 = linear.
        use_cls_conditioning: Feed the logits to the regressor.
        time_head: ``shared`` or ``per_class``.
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
        hidden_dim: int = 256,
        use_cls_conditioning: bool = False,
        *,
        time_head: str = "shared",
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
        if time_head == "per_class" and num_classes < 2:
            raise ValueError("time_head 'per_class' needs num_classes of at least 2")
        self.use_cls_conditioning = use_cls_conditioning
        self.time_head = time_head
        self.classifier = build_head(self.num_features, num_classes, hidden_dim=hidden_dim, dropout=dropout)
        regressor_inputs = self.num_features + (num_classes if use_cls_conditioning else 0)
        regressor_outputs = num_classes if time_head == "per_class" else 1
        self.regressor = build_head(
            regressor_inputs, regressor_outputs, hidden_dim=hidden_dim, dropout=dropout
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, C]`` and time in hours ``[B, 1]``.

        Args:
            x: ``[B, 3, H, W]`` normalised frames (or ``[B, 1, H, W]`` for gray ones).
            label: ``[B]`` true classes, used only by the ``per_class`` time head while training.
        """
        features = self.get_features(x)
        logits = self.classifier(features)
        inputs = torch.cat([features, logits], dim=1) if self.use_cls_conditioning else features
        times = self.regressor(inputs)
        if self.time_head == "shared":
            return logits, times
        if label is not None:
            return logits, times.gather(1, label.view(-1, 1))
        weights = logits.detach().softmax(dim=1)
        return logits, (weights * times).sum(dim=1, keepdim=True)

    def outputs(self, x: Tensor, label: Tensor | None = None) -> Outputs:
        """Return both outputs by name."""
        return Outputs(*self(x, label))
