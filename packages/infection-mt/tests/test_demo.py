"""The demonstration: its data and settings for any configuration, and a tiny run of the whole."""

import pytest

from infection_mt import demo, demo_report
from infection_mt.config import Config
from infection_mt.demo import DEMO_SETTINGS, demo_config, run_demo, with_demo_data
from infection_mt.synthetic import SyntheticParams, generate
from medshared.configuration import merge_mappings
from medshared.files import read_json

TINY = {
    "data": {"transforms": {"image_size": 32}},
    "model": {"hidden_dim": 8},
    "training": {"epochs": 1},
    "metrics": {"bootstrap_resamples": 20},
}


@pytest.fixture
def tiny_demo(monkeypatch):
    """Demonstration settings that train in a second."""
    settings = merge_mappings(DEMO_SETTINGS, TINY)
    for module in (demo, demo_report):
        monkeypatch.setattr(module, "DEMO_SETTINGS", settings)
    monkeypatch.setattr(demo, "STACKS_PER_CLASS", 8)
    monkeypatch.setattr(demo_report, "CONFOUNDED", {"training": {"epochs": 1}})


def test_a_users_configuration_keeps_its_own_choices(tmp_path, tiny_demo):
    mine = {
        "experiment_name": "mine",
        "seed": 7,
        "faithful": True,
        "task": {"type": "classification"},
        "data": {"manifest": "my.csv", "cache_dir": "mine", "split_seed": 5},
        "training": {"epochs": 500, "early_stopping": {"patience": 3}},
    }
    config = Config.model_validate(with_demo_data(mine, tmp_path))
    assert (config.experiment_name, config.seed, config.faithful, config.task.type) == (
        "mine",
        7,
        True,
        "classification",
    )
    assert config.data.manifest is None
    assert config.data.infected_dir is not None
    assert len(list(config.data.infected_dir.glob("*.tiff"))) == 8
    assert (config.data.cache_dir, config.training.epochs, config.training.early_stopping) == (None, 1, None)
    assert mine["data"]["manifest"] == "my.csv", "the caller's mapping stays as it was"


def test_the_three_tasks_differ_in_the_task_only(tmp_path):
    data = generate(tmp_path / "data", SyntheticParams(2, n_pages=2, size=16))
    configs = [demo_config(data, tmp_path, seed=1, task=task) for task in demo.TASKS]
    assert [config.task.type for config in configs] == ["multitask", "classification", "regression"]
    assert len({config.model_dump_json(exclude={"task"}) for config in configs}) == 1


@pytest.mark.slow
def test_a_tiny_demonstration(tmp_path, tiny_demo):
    results = run_demo(tmp_path, seed=1, device="cpu")
    assert read_json(tmp_path / "results.json") == results
    assert {"auc", "f1", "mae_hours"} <= results["metrics"].keys()
    assert {"auc", "mae_hours", "single_task_auc", "single_task_mae_hours"} <= results["baseline"].keys()
    assert {"same_plate", "second_plate", "warnings"} <= results["confounded"].keys()
    assert any("CONFOUNDED" in warning for warning in results["confounded"]["warnings"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "figures" / "grad_cam.png").stat().st_size > 0
    for task in demo.TASKS:
        assert (tmp_path / task / "report.html").exists()
    assert not list(tmp_path.rglob(".*.tmp"))
