"""The original's policy, a perceptron on the stretched window, at the cost of the window itself.

The input of 256×256×180 values holds each voxel x_j of the window r_j times (about 213 times for 48×48×24). The first
layers act through the sum of the replicas' weights only, W'·x, and all replicas of a voxel always get the same
gradient; Adam, which works weight by weight from moments of zero, moves them alike. So one weight a voxel carries the
whole training, if the norm of the gradients counts every replica and the sum moves r_j times as far.

The weights kept here are S_j = W'_j/√r_j, and the input is √r_j·x_j. Then S·(√r·x) = W'·x; the gradient of S has the
norm of all replicas' gradients, so that clipping in stable-baselines3 is exact as it is; and
:class:`spars.models.replica_adam.ReplicaAdam` takes the step. 7.1 M parameters instead of 1,510 M, 113 MB of weights,
gradients and moments instead of 24 GB, and the same training up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from spars.errors import DataError
from spars.models.replica_adam import ReplicaAdam
from spars.models.replicas import FIRST_LAYERS, Replicas

Size = tuple[int, int, int]


class ReplicaFeatures(BaseFeaturesExtractor):
    """From windows to the inputs √r·x of the compact policy, in the order in which the full policy flattens its input.

    Args:
        observation_space: Box of the window's shape ``[X, Y, Z]``, or ``[Z, X, Y]`` as stable-baselines3 turns images.
        replicas: Window and grid.
        divisor: Of observations that are no bytes; stable-baselines3 divides those by 255 itself. 255 for HU as the
            original's opponent sees them, 1 for HU / 255 as in mode paper.

    Raises:
        DataError: The observations are no windows of that size.
    """

    def __init__(self, observation_space: spaces.Box, replicas: Replicas, divisor: float = 255.0) -> None:
        super().__init__(observation_space, len(replicas.number))
        x, y, z = replicas.window
        if tuple(observation_space.shape) not in ((x, y, z), (z, x, y)):
            raise DataError(
                f"the policy was asked for windows of {x}×{y}×{z} voxels, the environment's observations have the "
                f"shape {observation_space.shape}; give the window that the environment cuts"
            )
        order = (0, 1, 2) if tuple(observation_space.shape) == (x, y, z) else (2, 0, 1)
        self.permutation = (0, *(1 + order.index(axis) for axis in replicas.axes))
        # √r is computed where it is needed: a buffer of roots would keep the rounding of the precision it was made in.
        self.number: Tensor
        self.register_buffer("number", torch.from_numpy(replicas.number), persistent=False)
        self.divisor: Tensor
        value = torch.tensor(1.0 if is_image_space(observation_space) else float(divisor))
        self.register_buffer("divisor", value, persistent=False)

    def forward(self, observations: Tensor) -> Tensor:
        """Map windows ``[n, …]`` to ``[n, voxels]``."""
        inputs = observations.permute(self.permutation).flatten(1).to(self.divisor.dtype) / self.divisor
        return inputs * self.number.to(inputs.dtype).sqrt()


class CompactPolicy(ActorCriticPolicy):
    """``MlpPolicy`` on stretched windows, for PPO of stable-baselines3, without stretching them.

    Use it as ``PPO(CompactPolicy, env, policy_kwargs={"window": …, "grid": …})`` with an environment that observes the
    window itself. Its outputs, losses, gradient norms and steps are those of ``PPO("MlpPolicy", …)`` on the stretched
    windows. A learner in an environment with the space ``Box(0, 255, window, uint8)`` sees wrapped HU
    (:func:`spars.models.replicas.wrap_to_uint8`); ``predict`` with HU as they are is what the original's opponent does.

    Args:
        observation_space: As stable-baselines3 gives it.
        action_space: The moves.
        lr_schedule: From the remaining share of the training to the learning rate.
        window: Size of the window in voxels.
        grid: What the original stretches it to.
        divisor: Of observations that are no bytes, see `ReplicaFeatures`.
        **keys: Of ``ActorCriticPolicy``; features extractor and optimizer are prescribed.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Callable[[float], float],
        *,
        window: Size,
        grid: Size,
        divisor: float = 255.0,
        **keys: Any,
    ) -> None:
        self.replicas = Replicas(cast(Size, tuple(window)), cast(Size, tuple(grid)))
        self.divisor = divisor
        keys |= {
            "features_extractor_class": ReplicaFeatures,
            "features_extractor_kwargs": {"replicas": self.replicas, "divisor": divisor},
            "optimizer_class": ReplicaAdam,
        }
        super().__init__(observation_space, action_space, lr_schedule, **keys)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        super()._build(lr_schedule)
        named = dict(self.named_parameters())
        if self.ortho_init:
            for name in FIRST_LAYERS:
                _init_sums_of_orthogonal(named[name], int(self.replicas.number.sum()), gain=2**0.5)
        scale = torch.from_numpy(np.sqrt(self.replicas.number))
        groups = [
            {"params": [p for name, p in named.items() if name not in FIRST_LAYERS]},
            {"params": [named[name] for name in FIRST_LAYERS], "scale": scale},
        ]
        self.optimizer = ReplicaAdam(groups, lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for key in ("features_extractor_class", "features_extractor_kwargs", "optimizer_class"):
            del data[key]
        return data | {"window": self.replicas.window, "grid": self.replicas.grid, "divisor": self.divisor}

    def load_full_state(self, full: dict[str, Tensor]) -> None:
        """Take over the weights of a full policy, e.g. of a model that the original's script trained.

        Args:
            full: State dictionary of ``MlpPolicy`` on the stretched window.

        Raises:
            CheckpointError: It belongs to another window or grid.
        """
        self.load_state_dict(self.replicas.compact_state(full))

    def full_state(self) -> dict[str, Tensor]:
        """Return weights of a full policy that acts alike, see :meth:`spars.models.replicas.Replicas.full_state`."""
        return self.replicas.full_state(self.state_dict())


@torch.no_grad()
def _init_sums_of_orthogonal(weight: nn.Parameter, inputs: int, gain: float) -> None:
    """Draw S from exactly the law that an orthogonal ``[units, inputs]`` matrix gives it, without that matrix.

    With Gaussian G of that shape, L⁻¹G with L·Lᵀ = G·Gᵀ is uniformly distributed among matrices with orthonormal rows.
    S/gain is L⁻¹ times G in an orthonormal basis of the inputs' repeated patterns, which is Gaussian too; of the other
    coordinates only their share in G·Gᵀ is needed, a Wishart matrix (Bartlett's decomposition).
    """
    units, voxels = weight.shape
    kept = torch.randn(units, voxels, dtype=torch.float64)
    gram = kept @ kept.T
    others = inputs - voxels
    if others >= units:
        freedom = torch.arange(others, others - units, -1, dtype=torch.float64)
        root = torch.tril(torch.randn(units, units, dtype=torch.float64), -1)
        root += torch.diag(torch.distributions.Chi2(freedom).sample().sqrt())
        gram += root @ root.T
    else:
        rest = torch.randn(units, others, dtype=torch.float64)
        gram += rest @ rest.T
    drawn = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), kept, upper=False)
    weight.copy_(gain * drawn)
