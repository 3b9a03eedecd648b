"""Hyper-parameter search on the validation set; the study lives on disk and can be resumed (extra ``search``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, model_validator

from infection_mt.config import Config
from infection_mt.data.dataset import FrameStore
from infection_mt.data.prepare import RunData, cache_folder, plain_config, prepare_data
from infection_mt.data.stacks import load_stacks
from infection_mt.training import DEFAULT_SELECTION, RunOptions, lower_is_better, train_run
from medshared.configuration import load_yaml_or_json
from medshared.files import write_json
from medshared.tables import write_table

logger = logging.getLogger(__name__)


class Parameter(BaseModel):
    """One searched key: either ``choices`` or a range ``low``…``high`` (``log`` for a logarithmic one)."""

    model_config = ConfigDict(extra="forbid")
    choices: list[Any] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        has_range = self.low is not None and self.high is not None
        if (self.choices is None) == (not has_range):
            raise ValueError("give either choices, or low and high")
        return self


DEFAULT_SPACE: dict[str, Parameter] = {
    "multitask.classification_weight": Parameter(low=0.2, high=5.0, log=True),
    "multitask.regression_weight": Parameter(low=0.2, high=5.0, log=True),
    "model.hidden_dim": Parameter(choices=[0, 64, 256, 512]),
    "model.dropout": Parameter(choices=[0.0, 0.1, 0.2, 0.3, 0.5]),
    "optimizer.lr": Parameter(low=1e-5, high=1e-3, log=True),
}


def read_space(path: Path | None) -> dict[str, Parameter]:
    """Read a search space file (dotted key → Parameter); None gives the default space."""
    if path is None:
        return dict(DEFAULT_SPACE)
    return {key: Parameter.model_validate(value) for key, value in load_yaml_or_json(path).items()}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a copy of ``config`` with dotted keys replaced and checked."""
    plain = plain_config(config)
    for key, value in values.items():
        section = plain
        *parents, last = key.split(".")
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                raise ValueError(f"search space: the configuration has no section {parent!r} (key {key!r})")
            section = section[parent]
        section[last] = value
    return Config.model_validate(plain)


def search(
    config: Config,
    folder: Path,
    options: RunOptions,
    *,
    trials: int,
    space: Mapping[str, Parameter] | None = None,
    sampler: str = "tpe",
) -> dict[str, Any]:
    """Train ``trials`` configurations and rank them by the selection metric on the validation set.

    The test set is never touched: each trial sees validation data in place of the test set.

    Args:
        config: Base configuration.
        folder: Receives ``study.log`` (the resumable study), ``trial_<n>/``, ``trials.csv`` and ``best_config.json``.
        options: Device and downloads. An existing study is continued until it has ``trials`` finished trials.
        trials: Number of finished trials wanted.
        space: Dotted key → Parameter.
        sampler: ``tpe``, ``random`` or ``grid`` (``choices`` only).

    Returns:
        The best trial: number, value, parameters.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError('the search needs optuna: pip install "infection-mt[search]"') from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    config = config.resolved()
    space = dict(space or DEFAULT_SPACE)
    metric = config.selection.metric or DEFAULT_SELECTION[config.task.type]
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=config.experiment_name,
        storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))),
        sampler=_sampler(optuna, sampler, space, config.seed),
        direction="minimize" if lower_is_better(metric) else "maximize",
        load_if_exists=True,
    )
    stacks = load_stacks(config.data, cache_folder(config))
    store = FrameStore(stacks, config.data, cache_folder(config))

    def objective(trial: Any) -> float:
        chosen = with_values(
            config, {key: _suggest(trial, key, parameter) for key, parameter in space.items()}
        )
        data = _without_test(prepare_data(chosen, stacks=stacks, store=store))
        results = train_run(chosen, folder / f"trial_{trial.number}", options, data=data)
        return float(results["best_val_metric"])

    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if len(finished) < trials:
        study.optimize(objective, n_trials=trials - len(finished))
    return _write_study(study, folder, config, metric)


def _without_test(data: RunData) -> RunData:
    """Put the validation side in place of the test side."""
    tables = {**data.tables, "test": data.tables["val"]}
    return RunData(data.split, tables, data.store, data.warnings)


def _sampler(optuna: Any, name: str, space: Mapping[str, Parameter], seed: int) -> Any:
    if name == "grid":
        ranges = [key for key, parameter in space.items() if parameter.choices is None]
        if ranges:
            raise ValueError(f"search: a grid needs choices, these keys have ranges: {', '.join(ranges)}")
        return optuna.samplers.GridSampler(
            {key: parameter.choices for key, parameter in space.items()}, seed=seed
        )
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _suggest(trial: Any, key: str, parameter: Parameter) -> Any:
    if parameter.choices is not None:
        return trial.suggest_categorical(key, parameter.choices)
    return trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _write_study(study: Any, folder: Path, config: Config, metric: str) -> dict[str, Any]:
    rows: Sequence[dict[str, Any]] = [
        {"trial": t.number, "state": t.state.name.lower(), f"val_{metric}": t.value, **t.params}
        for t in study.trials
    ]
    write_table(folder / "trials.csv", pd.DataFrame(rows))
    best = {
        "trial": study.best_trial.number,
        "metric": metric,
        "value": study.best_value,
        "params": study.best_params,
    }
    write_json(folder / "best_trial.json", best)
    write_json(folder / "best_config.json", plain_config(with_values(config, study.best_params)))
    return best
