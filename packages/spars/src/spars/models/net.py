"""The original's object-presence classifier: four strided convolutions and five linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spars.errors import DataError

Size = tuple[int, int, int]

FULL_SHAPE: Size = (256, 256, 180)  # what the original stretches every crop to
CHANNELS = (8, 16, 32, 64)  # after each convolution
WIDTHS = (1600, 800, 400, 128)  # of the linear layers before the two logits


class Net(nn.Module):
    """``Net`` of ``net_global.py``: does a crop, stretched to a fixed size, hold tumour?

    Each of the first three stages is convolution (3×3×3, no padding; stride 1, then 2) → batch norm → ReLU → maximum
    of 2×2×2; the fourth has no maximum. At 256×256×180 the last map is 3×3×2 with 64 channels: 3,570,738 parameters
    under the original's 38 names, 3.1 G multiply-adds. The numbers that it was trained on are raw HU.

    Args:
        in_shape: Size of the stretched crops in voxels; sets the width of the first linear layer. Other sizes are
            accepted where they give a last map of the same size (236–299 and 172–235 voxels for the default).

    Raises:
        DataError: ``in_shape`` is too small for the four stages.
    """

    def __init__(self, in_shape: Size = FULL_SHAPE) -> None:
        super().__init__()
        self.in_shape: Size = (int(in_shape[0]), int(in_shape[1]), int(in_shape[2]))
        self.map_shape = last_map(self.in_shape)
        if min(self.map_shape) < 1:
            raise DataError(
                f"Net needs crops of at least 108×108×108 voxels, found in_shape {_text(self.in_shape)}; give a larger "
                "target_size, or use the architecture `window`, which takes windows as they are"
            )
        self.conv1 = nn.Conv3d(1, CHANNELS[0], kernel_size=3)
        self.bn1 = nn.BatchNorm3d(CHANNELS[0])
        self.pool = nn.MaxPool3d(2, 2)  # after each of the first three stages
        self.conv2 = nn.Conv3d(CHANNELS[0], CHANNELS[1], kernel_size=3, stride=2)
        self.bn2 = nn.BatchNorm3d(CHANNELS[1])
        self.conv3 = nn.Conv3d(CHANNELS[1], CHANNELS[2], kernel_size=3, stride=2)
        self.bn3 = nn.BatchNorm3d(CHANNELS[2])
        self.conv4 = nn.Conv3d(CHANNELS[2], CHANNELS[3], kernel_size=3, stride=2)
        self.bn4 = nn.BatchNorm3d(CHANNELS[3])
        a, b, c = self.map_shape
        self.fc1 = nn.Linear(CHANNELS[3] * a * b * c, WIDTHS[0])
        self.fc2 = nn.Linear(WIDTHS[0], WIDTHS[1])
        self.fc3 = nn.Linear(WIDTHS[1], WIDTHS[2])
        self.fc4 = nn.Linear(WIDTHS[2], WIDTHS[3])
        self.fc5 = nn.Linear(WIDTHS[3], 2)

    def features(self, x: Tensor) -> Tensor:
        """Map crops ``[n, 1, X, Y, Z]`` to the last feature map, ``[n, 64, 3, 3, 2]`` at the default size."""
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        return torch.relu(self.bn4(self.conv4(x)))

    def classify(self, features: Tensor) -> Tensor:
        """Map the last feature map to logits ``[n, 2]`` of "no tumour" and "tumour"."""
        x = features.flatten(1)
        for layer in (self.fc1, self.fc2, self.fc3, self.fc4):
            x = torch.relu(layer(x))
        return self.fc5(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map crops ``[n, 1, X, Y, Z]``, stretched to ``in_shape``, to logits ``[n, 2]``.

        Raises:
            DataError: The size of the crops does not fit the first linear layer.
        """
        if x.ndim != 5 or x.shape[1] != 1 or last_map(tuple(x.shape[2:])) != self.map_shape:
            raise DataError(
                f"Net was built for input [n, 1, {', '.join(map(str, self.in_shape))}], found {list(x.shape)}; "
                "stretch the crops to its in_shape first"
            )
        return self.classify(self.features(x))


def last_map(shape: tuple[int, ...]) -> Size:
    """Return the size of the last feature map for crops of a size; numbers below 1 mean that they are too small."""
    sizes = []
    for length in shape:
        length = (length - 2) // 2
        for _ in range(2):
            length = ((length - 3) // 2 + 1) // 2
        sizes.append((length - 3) // 2 + 1)
    return sizes[0], sizes[1], sizes[2]


def _text(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))
