"""A trained player of the standard game: its policy, what it must be shown, and the file that keeps both."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from medshared import weights
from medshared.files import read_json, write_json
from spars.errors import CheckpointError
from spars.game.arena import Observations, Sight, observation_space
from spars.game.rules import N_ACTIONS
from spars.game.views import view_shape, view_stride
from spars.lattice import Lattice, Size
from spars.models.agent import policy_keys

if TYPE_CHECKING:
    from stable_baselines3.common.policies import MultiInputActorCriticPolicy

    from spars.config import GameConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentMeta:
    """What an agent was trained for; kept beside its weights as ``<name>.json``.

    Attributes:
        policy: ``mlp``, ``cnn`` or ``table``.
        grid: Working grid in voxels.
        window: Window in voxels.
        step: Voxels of a move.
        stride: Voxels averaged to one of a view.
        context: Width of the surroundings in windows, 0 = none.
        memory: Radius of the recalled neighbourhood.
        cases: Names of the volumes that it was trained on.
    """

    policy: str
    grid: Size
    window: Size
    step: int
    stride: int
    context: int
    memory: int
    cases: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: GameConfig) -> AgentMeta:
        """Return what a resolved configuration of mode standard asks for."""
        stride = config.view_stride or view_stride(config.window_size, config.step_size)
        return cls(
            policy=config.policy or "mlp",
            grid=config.full_image_size,
            window=config.window_size,
            step=config.step_size,
            stride=stride,
            context=config.context or 0,
            memory=config.memory or 0,
        )

    @property
    def lattice(self) -> Lattice:
        """The window positions."""
        return Lattice(self.grid, self.window, self.step)

    def sight(self, flips: bool = False, carry: float = 0.0) -> Sight:
        """Return what players see; see `spars.game.arena.Sight`."""
        return Sight(self.stride, self.context, flips, carry)

    def space(self) -> spaces.Dict:
        """Return the space of observations."""
        return observation_space(view_shape(self.window, self.stride, self.context), self.memory)


class Agent:
    """Chooses moves, and says what a place is worth.

    Args:
        policy: Of stable-baselines3, on the CPU or a GPU.
        meta: What it was trained for.
        temperature: Of its choices; below 1 = more decided.
        seed: Of its choices.
    """

    def __init__(
        self, policy: MultiInputActorCriticPolicy, meta: AgentMeta, temperature: float = 1.0, seed: int = 0
    ) -> None:
        self.policy, self.meta, self.temperature = policy, meta, temperature
        policy.set_training_mode(False)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, observations: Observations) -> NDArray[np.int64]:
        """Return a move for each observation, drawn from the policy, int64 ``[n]``."""
        with torch.inference_mode():
            features = self.policy.get_distribution(self._tensors(observations)).distribution
            logits = features.logits.cpu() / self.temperature  # type: ignore[union-attr]
            return torch.multinomial(logits.softmax(dim=1), 1, generator=self.generator)[:, 0].numpy()

    def predict(self, observation: Observations, *_: Any, **__: Any) -> tuple[NDArray[np.int64], None]:
        """Return a move for one observation or for many, and no state; what a game asks of an opponent."""
        one = observation["position"].ndim == 1
        batch = {name: values[None] for name, values in observation.items()} if one else observation
        moves = self(batch)
        return (moves[0] if one else moves), None

    def reseed(self, seed: int) -> None:
        """Make all choices that follow repeatable."""
        self.generator.manual_seed(seed)

    def value(self, observations: Observations) -> NDArray[np.float32]:
        """Return the critic's estimate of what a player will earn from there, float32 ``[n]``."""
        with torch.inference_mode():
            return self.policy.predict_values(self._tensors(observations))[:, 0].cpu().numpy()

    def _tensors(self, observations: Observations) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(v).to(self.policy.device) for name, v in observations.items()}

    def save(self, path: str | Path) -> Path:
        """Write the weights, and beside them what they are for."""
        path = Path(path)
        write_json(path.with_suffix(".json"), asdict(self.meta))
        return weights.save_checkpoint(path, {k: v.cpu() for k, v in self.policy.state_dict().items()})


def build_policy(meta: AgentMeta, learning_rate: float = 1e-3) -> MultiInputActorCriticPolicy:
    """Return an untrained policy.

    Args:
        meta: What it is for.
        learning_rate: Of its optimiser, for training.
    """
    from stable_baselines3.common.policies import MultiInputActorCriticPolicy

    return MultiInputActorCriticPolicy(
        meta.space(),
        spaces.Discrete(N_ACTIONS),
        lambda _: learning_rate,
        **policy_keys(meta.policy, meta.lattice),
    )


def load_agent(path: str | Path, *, temperature: float = 1.0, seed: int = 0) -> Agent:
    """Read an agent.

    Args:
        path: Weight file written by `Agent.save`; its description lies beside it.
        temperature: Of its choices.
        seed: Of its choices.

    Raises:
        CheckpointError: A file is missing or damaged, or the weights are of another policy.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; `spars train` writes agent.pt into its run directory")
    try:
        found: dict[str, Any] = read_json(path.with_suffix(".json"))
        sizes: dict[str, Any] = {key: tuple(int(n) for n in found[key]) for key in ("grid", "window")}
        sizes["cases"] = tuple(str(name) for name in found.get("cases", ()))
        meta = AgentMeta(**{**found, **sizes})
        policy = build_policy(meta)
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path.with_suffix('.json')}: cannot be used as the description of {path.name} ({error}); copy it from "
            "the run directory where the agent was trained"
        ) from error
    try:
        weights.load_state_dict(policy, weights.load_checkpoint(path))
    except weights.WeightsError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Agent(policy, meta, temperature, seed)
