"""Runs with a toy network: what they write, how they stop and go on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from medshared.command_line import RunInterruptedError
from medshared.configuration import load_config
from medshared.runs import RunDirectory
from til_mtl.config import Config
from til_mtl.errors import CheckpointError, DataError, TrainingError
from til_mtl.patch_scores import PatchScores
from til_mtl.trainer import RunOptions, Trainer
from til_mtl.training import next_version, train_run

pytestmark = pytest.mark.usefixtures("toy_network")


def config_of(keys: dict, **changes) -> Config:
    return load_config(Config, keys | changes, label="test")


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return RunDirectory(folder).load_checkpoint(name)["state_dict"]


def rows(folder: Path) -> list[dict]:
    return RunDirectory(folder).metrics_rows


def test_a_run_leaves_everything_behind(toy_keys, tmp_path):
    results = train_run(config_of(toy_keys), tmp_path / "run")
    names = {
        path.relative_to(tmp_path / "run").as_posix()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    checkpoint = next(name for name in names if name.endswith(".ckpt"))
    assert names == {
        *(
            "config.yaml",
            "environment.json",
            "log.txt",
            "metrics.csv",
            "predictions.csv",
            "results.json",
            "report.html",
        ),
        *(
            "predictions_val.npz",
            "predictions_test.npz",
            "checkpoints/last.pt",
            "checkpoints/best.pt",
            checkpoint,
        ),
        *("figures/patches.png", "figures/froc.png", "figures/learning.png"),
    }
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"].keys() == {"val", "test"}
    assert results["steps"] == 9
    assert len(rows(tmp_path / "run")) == 3
    assert "<img" in (tmp_path / "run" / "report.html").read_text()


LOGGED = {
    "mtl": "dice3 loss bce_loss dice_loss dice_other dice_tumor dice_stroma loss_seg loss_det froc",
    "seg": "dice3 loss bce_loss dice_loss dice_other dice_tumor dice_stroma",
    "det": "loss dice_background dice_lymphocytes bce_loss froc",
}


@pytest.mark.parametrize("task", ["mtl", "seg", "det"])
@pytest.mark.parametrize("faithful", [False, True])
def test_values_have_the_names_of_the_original(toy_keys, tmp_path, task, faithful):
    config = config_of(toy_keys, task=task, faithful=faithful, max_epochs=1)
    train_run(config, tmp_path / "run", report=False)
    row = rows(tmp_path / "run")[0]
    wanted = {f"val_{name}" for name in LOGGED[task].split()}
    wanted |= {f"train_{name}" for name in LOGGED[task].split() if faithful or name != "froc"}
    assert wanted | {"lr-Adam"} <= row.keys()
    if task != "seg":
        assert "val_froc_tiger" in row
    if task != "det":
        assert {
            "val_dice_mean",
            "val_dice_hard_other",
            "val_dice_hard_tumor",
            "val_dice_hard_stroma",
        } <= row.keys()


def test_the_checkpoint_has_the_keys_of_the_original(toy_keys, tmp_path):
    train_run(config_of(toy_keys), tmp_path / "run", report=False)
    file = next((tmp_path / "run" / "checkpoints").glob("epoch=*-step=*.ckpt"))
    state = torch.load(file, weights_only=True)
    keys = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks"}
    assert keys | {"optimizer_states", "lr_schedulers"} <= state.keys()
    assert all(name.startswith("net.") for name in state["state_dict"])
    # Three batches an epoch; the original names the last step of the best epoch, counting from 0.
    assert file.name == f"epoch={state['epoch']}-step={3 * state['epoch'] + 2}.ckpt"


def test_the_same_seed_gives_the_same_run(toy_keys, tmp_path):
    for name in ("a", "b"):
        train_run(config_of(toy_keys, augment="d4+stain"), tmp_path / name, report=False)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


class StopAfter:
    """Asks to stop after some questions."""

    name = "SIGTERM"

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "d4", "train_froc": True, "froc": "legacy"},
        {
            "balancing": "uncertainty",
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 0.5,
            "val_check_interval": 0.34,
        },
    ],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(toy_keys, tmp_path, stop_after, changes):
    config = config_of(toy_keys, **changes)
    train_run(config, tmp_path / "whole", report=False)
    with pytest.raises(RunInterruptedError, match="--resume continues"):
        train_run(config, tmp_path / "parts", report=False, stop=StopAfter(stop_after))
    train_run(config, tmp_path / "parts", RunOptions(resume=True), report=False)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    for name in ("last", "best"):
        a, b = weights(tmp_path / "whole", name), weights(tmp_path / "parts", name)
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_is_not_resumed_under_other_settings(toy_keys, tmp_path):
    with pytest.raises(RunInterruptedError):
        train_run(config_of(toy_keys), tmp_path / "run", report=False, stop=StopAfter(1))
    with pytest.raises(
        CheckpointError, match=r"cannot resume under other settings \(lr: 0.001 then, 0.5 now"
    ):
        train_run(config_of(toy_keys, lr=0.5), tmp_path / "run", RunOptions(resume=True), report=False)


def test_best_weights_hold_no_state_to_continue_from(toy_keys, tmp_path):
    train_run(config_of(toy_keys), tmp_path / "run", report=False)
    options = RunOptions(resume_from_checkpoint=tmp_path / "run" / "checkpoints" / "best.pt")
    with pytest.raises(CheckpointError, match="holds no optimiser state"):
        train_run(config_of(toy_keys), tmp_path / "other", options, report=False)


def test_another_run_may_be_continued_elsewhere(toy_keys, tmp_path):
    train_run(config_of(toy_keys, max_epochs=2), tmp_path / "short", report=False)
    options = RunOptions(resume_from_checkpoint=tmp_path / "short" / "checkpoints" / "last.pt")
    train_run(config_of(toy_keys), tmp_path / "longer", options, report=False)
    train_run(config_of(toy_keys), tmp_path / "whole", report=False)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "longer")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_signal_stops_the_run(toy_keys, tmp_path, monkeypatch):
    whole = Trainer._step

    def step(self, batch, update):
        whole(self, batch, update)
        if self.progress.epoch == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(RunInterruptedError, match="stopped by SIGTERM in epoch 1 after 1 batches"):
        train_run(config_of(toy_keys), tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 4}, 4),
        ({"limit_train_batches": 1}, 3),
        ({"limit_train_batches": 0.67}, 6),
        ({"overfit_batches": 1}, 3),
        ({"fast_dev_run": True}, 1),
        ({"fast_dev_run": 2}, 2),
        ({"drop_last": True, "batch_size": 5}, 6),
        ({"accumulate_grad_batches": 2}, 6),
        ({"max_time": "00:00:00:00"}, 0),
        ({"max_epochs": 0}, 0),
        ({"max_steps": 1, "min_epochs": 2}, 1),
    ],
)
def test_limits(toy_keys, tmp_path, changes, steps):
    assert train_run(config_of(toy_keys, **changes), tmp_path / "run", report=False)["steps"] == steps


def test_the_rate_follows_half_waves_of_a_cosine(toy_keys, tmp_path, golden_json):
    config = config_of(toy_keys)
    trainer = Trainer.__new__(Trainer)
    trainer.config = config
    found = [trainer.learning_rate(epoch) for epoch in range(301)]
    np.testing.assert_allclose(found, golden_json("schedule")["lr_0.001_tmax_60"], atol=1e-12)


def test_a_loss_that_is_not_finite_stops_the_run(toy_keys, tmp_path):
    with pytest.raises(TrainingError, match=r"the training loss of epoch \d is not finite .*lower --lr"):
        train_run(config_of(toy_keys, lr=1e30), tmp_path / "run", report=False)


def test_an_unknown_monitor_names_the_known_ones(toy_keys, tmp_path):
    with pytest.raises(TrainingError, match="monitor: unknown value 'val_auc'; expected one of val_"):
        train_run(config_of(toy_keys, monitor="val_auc"), tmp_path / "run", report=False)


def test_higher_is_better_for_all_but_losses(toy_keys, tmp_path):
    train_run(config_of(toy_keys, monitor="val_dice_mean"), tmp_path / "run", report=False)
    best = max(row["val_dice_mean"] for row in rows(tmp_path / "run"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["monitor"] == {"val_dice_mean": best}
    assert results["epoch_values"]["val_dice_mean"] == best


def test_predictions_on_disk_give_the_metrics_again(toy_keys, tmp_path):
    results = train_run(config_of(toy_keys), tmp_path / "run", report=False)
    for name in ("val", "test"):
        again = PatchScores.read(tmp_path / "run" / f"predictions_{name}.npz").metrics()
        np.testing.assert_equal(again, results["metrics"][name])


def test_a_set_without_patches_is_an_error(toy_keys, tmp_path):
    with pytest.raises(DataError, match="no such data folder: give the root"):
        train_run(config_of(toy_keys, data_dir=str(tmp_path / "nothing")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_versions_count_up(tmp_path):
    assert next_version(tmp_path) == tmp_path / "default" / "version_0"
    (tmp_path / "default" / "version_7").mkdir(parents=True)
    assert next_version(tmp_path).name == "version_8"
