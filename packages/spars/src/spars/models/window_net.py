"""A small classifier that looks at windows in their own size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spars.errors import DataError

Size = tuple[int, int, int]

# Of the running statistics: trainings last a few hundred steps, and with 0.1 the statistics of evaluation lag behind
# the weights; a channel averages tens of thousands of voxels in a batch, so that more memory is not needed.
MOMENTUM = 0.3
SMALLEST = 4  # voxels along the shortest side of a window: two halvings leave one


class WindowNet(nn.Module):
    """Does a window hold tumour? Convolutions at the window's own size, then the mean and the maximum over its map.

    Every stage is convolution (3×3×3, edges repeated) → batch norm → ReLU → maximum of 2×2×2, with twice the channels
    of the one before; two stages for windows of 8 voxels along the shortest side, three from 16, four from 32. The
    maximum over the map answers "any tumour voxel?" wherever the tumour lies, the mean says what surrounds it. A
    window of 12×12×8 takes 0.75 M multiply-adds, against 3,119 M of :class:`spars.models.net.Net`.

    Args:
        window: Size of the windows in voxels; sets the number of stages only.
        width: Channels of the first convolution.
        hidden: Width of the linear layer before the logits.

    Raises:
        DataError: The window is too small.
    """

    def __init__(self, window: Size, width: int = 8, hidden: int = 32) -> None:
        super().__init__()
        if min(window) < SMALLEST:
            raise DataError(
                f"WindowNet needs windows of at least {SMALLEST} voxels along every axis, found "
                f"{'×'.join(map(str, window))}; choose a larger window"
            )
        self.window: Size = (int(window[0]), int(window[1]), int(window[2]))
        self.width = width
        stages = min(4, max(2, int(math.log2(min(window))) - 1))
        self.stages = nn.ModuleList()
        channels = 1
        for stage in range(stages):
            self.stages.append(_Stage(channels, width * 2**stage))
            channels = width * 2**stage
        self.hidden = nn.Linear(2 * channels, hidden)
        self.logits = nn.Linear(hidden, 2)

    def features(self, x: Tensor) -> Tensor:
        """Map windows ``[n, 1, wx, wy, wz]`` to the last feature map ``[n, channels, …]``."""
        for stage in self.stages:
            x = stage(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """Map the last feature map to logits ``[n, 2]`` of "no tumour" and "tumour"."""
        flat = features.flatten(2)
        pooled = torch.cat([flat.mean(2), flat.amax(2)], dim=1)
        return self.logits(torch.relu(self.hidden(pooled)))

    def forward(self, x: Tensor) -> Tensor:
        """Map windows ``[n, 1, wx, wy, wz]``, intensities scaled to [0, 1], to logits ``[n, 2]``.

        Raises:
            DataError: The windows have another size than the network was built for.
        """
        if x.ndim != 5 or tuple(x.shape[1:]) != (1, *self.window):
            raise DataError(
                f"WindowNet was built for windows [n, 1, {', '.join(map(str, self.window))}], found {list(x.shape)}; "
                "cut windows of its size, or train a network for this one"
            )
        return self.classify(self.features(x))


class _Stage(nn.Sequential):
    """Convolution, norm, ReLU, and the maximum of 2×2×2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        # Repeated edges: zeros, which mean air, would look like an edge of tissue on each face of a window.
        convolution = nn.Conv3d(
            in_channels, channels, kernel_size=3, padding=1, padding_mode="replicate", bias=False
        )
        super().__init__(
            convolution, nn.BatchNorm3d(channels, momentum=MOMENTUM), nn.ReLU(), nn.MaxPool3d(2, 2)
        )
