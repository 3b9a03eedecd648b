"""DeepLabv3+ with one shared decoder and two heads (tissue, cells), and its single-task counterpart.

Features of stride 16 pass a dilated fourth stage and the pyramid; its class maps join 48 channels of stride 8; two
3x3 convolutions follow. The original enlarges their 256 channels to the image's size and applies the 1x1 heads there.
A 1x1 convolution commutes with bilinear interpolation (whose weights sum to 1), so the heads come first here: the same
numbers up to rounding without the largest tensor of the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from til_mtl.config import STAGES, Task
from til_mtl.models.aspp import ASPP_Bottleneck
from til_mtl.models.blocks import Bottleneck, make_layer
from til_mtl.models.encoder import RESNET50, Features, build_encoder

__all__ = ["Features", "Maps", "MultiTaskDeepLabv3Plus", "SingleTaskDeepLabv3Plus", "TilNetwork"]

LOW_LEVEL_CHANNELS = 48
DECODER_CHANNELS = 256
_RESNET_ORDER = ("conv1", "bn1", "relu", "maxpool", "layer1")


class Maps(NamedTuple):
    """Raw logits at the image's size; a map that the network does not have is None."""

    seg: Tensor | None  # [B, 3, H, W]
    det: Tensor | None  # [B, 2, H, W]


class TilNetwork(nn.Module, ABC):
    """Encoder, dilated fourth stage and low-level projection, which all networks share.

    Args:
        task: ``mtl``, ``seg`` or ``det``.
        encoder: See `build_encoder`.
        freeze_until: Last encoder stage whose parameters are fixed (``conv1``, ``layer1``, ``layer2``, ``layer3``);
            None trains all.
        freeze_bn: Keep the norms of frozen stages in evaluation mode; False restores the original, whose frozen encoder
            runs on batch statistics and updates the running ones.

    Attributes:
        task: What the network predicts.
        encoder_name: What the encoder is called.
        frozen_stages: Names of the frozen stages.
    """

    def __init__(self, task: Task, *, encoder: str, freeze_until: str | None, freeze_bn: bool) -> None:
        super().__init__()
        self.task: Task = task
        self.encoder_name = encoder
        self.freeze_bn = freeze_bn
        self.frozen_stages = STAGES[: STAGES.index(freeze_until) + 1] if freeze_until else ()
        parts = build_encoder(encoder)
        for name, module in parts.modules.items():
            self.add_module(name, module)
        frozen = {id(module) for stage in self.frozen_stages for module in parts.stages[stage]}
        # Names and not modules: converting norms for several GPUs puts others in their places.
        self._frozen = tuple(name for name, module in self.named_modules() if id(module) in frozen)
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(False)
        self.layer4 = make_layer(Bottleneck, parts.channels[1], channels=512, num_blocks=3, dilation=2)
        self.low_level_channels = parts.channels[0]

    def train(self, mode: bool = True) -> TilNetwork:
        """Set the mode; norms of frozen stages stay in evaluation mode with ``freeze_bn``."""
        super().train(mode)
        if self.freeze_bn:
            for name in self._frozen:
                self.get_submodule(name).eval()
        return self

    @property
    def encoder_is_constant(self) -> bool:
        """Whether the features of an image never change: all stages frozen, with their norms."""
        return self.frozen_stages == STAGES and self.freeze_bn

    def encode(self, x: Tensor) -> Features:
        """Map images ``[B, 3, H, W]`` to the features that the decoder needs."""
        if self.encoder_name != RESNET50:
            c2, c3 = self.get_submodule("encoder")(x)
            return Features(c2, c3)
        for name in _RESNET_ORDER:
            x = self.get_submodule(name)(x)
        c2 = self.get_submodule("layer2")(x)
        return Features(c2, self.get_submodule("layer3")(c2))

    @abstractmethod
    def decode(self, features: Features, size: tuple[int, int]) -> Maps:
        """Map features to logits of ``size`` = (H, W) pixels."""

    def maps(self, x: Tensor) -> Maps:
        """Map images ``[B, 3, H, W]`` to named logits, whatever the network."""
        return self.decode(self.encode(x), (x.shape[-2], x.shape[-1]))

    def _add_low_level(self) -> None:
        self.low_level_conv = nn.Conv2d(self.low_level_channels, LOW_LEVEL_CHANNELS, kernel_size=1)
        self.low_level_bn = nn.BatchNorm2d(LOW_LEVEL_CHANNELS)

    def _join(self, class_maps: Sequence[Tensor], c2: Tensor) -> Tensor:
        """Enlarge class maps to c2's size and append the low-level channels (which have no ReLU)."""
        low = self.low_level_bn(self.low_level_conv(c2))
        size = (low.shape[-2], low.shape[-1])
        return torch.cat([*(_resize(each, size) for each in class_maps), low], dim=1)


