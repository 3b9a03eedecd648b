"""Whole runs: what they write, and that a stopped one loses nothing."""

from __future__ import annotations

import json

import pytest
import torch

from aespa.config import Config
from aespa.errors import CheckpointError, TrainingError
from aespa.evaluating import evaluate_run
from aespa.models.checkpoint import load_network
from aespa.synthetic_drawing import draw_arrays
from aespa.trainer import start_network
from aespa.training import RunArrays, train_run
from medshared.command_line import RunInterruptedError


class StopAfter:
    """A stop that is asked for after some looks at it."""

    name = "SIGTERM"

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(scope="module")
def arrays():
    val = draw_arrays(2, 32, 1)
    return RunArrays(draw_arrays(5, 32, 0), val, val)


def config_of(**keys) -> Config:
    given = {
        "encoder": "tiny", "image_size": 32, "runs": 2, "num_samples": 3, "n_clusters": 2, "n_components": 4, "b": 2,
        "epochs": 3, "val_freq": 2, "lr": 1e-3, "device": "cpu", "progress": False, "dataset": "LIDC",
    }  # fmt: skip
    return Config(**{**given, **keys})


def weights_of(folder):
    return load_network(folder / "checkpoints" / "best.pt")[0].state_dict()


def test_a_run_writes_its_files_and_the_originals(arrays, tmp_path):
    results = train_run(config_of(), tmp_path / "run", arrays=arrays)
    run = tmp_path / "run"
    for name in (
        "config.yaml",
        "environment.json",
        "log.txt",
        "metrics.csv",
        "predictions.csv",
        "images.csv",
    ):
        assert (run / name).is_file(), name
    assert (run / "report.html").stat().st_size > 5000
    assert (
        json.loads((run / "results.json").read_text())["metrics"]["dice_r1"] == results["metrics"]["dice_r1"]
    )
    log = next((run / "Log").glob("*_train.log")).read_text()
    assert "Logger is ready." in log
    assert "Train loss: " in log
    assert "|| @ epoch 2." in log
    assert "Total score: " in log
    network, extra = load_network(run / "Model" / "checkpoint_best.pth")
    assert extra["config"]["mode"] == "AESPA"
    assert network.architecture.image_size == 32


