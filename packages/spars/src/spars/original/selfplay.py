"""The original's self-play on one volume, and the same loop as the paper's text describes it.

One iteration is ``n_steps`` moves against the competitor and one update of PPO. Faithful: the environment is reset at
the start of every iteration, the first competitor always moves up the last axis, later ones are the learner itself,
and the Dice is that of the map as it lies there after the last move. Paper: episodes run on over the iterations, the
competitor is a frozen copy that is refreshed every ``competitor_update_frequency`` moves, and the Dice is that of the
map at the end of the last episode.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from medshared.checkpoints import save_checkpoint
from medshared.files import write_npz
from medshared.gpu import capture_rng, restore_rng, seed_everything, select_device
from medshared.process import StopSignal
from medshared.process import progress as progress_bar
from medshared.runs import RunDirectory
from spars.config import GameConfig
from spars.errors import DataError, TrainingError
from spars.game.boards import make_board
from spars.game.opponents import Opponent
from spars.game.rules import rules_of
from spars.game.scorers import Scorer
from spars.game.single_env import WindowGame
from spars.lattice import Size
from spars.models.compact_policy import CompactPolicy
from spars.original.curve import Row, defined, summarise, write_curve
from spars.original.game import CursorImageEnv

log = logging.getLogger(__name__)

_HIDDEN = 64  # units of the policy's first layers


class SelfPlay:
    """A learner, its competitor and one volume.

    Args:
        config: mode faithful or paper; the other keys as they are.
        image: faithful: HU as stored, ``[X, Y, Z]``; paper: HU on the grid.
        label: 0 background, 1 liver, 2 tumour; faithful: any size, paper: on the grid. ``None`` = no Dice.
        scorer: scores windows in HU.
        policy: ``mlp`` = the original's, on windows stretched to ``target_size``; ``compact`` = its equal on windows
            as they are.

    Attributes:
        model: PPO.
        env: The environment inside the model's.
        iteration: Iterations done.
        last_map: The map that the last Dice was taken of, float32 ``[grid]``; ``None`` before the first.

    Raises:
        DataError: in mode standard, and for opponents of that mode.
        TrainingError: when the original's own policy would not fit into memory.
    """

    def __init__(
        self,
        config: GameConfig,
        image: NDArray[Any],
        label: NDArray[Any] | None,
        scorer: Scorer,
        *,
        policy: Literal["compact", "mlp"] = "compact",
    ) -> None:
        keys = config.resolved()
        wanted = {"faithful": "live", "paper": "latest"}.get(keys.mode)
        if keys.opponent != wanted:
            raise DataError(
                f"this loop plays mode faithful with opponent live and mode paper with opponent latest, found mode "
                f"{keys.mode} with opponent {keys.opponent}"
            )
        self.config = keys
        self.threshold = 0.5 if keys.segmentation_threshold is None else keys.segmentation_threshold
        self.target: Size = _target_size(keys)
        self.env = self._environment(image, label, scorer, None if policy == "compact" else self.target)
        if policy == "mlp":
            _check_memory(self.target)
        elif any(n < size for n, size in zip(image.shape, keys.full_image_size, strict=True)):
            log.warning(
                "the volume has %s voxels, the grid %s: windows that it cuts off are stretched to the window first, "
                "where policy compact is not exactly the original's",
                list(image.shape),
                list(keys.full_image_size),
            )
        self.model = PPO(
            CompactPolicy if policy == "compact" else "MlpPolicy",
            DummyVecEnv([lambda: cast(Any, self.env)]),
            policy_kwargs=self._compact_keys() if policy == "compact" else None,
            verbose=keys.verbose if keys.verbose > 1 else 0,
            device=select_device(keys.device),
            **_ppo_keys(keys),
        )
        self.iteration = 0
        self.env_steps = 0
        self.last_map: NDArray[np.float32] | None = None
        self.last_dice: float | None = None
        self._frozen: ActorCriticPolicy | None = None
        if keys.mode == "paper":
            self._freeze()

    def _compact_keys(self) -> dict[str, Any]:
        # The views of mode paper are divided by 255 already.
        divisor = 1.0 if self.config.mode == "paper" else 255.0
        return {"window": self.config.window_size, "grid": self.target, "divisor": divisor}

    def iterate(self) -> Row:
        """Play ``n_steps`` moves, update the policy and the competitor.

        Returns:
            A row of the curve.
        """
        watch = _Watch()
        faithful = self.config.mode == "faithful"
        # Resetting the count of steps resets the environment too.
        self.model.learn(self.config.n_steps, callback=watch, reset_num_timesteps=faithful)
        before, self.env_steps = self.env_steps, self.env_steps + self.config.n_steps
        self.iteration += 1
        if isinstance(self.env, CursorImageEnv):
            self.env.set_competitor(cast(Opponent, self.model))
            self.last_map = self.env.accumulated_map.astype(np.float32)
            self.last_dice = (
                None if self.env.label is None else self.env.compute_final_dice_score(self.threshold)
            )
        else:
            every = self.config.competitor_update_frequency
            if self.env_steps // every > before // every:
                self._freeze()
            if watch.final_map is not None:
                self.last_map, self.last_dice = watch.final_map, watch.dice
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            **watch.summary(),
            "dice": self.last_dice,
        }

    def state(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on, for a checkpoint."""
        duel = self.env.duel
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "policy": self.model.policy.state_dict(),
            "optimizer": self.model.policy.optimizer.state_dict(),
            "num_timesteps": self.model.num_timesteps,
            "n_updates": self.model._n_updates,
            "frozen": None if self._frozen is None else self._frozen.state_dict(),
            "actions": [] if duel is None else [list(pair) for pair in duel.actions],
            "episode_starts": self.model._last_episode_starts.tolist()  # type: ignore[union-attr]
            if self.iteration
            else [True],
            "last_map": None if self.last_map is None else torch.from_numpy(self.last_map.copy()),
            "last_dice": self.last_dice,
            "rng": capture_rng(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, bit for bit on a CPU."""
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.model.policy.load_state_dict(state["policy"])
        self.model.policy.optimizer.load_state_dict(state["optimizer"])
        self.model.num_timesteps, self.model._n_updates = state["num_timesteps"], state["n_updates"]
        self.last_dice = state["last_dice"]
        self.last_map = None if state["last_map"] is None else state["last_map"].numpy()
        if isinstance(self.env, CursorImageEnv):
            if self.iteration:
                self.env.set_competitor(cast(Opponent, self.model))
        else:
            cast(ActorCriticPolicy, self._frozen).load_state_dict(state["frozen"])
            self._replay(state["actions"], state["episode_starts"])
        restore_rng(state["rng"])

    def _replay(self, actions: list[list[int]], episode_starts: list[bool]) -> None:
        """Bring the environment to where it was in the middle of an episode."""
        env = cast(WindowGame, self.env)
        opponent, venv = env.opponent, cast(DummyVecEnv, self.model.env)
        env.set_opponent(_Script([pair[1] for pair in actions]))
        seen: Any = venv.reset()
        for mine, _ in actions:
            seen = venv.step(np.array([mine]))[0]
        env.set_opponent(opponent)
        self.model._last_obs = seen
        self.model._last_episode_starts = np.array(episode_starts)

    def _environment(
        self, image: NDArray[Any], label: NDArray[Any] | None, scorer: Scorer, target: Size | None
    ) -> CursorImageEnv | WindowGame:
        keys = self.config
        if keys.mode == "faithful":
            return CursorImageEnv(
                image,
                label,
                scorer,
                keys.full_image_size,
                keys.window_size,
                termination_threshold=keys.termination_threshold,
                target_size=target or "native",
                step_size=keys.step_size,
            )
        rules = replace(rules_of(keys), target_size=target)
        board = make_board(
            keys.case,
            image,
            scorer,
            rules,
            target=None if label is None else label == 2,
            table=keys.table,
            cache_dir=keys.cache_dir,
            batch=keys.table_batch,
        )
        return WindowGame([board], rules, segmentation_threshold=self.threshold, empty_value=keys.empty_value)

    def _freeze(self) -> None:
        """Let a copy of the policy as it is now play from here on."""
        policy = self.model.policy
        if self._frozen is None:
            optimizer, policy.optimizer = policy.optimizer, cast(Any, None)  # its moments need no copy
            self._frozen = copy.deepcopy(policy)
            policy.optimizer = optimizer
            self._frozen.set_training_mode(False)
            cast(WindowGame, self.env).set_opponent(self._frozen)
        self._frozen.load_state_dict(policy.state_dict())


def train_faithful(
    config: GameConfig,
    folder: str | Path,
    image: NDArray[Any],
    label: NDArray[Any] | None,
    scorer: Scorer,
    *,
    resume: bool = False,
    policy: Literal["compact", "mlp"] = "compact",
    command: Sequence[str] | None = None,
    stop: StopSignal | None = None,
) -> dict[str, Any]:
    """Train on one volume as the original does (mode faithful) or as the paper says (mode paper).

    Writes ``config.yaml``, ``environment.json``, ``curve.csv``, ``checkpoints/last.pt`` and, when all iterations are
    done, ``policy.pt`` (the state dict), ``map.npz`` (``map``: float32 ``[grid]``, ``threshold``) and ``results.json``.

    Args:
        config: the configuration.
        folder: the run's directory.
        image: as for `SelfPlay`.
        label: as for `SelfPlay`.
        scorer: scores windows in HU.
        resume: go on with the run in the folder.
        policy: as for `SelfPlay`.
        command: the command line, for the record.
        stop: a stop signal that the caller listens to already.

    Returns:
        What ``results.json`` holds: the last Dice and reward, and their means and population sds over the iterations,
        which is what the original prints. ``iterations`` is below that of the configuration when a signal came.
    """
    keys = config.resolved()
    run = RunDirectory(folder).create(
        keys.model_dump(mode="json"), command=command, seed=keys.seed, resume=resume
    )
    seed_everything(keys.seed)
    play = SelfPlay(config, image, label, scorer, policy=policy)
    curve: list[Row] = []
    if resume and run.has_checkpoint("last"):
        state = run.load_checkpoint("last", map_location=play.model.device)
        play.load_state(state)
        curve = state["curve"]
        log.info("going on after iteration %d", play.iteration)
    saved = play.iteration
    with StopSignal() if stop is None else nullcontext(stop) as stop:
        for _ in progress_bar(range(play.iteration, keys.iterations or 0), description="self-play"):
            curve.append(play.iterate())
            if play.iteration % keys.log_interval == 0:
                _log_row(curve[-1])
            if stop.requested or play.iteration % keys.save_every == 0:
                _save(run, play, curve)
            if stop.requested:
                log.warning("stopped by %s after iteration %d; resume to go on", stop.name, play.iteration)
                return summarise(curve)
    # A checkpoint of the end knows more of the last game than a new one does.
    if play.iteration > saved or not run.has_checkpoint("last"):
        _save(run, play, curve)
    write_curve(run.path / "curve.csv", curve)
    return _finish(run, play, curve)


def _finish(run: RunDirectory, play: SelfPlay, curve: list[Row]) -> dict[str, Any]:
    """Write what a finished run leaves, ``results.json`` last."""
    from spars.reporting import try_report

    save_checkpoint(run.path / "policy.pt", play.model.policy.state_dict())
    if play.last_map is not None:
        write_npz(run.path / "map.npz", map=play.last_map, threshold=play.threshold)
    results = summarise(curve)
    try_report(run.path, results)
    run.write_results(results)
    return results


def _log_row(row: Row) -> None:
    shown = {name: "undefined" if not defined(row[name]) else row[name] for name in ("dice", "last_reward")}
    log.info("iteration %d: Dice %s, reward %s", row["iteration"], shown["dice"], shown["last_reward"])


def _save(run: RunDirectory, play: SelfPlay, curve: list[Row]) -> None:
    run.save_checkpoint("last", {**play.state(), "curve": curve})
    write_curve(run.path / "curve.csv", curve)


def _target_size(keys: GameConfig) -> Size:
    if keys.target_size is None or isinstance(keys.target_size, str):
        return keys.window_size
    return keys.target_size


def _check_memory(shape: tuple[int, ...]) -> None:
    """Refuse the original's policy where its weights, gradients and moments exceed the machine's memory."""
    needed = 16 * 2 * _HIDDEN * math.prod(shape)  # two towers; weights, gradients and two moments of 4 bytes
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return
    if needed > 0.5 * there:  # beside the weights: the environment, the classifier, whatever else runs
        raise TrainingError(
            f"the original's policy takes {needed / 1e9:.1f} GB to train on windows stretched to {list(shape)}, the "
            f"machine has {there / 1e9:.1f} GB: use policy compact, which is equal"
        )


def _ppo_keys(keys: GameConfig) -> dict[str, Any]:
    names = (
        "learning_rate n_steps batch_size n_epochs gamma gae_lambda clip_range ent_coef vf_coef max_grad_norm"
    )
    return {name: getattr(keys, name) for name in names.split()}


class _Script:
    """An opponent that repeats what was played."""

    def __init__(self, actions: list[int]) -> None:
        self._actions = iter(actions)

    def predict(self, observation: Any) -> int:
        return next(self._actions)


class _Watch(BaseCallback):
    """Notes what one iteration's moves gave."""

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[tuple[float, float]] = []
        self.rewards: list[float] = []
        self.lengths: list[int] = []
        self.final_map: NDArray[np.float32] | None = None
        self.dice: float | None = None

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        self.scores.append((info["score"], info["score_opponent"]))
        self.rewards.append(float(self.locals["rewards"][0]))
        if self.locals["dones"][0]:
            self.lengths.append(info["n_steps"])
        if "final_map" in info:
            self.final_map, self.dice = info["final_map"], info.get("dice")
        return True

    def summary(self) -> Row:
        first, second = np.mean(self.scores, axis=0).tolist()
        return {
            "last_reward": self.rewards[-1],
            "mean_score1": first,
            "mean_score2": second,
            "episodes": len(self.lengths),
            "mean_episode_length": float(np.mean(self.lengths)) if self.lengths else None,
        }