class MultiTaskDeepLabv3Plus(TilNetwork):
    """One network for tissue and cells; the original's ``DeepLabv3Plus`` of ``MTL/``, with its checkpoint keys.

    Args:
        num_classes_seg: Tissue classes.
        num_classes_det: Cell classes (background, cell).
        encoder: See `build_encoder`.
        freeze_until: Last frozen encoder stage, or None.
        freeze_bn: Whether frozen stages keep their norms fixed.
        aspp_rates: Dilations of the pyramid.
    """

    def __init__(
        self,
        num_classes_seg: int = 3,
        num_classes_det: int = 2,
        *,
        encoder: str = RESNET50,
        freeze_until: str | None = "layer3",
        freeze_bn: bool = True,
        aspp_rates: Sequence[int] = (6, 12, 18),
    ) -> None:
        super().__init__("mtl", encoder=encoder, freeze_until=freeze_until, freeze_bn=freeze_bn)
        self.aspp = ASPP_Bottleneck(num_classes_seg, num_classes_det, rates=aspp_rates)
        self._add_low_level()
        joined = num_classes_seg + num_classes_det + LOW_LEVEL_CHANNELS
        self.decoder_conv1 = nn.Conv2d(joined, DECODER_CHANNELS, kernel_size=3, padding=1)
        self.decoder_bn1 = nn.BatchNorm2d(DECODER_CHANNELS)
        self.decoder_conv2 = nn.Conv2d(DECODER_CHANNELS, DECODER_CHANNELS, kernel_size=3, padding=1)
        self.decoder_bn2 = nn.BatchNorm2d(DECODER_CHANNELS)
        self.final_conv_seg = nn.Conv2d(DECODER_CHANNELS, num_classes_seg, kernel_size=1)
        self.final_conv_det = nn.Conv2d(DECODER_CHANNELS, num_classes_det, kernel_size=1)
        self.train()

    def decode(self, features: Features, size: tuple[int, int]) -> Maps:
        """Map features to logits of ``size`` = (H, W) pixels."""
        z = self._join(self.aspp(self.layer4(features.c3)), features.c2)
        z = functional.relu(self.decoder_bn1(self.decoder_conv1(z)))
        z = functional.relu(self.decoder_bn2(self.decoder_conv2(z)))
        return Maps(_resize(self.final_conv_seg(z), size), _resize(self.final_conv_det(z), size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images ``[B, 3, H, W]`` to tissue logits ``[B, 3, H, W]`` and cell logits ``[B, 2, H, W]``."""
        seg, det = self.maps(x)
        assert seg is not None  # noqa: S101 - for type checkers: decode gives both
        assert det is not None  # noqa: S101
        return seg, det


class SingleTaskDeepLabv3Plus(TilNetwork):
    """One network for one task; the original's ``DeepLabv3Plus`` of ``STL/``, with its checkpoint keys.

    Its modules are called ``..._seg`` for cells too, as in the original.

    Args:
        num_classes: 3 for tissue, 2 for cells.
        task: ``seg`` or ``det``.
        encoder: See `build_encoder`.
        freeze_until: Last frozen encoder stage, or None.
        freeze_bn: Whether frozen stages keep their norms fixed.
        aspp_rates: Dilations of the pyramid.
    """

    def __init__(
        self,
        num_classes: int = 3,
        task: Task = "seg",
        *,
        encoder: str = RESNET50,
        freeze_until: str | None = "layer3",
        freeze_bn: bool = True,
        aspp_rates: Sequence[int] = (6, 12, 18),
    ) -> None:
        if task not in ("seg", "det"):
            raise ValueError(f"task: expected 'seg' or 'det' for a single-task network, found {task!r}")
        super().__init__(task, encoder=encoder, freeze_until=freeze_until, freeze_bn=freeze_bn)
        self.aspp_seg = ASPP_Bottleneck(num_classes, rates=aspp_rates)
        self._add_low_level()
        joined = num_classes + LOW_LEVEL_CHANNELS
        self.decoder_conv1_seg = nn.Conv2d(joined, DECODER_CHANNELS, kernel_size=3, padding=1)
        self.decoder_bn1 = nn.BatchNorm2d(DECODER_CHANNELS)
        self.decoder_conv2 = nn.Conv2d(DECODER_CHANNELS, DECODER_CHANNELS, kernel_size=3, padding=1)
        self.decoder_bn2 = nn.BatchNorm2d(DECODER_CHANNELS)
        self.final_conv_seg = nn.Conv2d(DECODER_CHANNELS, num_classes, kernel_size=1)
        self.train()

    def decode(self, features: Features, size: tuple[int, int]) -> Maps:
        """Map features to logits of ``size`` = (H, W) pixels."""
        z = self._join([self.aspp_seg(self.layer4(features.c3))], features.c2)
        z = functional.relu(self.decoder_bn1(self.decoder_conv1_seg(z)))
        z = functional.relu(self.decoder_bn2(self.decoder_conv2(z)))
        logits = _resize(self.final_conv_seg(z), size)
        return Maps(logits, None) if self.task == "seg" else Maps(None, logits)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, 3, H, W]`` to logits ``[B, classes, H, W]``."""
        seg, det = self.maps(x)
        logits = seg if seg is not None else det
        assert logits is not None  # noqa: S101 - for type checkers: decode gives one of them
        return logits


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
