"""The search: resumable, on validation only, reproducible, with a configuration that loads."""

import pandas as pd
import pytest

from infection_mt import search as module
from infection_mt.config import Config
from infection_mt.search import Parameter, read_space, with_values
from infection_mt.training import RunOptions
from medshared.configuration import load_config
from medshared.files import read_json

CPU = RunOptions(device="cpu")
GRID = {"model.dropout": Parameter(choices=[0.0, 0.1]), "optimizer.lr": Parameter(choices=[1e-3, 1e-4])}


@pytest.fixture
def quick(monkeypatch):
    """Training that takes no time: the value follows from the searched keys; notes the data it was given."""
    seen = []

    def train_run(config, folder, options, *, data):
        seen.append((folder.name, config, data))
        return {"best_val_metric": config.model.dropout + config.optimizer.lr}

    monkeypatch.setattr(module, "train_run", train_run)
    return seen


def run(settings, folder, **keys):
    return module.search(Config.model_validate(settings), folder, CPU, **keys)


def test_a_grid_is_walked_once_and_the_best_loads(tiny_settings, tmp_path, quick):
    best = run(tiny_settings, tmp_path / "s", trials=4, space=GRID, sampler="grid")
    values = {(config.model.dropout, config.optimizer.lr) for _, config, _ in quick}
    assert values == {(0.0, 1e-3), (0.0, 1e-4), (0.1, 1e-3), (0.1, 1e-4)}
    assert best["params"] == {"model.dropout": 0.1, "optimizer.lr": 1e-3}
    assert best["value"] == pytest.approx(0.101)
    config = load_config(Config, tmp_path / "s" / "best_config.json")
    assert (config.model.dropout, config.optimizer.lr) == (0.1, 1e-3)
    assert config.data.infected_dir is not None
    trials = pd.read_csv(tmp_path / "s" / "trials.csv")
    assert list(trials.columns) == ["trial", "state", "val_combined", "model.dropout", "optimizer.lr"]
    assert read_json(tmp_path / "s" / "best_trial.json")["metric"] == "combined"


def test_the_test_table_is_never_given(tiny_settings, tmp_path, quick):
    run(tiny_settings, tmp_path / "s", trials=1, space=GRID, sampler="random")
    _, _, data = quick[0]
    assert data.tables["test"] is data.tables["val"]
    tested = {stack.path for stack in data.split.test}
    assert tested
    assert not any(tested & {s.path for s in table.stacks} for table in data.tables.values())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_goes_on(tiny_settings, tmp_path, quick, sampler):
    space = {
        "model.dropout": Parameter(low=0.0, high=0.5),
        "optimizer.lr": Parameter(low=1e-5, high=1e-3, log=True),
    }
    run(tiny_settings, tmp_path / "s", trials=2, space=space, sampler=sampler)
    run(tiny_settings, tmp_path / "s", trials=3, space=space, sampler=sampler)
    run(tiny_settings, tmp_path / "s", trials=3, space=space, sampler=sampler)
    assert [name for name, _, _ in quick] == ["trial_0", "trial_1", "trial_2"]
    assert all(0 <= c.model.dropout <= 0.5 and 1e-5 <= c.optimizer.lr <= 1e-3 for _, c, _ in quick)


def test_a_lower_metric_is_better_where_it_should_be(tiny_settings, tmp_path, quick):
    tiny_settings["selection"] = {"metric": "reg_mae"}
    best = run(tiny_settings, tmp_path / "s", trials=4, space=GRID, sampler="grid")
    assert best["params"] == {"model.dropout": 0.0, "optimizer.lr": 1e-4}


@pytest.mark.slow
def test_a_real_trial(tiny_settings, tmp_path):
    tiny_settings["training"]["epochs"] = 1
    best = run(tiny_settings, tmp_path / "s", trials=1, space={"model.hidden_dim": Parameter(choices=[8])})
    results = read_json(tmp_path / "s" / "trial_0" / "results.json")
    assert best["value"] == pytest.approx(results["best_val_metric"])
    assert results["frames"]["test"] == results["frames"]["val"]


def test_spaces(tmp_path, tiny_settings):
    path = tmp_path / "space.yaml"
    path.write_text("optimizer.lr: {low: 1e-5, high: 1e-3, log: true}\nmodel.dropout: {choices: [0, 0.1]}\n")
    space = read_space(path)
    assert (space["optimizer.lr"].low, space["model.dropout"].choices) == (1e-5, [0, 0.1])
    assert set(read_space(None)) == set(module.DEFAULT_SPACE)
    for text in (
        "optimizer.lr: {low: 1}",
        "optimizer.lr: {}",
        "optimizer.lr: {low: 1, high: 2, choices: [1]}",
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="give either choices, or low and high"):
            read_space(path)
    config = Config.model_validate(tiny_settings)
    with pytest.raises(ValueError, match="no section 'modle'"):
        with_values(config, {"modle.dropout": 0.1})
    with pytest.raises(ValueError, match="dropuot"):
        with_values(config, {"model.dropuot": 0.1})


def test_a_grid_of_ranges_is_refused(tiny_settings, tmp_path):
    space = {"optimizer.lr": Parameter(low=1e-5, high=1e-3)}
    with pytest.raises(ValueError, match=r"a grid needs choices, these keys have ranges: optimizer\.lr"):
        run(tiny_settings, tmp_path, trials=1, space=space, sampler="grid")
