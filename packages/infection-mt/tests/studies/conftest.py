"""Finished tiny runs, trained once a session and shared by the tests of all scripts."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medshared.configuration import merge_mappings


@dataclass(frozen=True)
class Studio:
    """What the scripts work on."""

    settings: dict[str, Any]
    config: Path  # multi-task configuration
    baseline: Path  # single-task configuration
    run: Path  # one multi-task run
    folds: Path  # two rotating multi-task folds
    fixed: Path  # two multi-task folds with one test set
    infected: Path  # two folds of the infected regressor, the same test set
    classifier: Path  # train.py, two folds


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    from infection_mt import scripts
    from infection_mt.studies.command_lines import run
    from infection_mt.synthetic import SyntheticParams, generate

    root = tmp_path_factory.mktemp("studio")
    params = SyntheticParams(stacks_per_class=8, n_pages=6, size=32, frames_per_hour=0.125, n_cells=12)
    data = generate(root / "data", params)
    settings = {
        "experiment_name": "tiny",
        "output_dir": str(root / "outputs"),
        "seed": 3,
        "multitask": {"infection_onset_hour": 1.0},
        "data": {
            "infected_dir": str(data.infected_dir),
            "uninfected_dir": str(data.uninfected_dir),
            "split_ratios": [0.5, 0.25, 0.25],
            "batch_size": 16,
            "num_workers": 0,
            "cache_dir": str(root / "cache"),
            "transforms": {
                "image_size": 34,
                "random_rotation": False,
            },  # at 32 a batch of one has no variance
            "frames": {
                "frames_per_hour": 0.125,
                "infected_window_hours": [8, 48],
                "uninfected_window_hours": [0, 48],
            },
        },
        "split": {"overlap": "off"},
        "model": {"name": "resnet10", "pretrained": False, "hidden_dim": 16, "dropout": 0.1},
        "training": {"epochs": 1, "grad_clip": 1.0},
        "optimizer": {"lr": 1e-3},
        "scheduler": {"eta_min": 1e-5},
        "metrics": {"bootstrap_resamples": 0},
    }
    config, baseline = root / "config.json", root / "baseline.json"
    config.write_text(json.dumps(settings))
    single = merge_mappings(settings, {"experiment_name": "base", "task": {"type": "classification"}})
    single["model"] = {"name": "resnet10", "pretrained": False, "num_classes": 1, "dropout": 0.1}
    single["analysis"] = {"time_bins": [[0, 24], [24, 48]]}
    single["logging"] = {"output_dir": str(root / "outputs")}
    single["training"] = {**single["training"], "checkpoint_dir": str(root / "checkpoints")}
    del single["multitask"]
    baseline.write_text(json.dumps({**single, "run_id": "run"}))
    paths = {name: root / name for name in ("run", "folds", "fixed", "infected")}

    def start(script: Callable[..., int], name: str, *flags: str) -> None:
        command = ["--config", str(config), "--output", str(paths[name]), "--device", "cpu", "--debug"]
        assert script([*command, *flags]) == 0

    with pytest.MonkeyPatch.context() as patch:
        # The pictures of every run are tested elsewhere.
        patch.setattr("infection_mt.analysis.run_analysis.analyze_run", lambda *_, **__: [])
        start(scripts.train_multitask, "run")
        start(scripts.train_multitask_cv, "folds", "--num-folds", "2")
        start(scripts.train_multitask_cv, "fixed", "--num-folds", "2", "--set", "cv.test=fixed")
        infected = ["--set", "cv.test=fixed", "--set", "regression.target_class=1"]
        start(
            scripts.train_regression_cv,
            "infected",
            "--num-folds",
            "2",
            *infected,
            "--set",
            "training.epochs=1",
        )
        command = [
            "--config",
            str(baseline),
            "--k-folds",
            "2",
            "--device",
            "cpu",
            "--debug",
            "--set",
            "cv.test=fixed",
        ]
        assert run("train.py", command) == 0
    return Studio(settings, config, baseline, **paths, classifier=root / "outputs" / "base" / "run")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a copy of a run that a script may write into."""

    def make(run: Path) -> Path:
        return Path(shutil.copytree(run, tmp_path / run.name))

    return make


@pytest.fixture
def script() -> Callable[..., int]:
    """Run a script in this process, with its traceback when it fails."""
    from infection_mt.studies.command_lines import run

    def start(name: str, *arguments: object, debug: bool = True) -> int:
        return run(name, [*(str(a) for a in arguments), *(["--debug"] if debug else [])])

    return start


@pytest.fixture
def settings_of(studio: Studio) -> dict[str, Any]:
    return copy.deepcopy(studio.settings)


@pytest.fixture(autouse=True)
def _no_pictures_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves out the pictures of each run, which are tested elsewhere and take seconds."""
    monkeypatch.setattr("infection_mt.analysis.run_analysis.analyze_run", lambda *_, **__: [])