@pytest.mark.parametrize(
    ("mode", "keys", "looks"),
    [
        ("AESPA", {}, 1),
        ("AESPA", {}, 2),  # after the last batch
        ("AESPA", {"update": "per_round"}, 3),  # in the validation
        ("SPA", {}, 4),
        ("SAM", {}, 1),
        ("AESPA", {"faithful": True}, 3),
        ("SPA", {"faithful": True}, 4),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(mode, keys, looks, arrays, tmp_path):
    config = config_of(mode=mode, epochs=2, **keys)
    train_run(config, tmp_path / "whole", arrays=arrays, measure=False)
    with pytest.raises(RunInterruptedError):
        train_run(config, tmp_path / "run", arrays=arrays, measure=False, stop=StopAfter(looks))
    assert not (tmp_path / "run" / "results.json").exists()
    train_run(config, tmp_path / "run", arrays=arrays, measure=False, resume=True)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_bytes()
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_same_seed_gives_the_same_run(arrays, tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_run(config_of(seed=seed, epochs=1), tmp_path / name, arrays=arrays, measure=False)
        found.append((tmp_path / name / "metrics.csv").read_text())
    assert found[0] == found[1] != found[2]


def test_training_stops_where_nothing_improves(arrays, tmp_path):
    config = config_of(epochs=9, val_freq=1, patience=2, lr=1e-9)
    results = train_run(config, tmp_path / "run", arrays=arrays, measure=False)
    assert results["best_epoch"] == 0
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 3


def test_a_run_of_another_network_is_not_resumed(arrays, tmp_path):
    train_run(config_of(epochs=1), tmp_path / "run", arrays=arrays, measure=False)
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(TrainingError, match="n_components: 4 there, 8 here"):
        train_run(config_of(n_components=8), tmp_path / "run", arrays=arrays, measure=False, resume=True)


def test_a_diverging_run_says_so(arrays, tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        train_run(config_of(lr=1e30, epochs=5), tmp_path / "run", arrays=arrays, measure=False)


def test_training_starts_from_a_whole_checkpoint(arrays, tmp_path):
    train_run(config_of(mode="SAM", epochs=1), tmp_path / "sam", arrays=arrays, measure=False)
    checkpoint = tmp_path / "sam" / "checkpoints" / "best.pt"
    network = start_network(config_of(pretrain=checkpoint).resolved())
    assert network.architecture.preferences
    given = weights_of(tmp_path / "sam")
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())
    with pytest.raises(CheckpointError, match=r"EM_weights\.fc1"):
        start_network(config_of(pretrain=checkpoint, n_components=8).resolved())


def test_a_checkpoint_is_measured_beside_a_plain_sam(arrays, tmp_path):
    for mode in ("AESPA", "SAM"):
        train_run(config_of(mode=mode, epochs=1), tmp_path / mode, arrays=arrays, measure=False)
    weights = tmp_path / "AESPA" / "checkpoints" / "best.pt"
    config = config_of(weights=weights)
    results = evaluate_run(
        config, tmp_path / "eval", plain=tmp_path / "SAM" / "checkpoints" / "best.pt", arrays=arrays.test
    )
    assert {"dice_late", "plain_sam_dice_late", "random_click_dice_late"} <= results["metrics"].keys()
    assert (tmp_path / "eval" / "report.html").is_file()
    with pytest.raises(CheckpointError, match="-weights"):
        evaluate_run(config_of(), tmp_path / "other", arrays=arrays.test)


def test_a_learning_rate_can_decay(arrays, tmp_path):
    train_run(config_of(lr_step=1, lr_gamma=0.5, val_freq=9), tmp_path / "run", arrays=arrays, measure=False)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("lr")
    assert [float(row.split(",")[column]) for row in rows[1:]] == [1e-3, 5e-4, 2.5e-4]


def test_a_run_that_is_stopped_while_it_measures_is_measured_later(arrays, tmp_path):
    config = config_of(epochs=1)
    with pytest.raises(RunInterruptedError, match="-resume measures"):
        train_run(config, tmp_path / "run", arrays=arrays, stop=StopAfter(4))
    assert not (tmp_path / "run" / "results.json").exists()
    results = train_run(config, tmp_path / "run", arrays=arrays, resume=True)
    assert results["best_epoch"] == 0
    assert "dice_late" in results["metrics"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"mode": "SPA"}, "-mode SPA, the run had AESPA"), ({"b": 3}, "-b 3, the run had 2")],
)
def test_a_run_does_not_go_on_as_another(keys, message, arrays, tmp_path):
    with pytest.raises(RunInterruptedError):
        train_run(config_of(), tmp_path / "run", arrays=arrays, measure=False, stop=StopAfter(0))
    with pytest.raises(TrainingError, match=message):
        train_run(config_of(**keys), tmp_path / "run", arrays=arrays, measure=False, resume=True)


def test_the_batch_may_change_between_epochs(arrays, tmp_path):
    train_run(config_of(epochs=1), tmp_path / "run", arrays=arrays, measure=False)
    results = train_run(config_of(epochs=2, b=3), tmp_path / "run", arrays=arrays, measure=False, resume=True)
    assert results["best_epoch"] in (0, 1)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 2


def test_the_original_does_not_train_a_plain_sam(arrays, tmp_path):
    with pytest.raises(TrainingError, match="-update per_batch"):
        train_run(config_of(mode="SAM", faithful=True), tmp_path / "run", arrays=arrays)
    assert not (tmp_path / "run").exists()


def test_weights_that_mean_something_else_are_told(arrays, tmp_path, caplog):
    train_run(config_of(epochs=1, click_order="yx"), tmp_path / "run", arrays=arrays, measure=False)
    start_network(config_of(pretrain=tmp_path / "run" / "checkpoints" / "best.pt").resolved())
    assert "trained with click_order: yx, this run has xy" in caplog.text
