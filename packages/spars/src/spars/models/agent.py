"""What the policies of the standard game make of their observations, as feature extractors of stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from spars.lattice import Lattice


class MlpFeatures(BaseFeaturesExtractor):
    """Views, recalled scores and position, flattened, through two hidden layers.

    Args:
        observation_space: Of `spars.game.arena`.
        width: Number of features.
    """

    def __init__(self, observation_space: spaces.Dict, width: int = 64) -> None:
        super().__init__(observation_space, width)
        # Named order: a dictionary of observations may come in any.
        self.names = sorted(observation_space.spaces)
        n = sum(int(np.prod(_shape(observation_space, name))) for name in self.names)
        self.layers = nn.Sequential(
            nn.Linear(n, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU()
        )

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[n, width]``."""
        return self.layers(torch.cat([observations[name].flatten(1) for name in self.names], dim=1))


class CnnFeatures(BaseFeaturesExtractor):
    """Views through two 3-D convolutions; recalled scores and position join at the hidden layer.

    Args:
        observation_space: Of `spars.game.arena`.
        width: Number of features.
        channels: Of the first convolution; the second has twice as many.
    """

    def __init__(self, observation_space: spaces.Dict, width: int = 64, channels: int = 8) -> None:
        super().__init__(observation_space, width)
        shape = _shape(observation_space, "views")
        self.convolutions = nn.Sequential(
            nn.Conv3d(shape[0], channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        n = 2 * channels * int(np.prod([(side + 1) // 2 for side in shape[1:]]))
        self.others = sorted(set(observation_space.spaces) - {"views"})
        n += sum(int(np.prod(_shape(observation_space, name))) for name in self.others)
        self.layers = nn.Sequential(
            nn.Linear(n, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU()
        )

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[n, width]``."""
        parts = [self.convolutions(observations["views"])]
        parts += [observations[name].flatten(1) for name in self.others]
        return self.layers(torch.cat(parts, dim=1))


class TableFeatures(BaseFeaturesExtractor):
    """One learnt row for each place of the lattice: a policy for one volume, without generalisation.

    Args:
        observation_space: Of `spars.game.arena`.
        shape: Of the lattice.
        width: Number of features.
    """

    def __init__(self, observation_space: spaces.Dict, shape: tuple[int, int, int], width: int = 16) -> None:
        super().__init__(observation_space, width)
        self.shape = shape
        self.rows = nn.Embedding(int(np.prod(shape)), width)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[n, width]``."""
        position = observations["position"]
        span = position.new_tensor(self.shape) - 1
        x, y, z = (position * span).round().long().unbind(dim=1)
        return self.rows((x * self.shape[1] + y) * self.shape[2] + z)


def policy_keys(kind: str, lattice: Lattice) -> dict[str, Any]:
    """Return the keyword arguments of a stable-baselines3 policy.

    Args:
        kind: ``mlp``, ``cnn`` or ``table``.
        lattice: The window positions, for ``table``.
    """
    if kind == "table":
        return {
            "features_extractor_class": TableFeatures,
            "features_extractor_kwargs": {"shape": lattice.shape},
            "net_arch": [],
        }
    features = {"mlp": MlpFeatures, "cnn": CnnFeatures}[kind]
    return {"features_extractor_class": features, "net_arch": [64]}


def _shape(space: spaces.Dict, name: str) -> tuple[int, ...]:
    shape = space.spaces[name].shape
    assert shape is not None  # noqa: S101 - boxes have one
    return shape
