"""Memory and speed of the original's policy on the window against the one on the stretched window.

Line 1: the compact policy at full size, trained by PPO of stable-baselines3 (32 steps, minibatches of 8, one epoch) on
random windows that cost nothing to make; the full policy's bytes beside it are computed from its shapes (24 GB). The peak
resident size is that of this process, with Python, torch and stable-baselines3 in it. Line 2: both policies at a small
size in this process, from the same weights, seeds and windows, with the largest difference of their actions and
weights. ``--quick`` runs one update of each.
"""

from __future__ import annotations

import argparse
import json
import time

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from medshared.gpu import peak_memory_bytes
from spars.models.compact_policy import CompactPolicy
from spars.models.replicas import wrap_to_uint8
from spars.original.resize import stretch_nearest

Size = tuple[int, int, int]

WINDOW, GRID = (48, 48, 24), (256, 256, 180)
SMALL_WINDOW, SMALL_GRID = (12, 12, 6), (64, 64, 44)
PPO_KEYS = {"n_steps": 32, "batch_size": 8, "n_epochs": 1, "device": "cpu"}  # the original's


class Windows(gymnasium.Env):
    """Random windows, wrapped to uint8 as the original's learner sees them; stretched, or as they are."""

    def __init__(self, window: Size, stretched: Size | None = None) -> None:
        self.observation_space = spaces.Box(0, 255, stretched or window, np.uint8)
        self.action_space = spaces.Discrete(6)
        rng = np.random.default_rng(0)
        self.crops = wrap_to_uint8(rng.integers(-1000, 300, (16, *window)))
        self.seen = stretch_nearest(self.crops, stretched).astype(np.uint8) if stretched else self.crops
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        """Show the next window."""
        return self.seen[self.steps % 16], {}

    def step(self, action):
        """Reward a bright voxel, of which every move has its own."""
        self.steps += 1
        now = self.steps % 16
        reward = 1.0 if self.crops[now].flat[int(action)] > 100 else -1.0
        return self.seen[now], reward, self.steps % 32 == 0, False, {}


def training_bytes(model: BaseAlgorithm) -> dict[str, int]:
    """Return the bytes of weights, gradients and the optimizer's moments."""
    parameters = list(model.policy.parameters())
    states = model.policy.optimizer.state.values()
    moments = [value for state in states for value in state.values() if torch.is_tensor(value) and value.ndim]
    groups = {
        "weights": parameters,
        "gradients": [p.grad for p in parameters if p.grad is not None],
        "moments": moments,
    }
    return {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in groups.items()}


def full_parameters(grid: Size) -> int:
    """Return the number of parameters of ``MlpPolicy`` on the stretched window."""
    tower = 64 * int(np.prod(grid)) + 64 + 64 * 64 + 64
    return 2 * tower + (64 + 1) * 6 + (64 + 1)


def learn(model: PPO, updates: int) -> float:
    """Train and return the processor seconds of an update with its 32 steps."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (stable-baselines3 permutes minibatches with it)
    started = time.process_time()
    model.learn(32 * updates)
    return (time.process_time() - started) / updates


def full_size(updates: int) -> None:
    # The first optimizer of a process makes torch import its compiler, which is not to be counted.
    PPO(CompactPolicy, Windows((4, 4, 3)), policy_kwargs={"window": (4, 4, 3), "grid": (8, 8, 6)}, **PPO_KEYS)
    imported = peak_memory_bytes("cpu")
    started = time.process_time()
    model = PPO(CompactPolicy, Windows(WINDOW), policy_kwargs={"window": WINDOW, "grid": GRID}, **PPO_KEYS)
    built = time.process_time() - started
    seconds = learn(model, updates)
    found = training_bytes(model)
    full = 4 * full_parameters(GRID) * 4
    line = {
        "workload": "policy_memory",
        "grid": "256×256×180",
        "window": "48×48×24",
        "parameters": sum(p.numel() for p in model.policy.parameters()),
        **{f"{name}_mb": round(value / 1e6, 1) for name, value in found.items()},
        "training_state_mb": round(sum(found.values()) / 1e6, 1),
        "full_training_state_mb_computed": round(full / 1e6),
        "ratio": round(full / sum(found.values()), 1),
        "process_mb_of_imports": round(imported / 1e6),
        "process_peak_mb": round(peak_memory_bytes("cpu") / 1e6),
        "build_cpu_s": round(built, 2),
        "update_cpu_s": round(seconds, 3),
        "steps_per_cpu_s": round(32 / seconds, 1),
    }
    print(json.dumps(line, ensure_ascii=False), flush=True)


def both_sides(updates: int) -> None:
    full = PPO("MlpPolicy", Windows(SMALL_WINDOW, SMALL_GRID), **PPO_KEYS)
    keys = {"window": SMALL_WINDOW, "grid": SMALL_GRID}
    compact = PPO(CompactPolicy, Windows(SMALL_WINDOW), policy_kwargs=keys, **PPO_KEYS)
    compact.policy.load_full_state(full.policy.state_dict())
    seconds = {"full": learn(full, updates), "compact": learn(compact, updates)}
    sizes = {
        name: sum(training_bytes(model).values()) for name, model in (("full", full), ("compact", compact))
    }
    expected = compact.policy.replicas.compact_state(full.policy.state_dict())
    found = compact.policy.state_dict()
    line = {
        "workload": "policy_both_sides",
        "grid": "64×64×44",
        "window": "12×12×6",
        "updates": updates,
        "full_mb": round(sizes["full"] / 1e6, 1),
        "compact_mb": round(sizes["compact"] / 1e6, 2),
        "full_update_cpu_s": round(seconds["full"], 3),
        "compact_update_cpu_s": round(seconds["compact"], 3),
        "speed_ratio": round(seconds["full"] / seconds["compact"], 1),
        "same_actions_in_last_rollout": bool(
            (full.rollout_buffer.actions == compact.rollout_buffer.actions).all()
        ),
        "largest_weight_difference": max(float((found[name] - expected[name]).abs().max()) for name in found),
    }
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one update of each")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    updates = 1 if options.quick else options.updates
    full_size(updates)
    both_sides(updates)


if __name__ == "__main__":
    main()
