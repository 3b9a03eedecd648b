"""Self-play in the standard game: PPO of stable-baselines3 against frozen copies of the learner.

One iteration: choose an opponent from the pool; play ``n_steps`` moves in every game of the arena; one update of PPO;
every ``competitor_update_frequency`` steps freeze a copy of the learner into the pool.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medshared.command_line import RunInterruptedError
from medshared.gpu import capture_rng, restore_rng, seed_everything, select_device
from medshared.loggers import open_logger
from medshared.runs import RunDirectory, StopSignal, run_logging
from medshared.tables import write_table
from spars.agent import Agent, AgentMeta, build_policy
from spars.config import GameConfig
from spars.errors import CheckpointError, DataError
from spars.exploration import search, search_settings
from spars.game.arena import Arena
from spars.game.arena_envs import ArenaVecEnv
from spars.game.boards import Board
from spars.game.rules import rules_of
from spars.game.score_table import ScoreTable
from spars.models.agent import policy_keys
from spars.opponents import OpponentPool, State
from spars.resuming import load_last

logger = logging.getLogger(__name__)

AGENT_FILE = "agent.pt"
# Searches of each validation volume that choose the iteration.
_SELECTION_SEARCHES = 4
# Keys that change a run's course: one that goes on must have the same ones.
_COURSE = tuple(
    key
    for key in GameConfig.model_fields
    if key
    not in (
        *(
            "device",
            "logger",
            "data_dir",
            "cache_dir",
            "iterations",
            "log_interval",
            "save_every",
            "select_every",
            "verbose",
        ),
        *("budget", "candidates", "start_moves", "start_patience", "temperature", "eval_seeds"),
        *(
            "eval_space",
            "empty_value",
            "segmentation_threshold",
            "table",
            "table_batch",
            "classifier_weights",
        ),
    )
)


def train_agent(
    config: GameConfig,
    boards: Sequence[Board],
    folder: Path,
    *,
    resume: bool = False,
    command: Sequence[str] | None = None,
    stop: StopSignal | None = None,
    validation: Sequence[Board] = (),
    finish: Callable[[Agent], dict[str, Any]] | None = None,
) -> Agent:
    """Train an agent by self-play into ``folder``: ``agent.pt``, ``curve.csv``, ``opponents.csv``, ``results.json``.

    Args:
        config: Configuration of mode standard; switches that are null are resolved here.
        boards: Training volumes with score tables.
        folder: Run directory, created.
        resume: Go on with the run that the folder holds.
        command: The command line, for the record.
        stop: A stop signal that the caller listens to already.
        validation: Volumes on which the iteration is chosen: the agent whose searches find the highest scores there;
            no labels are used. Without, the last iteration is kept.
        finish: Called with the agent before ``results.json``, which marks the run as finished, is written; returns
            what to add there.

    Returns:
        The trained agent.

    Raises:
        medshared.command_line.RunInterruptedError: A signal stopped the run; it can be resumed.
        DataError: No boards, or boards of another lattice; a mode other than standard.
        CheckpointError: The folder's run had other settings.
    """
    config = config.resolved()
    if config.mode != "standard":
        raise DataError(f"self-play in an arena is mode standard, found mode {config.mode}")
    seed_everything(config.seed)
    run = RunDirectory(folder)
    play = SelfPlay(config, boards, run, validation)
    run.create(config.model_dump(mode="json"), command=command, seed=config.seed, resume=resume)
    with run_logging("spars", run.path / "log.txt"):
        if resume:
            play.restore()
        if stop is not None:
            return _train(play, stop, finish)
        with StopSignal() as own:
            return _train(play, own, finish)


def _train(play: SelfPlay, stop: StopSignal, finish: Callable[[Agent], dict[str, Any]] | None) -> Agent:
    from spars.reporting import try_report

    config, run = play.config, play.run
    sink = open_logger(config.logger, run.path, project="spars", config=config.model_dump(mode="json"))
    try:
        play.fit(stop, sink)
    finally:
        sink.close()
    agent = play.agent()
    agent.save(run.path / AGENT_FILE)
    write_table(run.path / "opponents.csv", play.pool.table())
    rows = run.metrics_rows
    results = {
        "mode": config.mode,
        "agent": asdict(agent.meta),
        "boards": len(play.arena.table),
        "iterations": play.iteration,
        "kept_iteration": play.best_iteration or play.iteration,
        "env_steps": play.iteration * config.n_steps * play.arena.n_games,
        "metrics": {key: rows[-1][key] for key in ("found_per_step", "mean_score1") if rows},
        "seconds": play.seconds,
        **({} if finish is None else finish(agent)),
    }
    try_report(run.path, results)
    run.write_results(results)
    return agent


class SelfPlay:
    """The loop, and a state from which a run goes on exactly where it was.

    Args:
        config: Resolved configuration.
        boards: Training volumes with score tables.
        run: Run directory.
        validation: Volumes on which the iteration is chosen.

    Attributes:
        arena: The games.
        model: PPO of stable-baselines3.
        pool: The opponents.
        iteration: Finished iterations.
        seconds: Of training, over all sessions of the run.
        best_iteration: Whose agent is kept; 0 = none was chosen yet.
    """

    def __init__(
        self,
        config: GameConfig,
        boards: Sequence[Board],
        run: RunDirectory,
        validation: Sequence[Board] = (),
    ) -> None:
        from stable_baselines3 import PPO

        self.config, self.run = config, run
        self.boards = [board.name for board in boards]
        self.meta = replace(AgentMeta.of(config), cases=tuple(self.boards))
        self.device = select_device(config.device)
        self.arena = Arena(
            boards,
            rules_of(config),
            config.n_games or 64,
            config.seed,
            # A table of places cannot know that its place is a mirrored one.
            self.meta.sight(config.flips and self.meta.policy != "table", config.carry),
        )
        self.env = ArenaVecEnv(self.arena)
        rate = config.learning_rate or 1e-3
        self.model = PPO(
            "MultiInputPolicy",
            self.env,
            learning_rate=rate,
            n_steps=config.n_steps,
            batch_size=min(config.batch_size or 512, config.n_steps * self.arena.n_games),
            n_epochs=config.n_epochs or 4,
            gamma=0.9 if config.gamma is None else config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.ent_coef or 0.0,
            vf_coef=config.vf_coef,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            device=self.device,
            verbose=0,
            policy_kwargs=policy_keys(self.meta.policy, self.meta.lattice),
        )
        self.opponent = Agent(build_policy(self.meta).to(self.device), self.meta, seed=config.seed + 1)
        self.env.opponent = self.opponent
        self.pool = OpponentPool(config.pool_size if config.opponent == "pool" else 1, config.pool_sampling)
        self.pool.add(self.model.policy.state_dict(), 0)
        self.rng = np.random.default_rng([config.seed, 1])
        self.iteration, self.seconds = 0, 0.0
        self.validation = list(validation)
        self.best_iteration, self.best_score = 0, -1.0
        self.best_state: State = {}

    def agent(self, *, best: bool = True) -> Agent:
        """Return the learner as an agent of its own.

        Args:
            best: As it was in the iteration that validation chose, if it chose one; else as it is now.
        """
        policy = build_policy(self.meta)
        chosen = self.best_state if best and self.best_iteration else self.model.policy.state_dict()
        policy.load_state_dict({k: v.cpu() for k, v in chosen.items()})
        return Agent(policy, self.meta, self.config.temperature, self.config.seed)

    def fit(self, stop: StopSignal, sink: Any) -> None:
        """Train until the last iteration, or until a signal."""
        total = self.config.iterations or 150
        while self.iteration < total:
            row = self._iterate()
            sink.log(row, self.iteration)
            if self.validation and (
                self.iteration % self.config.select_every == 0 or self.iteration == total
            ):
                self._select()
            if self.iteration % self.config.save_every == 0 or self.iteration == total or stop.requested:
                self.save()
            if self.iteration % self.config.log_interval == 0 or self.iteration == total:
                logger.info(
                    "iteration %d: new scores found in a step %.4f, mean score %.3f, win rate %.2f",
                    *(self.iteration, row["found_per_step"], row["mean_score1"], row["win_rate"]),
                )
            if stop.requested and self.iteration < total:
                raise RunInterruptedError(
                    f"stopped by {stop.name} after iteration {self.iteration}; --resume continues"
                )
        # A run that was killed between its last checkpoint and the curve has no iteration left.
        self._write_curve()

    def _write_curve(self) -> None:
        write_table(self.run.path / "curve.csv", self.run.metrics_rows)

    def _iterate(self) -> dict[str, Any]:
        started = time.perf_counter()
        number = self.pool.choose(self.rng)
        self.opponent.policy.load_state_dict(self.pool.state_of(number))
        self.opponent.policy.set_training_mode(False)
        self.env.begin_record()
        steps = self.config.n_steps
        self.model.learn(steps * self.arena.n_games, reset_num_timesteps=self.iteration == 0)
        record = self.env.record
        self.pool.record(number, record.balances)
        member = self.pool.members[number]
        self.iteration += 1
        # The learner itself changes between iterations only.
        live = self.config.opponent == "live"
        every = steps if live else self.config.competitor_update_frequency
        if self.iteration * steps // every > (self.iteration - 1) * steps // every:
            self.pool.add(self.model.policy.state_dict(), self.iteration)
        self.seconds += time.perf_counter() - started
        row = {
            "iteration": self.iteration,
            "env_steps": self.iteration * steps * self.arena.n_games,
            "last_reward": record.last_reward,
            "mean_score1": record.score_sum[0] / record.moves,
            "mean_score2": record.score_sum[1] / record.moves,
            "found_per_step": record.found_sum / record.moves,
            "episodes": len(record.balances),
            "mean_episode_length": record.length_sum / len(record.balances) if record.balances else None,
            "opponent": member.iteration,
            "win_rate": member.win_rate,
        }
        self.run.log_metrics(row)
        return {key: value for key, value in row.items() if value is not None}

    def _select(self) -> None:
        """Keep the learner as it is now if its searches find higher scores than those of any iteration before."""
        agent, settings = self.agent(best=False), search_settings(self.config, self.arena.lattice)
        found = []
        for number, board in enumerate(self.validation):
            assert isinstance(board.scores, ScoreTable)  # noqa: S101 - an arena takes no other
            table = board.scores
            result = search(agent, board.volume, table.lookup, settings, n=_SELECTION_SEARCHES, seed=number)
            scores = table.full().reshape(-1)
            found += [float(scores[seen].mean()) for seen in result.seen]
        score = float(np.mean(found))
        logger.info("iteration %d: mean score of searches on validation volumes %.4f", self.iteration, score)
        if score > self.best_score:
            self.best_score, self.best_iteration = score, self.iteration
            self.best_state = {k: v.detach().cpu().clone() for k, v in self.model.policy.state_dict().items()}

    # ------------------------------------------------------------------ state

    def save(self) -> None:
        """Save all that a continued run needs, and the curve."""
        model = self.model
        self.run.save_checkpoint(
            "last",
            {
                "policy": model.policy.state_dict(),
                "optimizer": model.policy.optimizer.state_dict(),
                "pool": self.pool.state_dict(),
                "arena": self.arena.state_dict(),
                "balances": torch.from_numpy(self.env.balance),
                "episode_starts": torch.from_numpy(np.asarray(model._last_episode_starts)),
                "rng": capture_rng(),
                "choice_rng": self.rng.bit_generator.state,
                "opponent_rng": self.opponent.generator.get_state(),
                "num_timesteps": model.num_timesteps,
                "n_updates": model._n_updates,
                "iteration": self.iteration,
                "seconds": self.seconds,
                "best": {
                    "iteration": self.best_iteration,
                    "score": self.best_score,
                    "policy": self.best_state,
                },
                "config": self.config.model_dump(mode="json"),
                "boards": self.boards,
            },
        )
        self._write_curve()

    def restore(self) -> None:
        """Go on from ``last.pt``: afterwards every number is what the uninterrupted run would have had.

        Raises:
            CheckpointError: The file cannot be read, or is of a run with other settings.
        """
        state = load_last(self.run, self.config, _COURSE)
        if state is None:
            return
        if state["boards"] != self.boards:
            raise CheckpointError(
                f"{self.run.checkpoint_path('last')}: was trained on other volumes ({_listed(state['boards'])}; now "
                f"{_listed(self.boards)}); resume with the run's own data and split, or start a new run"
            )
        model = self.model
        model.policy.load_state_dict(state["policy"])
        model.policy.optimizer.load_state_dict(state["optimizer"])
        self.pool.load_state_dict(state["pool"])
        self.arena.load_state_dict(state["arena"])
        self.env.balance = state["balances"].numpy()
        # What `learn` would otherwise get from a reset, which would begin all games anew.
        model._last_obs = self.arena.observe(0)
        model._last_episode_starts = state["episode_starts"].numpy()
        model.num_timesteps, model._n_updates = state["num_timesteps"], state["n_updates"]
        best = state["best"]
        self.best_iteration, self.best_score = int(best["iteration"]), float(best["score"])
        self.best_state = dict(best["policy"])
        self.opponent.generator.set_state(state["opponent_rng"])
        self.iteration, self.seconds = int(state["iteration"]), float(state["seconds"])
        self.rng.bit_generator.state = state["choice_rng"]
        restore_rng(state["rng"])
        self.run.truncate_metrics(self.iteration)
        logger.info("resumed at iteration %d", self.iteration)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")
