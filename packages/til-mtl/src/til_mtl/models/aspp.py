"""Atrous spatial pyramid pooling: parallel dilated convolutions and the global average, then class maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from til_mtl.errors import TrainingError
from til_mtl.models.cropped_conv import CroppedConv2d

WIDTH = 256  # channels of every branch


class _Pyramid(nn.Module):
    """Five branches and their fusion; subclasses add the heads.

    Every convolution has a bias and is followed by a batch norm and ReLU.

    Args:
        in_channels: Channels of the input map.
        rates: Dilations of the three 3x3 branches, in pixels of the map.
        heads: Name → number of classes of each 1x1 head.
    """

    def __init__(self, in_channels: int, rates: Sequence[int], heads: dict[str, int]) -> None:
        super().__init__()
        self.conv_1x1_1 = nn.Conv2d(in_channels, WIDTH, kernel_size=1)
        self.bn_conv_1x1_1 = nn.BatchNorm2d(WIDTH)
        self.conv_3x3_1 = CroppedConv2d(in_channels, WIDTH, rates[0])
        self.bn_conv_3x3_1 = nn.BatchNorm2d(WIDTH)
        self.conv_3x3_2 = CroppedConv2d(in_channels, WIDTH, rates[1])
        self.bn_conv_3x3_2 = nn.BatchNorm2d(WIDTH)
        self.conv_3x3_3 = CroppedConv2d(in_channels, WIDTH, rates[2])
        self.bn_conv_3x3_3 = nn.BatchNorm2d(WIDTH)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_1x1_2 = nn.Conv2d(in_channels, WIDTH, kernel_size=1)
        self.bn_conv_1x1_2 = nn.BatchNorm2d(WIDTH)
        self.conv_1x1_3 = nn.Conv2d(5 * WIDTH, WIDTH, kernel_size=1)
        self.bn_conv_1x1_3 = nn.BatchNorm2d(WIDTH)
        self.heads = tuple(heads)
        for name, classes in heads.items():
            self.add_module(name, nn.Conv2d(WIDTH, classes, kernel_size=1))

    def forward(self, feature_map: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map ``[B, in_channels, h, w]`` to class maps ``[B, classes, h, w]``.

        Returns:
            One map, or a tuple (tissue, cells) where there are two heads.

        Raises:
            TrainingError: A batch of one patch in training mode: the norm of the pooled branch would see one value.
        """
        if self.training and len(feature_map) == 1:
            raise TrainingError(
                "a training batch of one patch: the batch norm after global pooling needs at least two; "
                "merge it with another batch, or drop it"
            )
        # The matrix products of the dilated branches read pixels-by-channels; converted once for all of them.
        feature_map = feature_map.contiguous(memory_format=torch.channels_last)
        height, width = feature_map.shape[-2:]
        pooled = functional.relu(self.bn_conv_1x1_2(self.conv_1x1_2(self.avg_pool(feature_map))))
        branches = (
            functional.relu(self.bn_conv_1x1_1(self.conv_1x1_1(feature_map))),
            functional.relu(self.bn_conv_3x3_1(self.conv_3x3_1(feature_map))),
            functional.relu(self.bn_conv_3x3_2(self.conv_3x3_2(feature_map))),
            functional.relu(self.bn_conv_3x3_3(self.conv_3x3_3(feature_map))),
            pooled.expand(-1, -1, height, width),  # bilinear upsampling of a single pixel
        )
        fused = functional.relu(self.bn_conv_1x1_3(self.conv_1x1_3(torch.cat(branches, dim=1))))
        maps = [self.get_submodule(name)(fused) for name in self.heads]
        return tuple(maps) if len(maps) > 1 else maps[0]


class ASPP_Bottleneck(_Pyramid):  # noqa: N801 - the original's name
    """The pyramid after a stage of bottleneck blocks.

    Args:
        num_classes_seg: Classes of the only head ``conv_1x1_4``, or of ``conv_1x1_seg`` when there are two.
        num_classes_det: Classes of ``conv_1x1_det``; None for the single-task pyramid.
        in_channels: Channels of the input map.
        rates: Dilations of the three 3x3 branches.
    """

    def __init__(
        self,
        num_classes_seg: int = 3,
        num_classes_det: int | None = None,
        *,
        in_channels: int = 2048,
        rates: Sequence[int] = (6, 12, 18),
    ) -> None:
        single = num_classes_det is None
        heads = (
            {"conv_1x1_4": num_classes_seg}
            if single
            else {"conv_1x1_seg": num_classes_seg, "conv_1x1_det": num_classes_det}
        )
        super().__init__(in_channels, rates, heads)


class ASPP(_Pyramid):
    """The pyramid after a stage of basic blocks; the original defines it and does not use it.

    Args:
        num_classes_seg: Classes of the only head ``conv_1x1_4``, or of ``head_seg`` when there are two.
        num_classes_det: Classes of ``head_det``; None for the single-task pyramid.
        in_channels: Channels of the input map.
        rates: Dilations of the three 3x3 branches.
    """

    def __init__(
        self,
        num_classes_seg: int = 3,
        num_classes_det: int | None = None,
        *,
        in_channels: int = 512,
        rates: Sequence[int] = (3, 6, 9),
    ) -> None:
        single = num_classes_det is None
        heads = (
            {"conv_1x1_4": num_classes_seg}
            if single
            else {"head_seg": num_classes_seg, "head_det": num_classes_det}
        )
        super().__init__(in_channels, rates, heads)
