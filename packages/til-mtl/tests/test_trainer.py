"""The loop's limits, pauses and optimiser, with a toy network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medshared.configuration import load_config
from medshared.runs import RunDirectory
from til_mtl import rescoring
from til_mtl.config import Config
from til_mtl.errors import TrainingError
from til_mtl.patch_scores import PatchScores
from til_mtl.run_data import load_run_data
from til_mtl.trainer import RunOptions, Trainer
from til_mtl.training import train_run

pytestmark = pytest.mark.usefixtures("toy_network")


def config_of(keys: dict, **changes) -> Config:
    return load_config(Config, keys | changes, label="test").resolved()


def trainer_of(keys: dict, folder, **changes) -> Trainer:
    config = config_of(keys, **changes)
    return Trainer(config, load_run_data(config), RunDirectory(folder), RunOptions())


def run(keys: dict, folder, options: RunOptions | None = None, **changes):
    """Train, and return results, metric rows and the last weights."""
    results = train_run(config_of(keys, **changes), folder, options, report=False)
    directory = RunDirectory(folder)
    state = directory.load_checkpoint("last") if directory.has_checkpoint("last") else {}
    return results, directory.metrics_rows, state.get("state_dict", {})


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_validation_within_a_group_of_batches_is_not_left_out(toy_keys, tmp_path):
    # Six batches an epoch in groups of four, validated after every three.
    _, rows, _ = run(
        toy_keys, tmp_path, batch_size=2, accumulate_grad_batches=4, val_check_interval=3, max_epochs=1
    )
    assert [(row["step"], "val_loss" in row) for row in rows] == [(0, True), (2, True)]


def test_validation_leaves_training_as_it_is(toy_keys, tmp_path):
    changes = {"augment": "d4+stain", "batch_size": 2, "accumulate_grad_batches": 4}
    _, _, plain = run(toy_keys, tmp_path / "a", **changes, num_sanity_val_steps=0)
    _, _, often = run(toy_keys, tmp_path / "b", **changes, num_sanity_val_steps=-1, val_check_interval=1)
    assert same(plain, often)


def test_the_most_steps_do_not_wait_for_the_least_epochs(toy_keys, tmp_path):
    assert run(toy_keys, tmp_path, max_steps=1, min_epochs=2)[0]["steps"] == 1


@pytest.mark.parametrize(("changes", "steps"), [({}, 1), ({"min_steps": 2}, 2), ({"min_epochs": 1}, 3)])
def test_time_is_up_within_an_epoch_but_waits_for_the_least_numbers(toy_keys, tmp_path, changes, steps):
    trainer = trainer_of(toy_keys, tmp_path, max_time="00:00:01:00", **changes)

    def one_minute(started: float) -> float:
        trainer.progress.seconds = 60.0
        return started

    trainer._add_seconds = one_minute  # type: ignore[method-assign]
    rows = []

    class Sink:
        def log(self, row, step):
            rows.append(row)

    class Never:
        requested = False

    trainer.fit(Never(), Sink())  # type: ignore[arg-type]
    assert trainer.progress.global_step == steps
    assert "val_loss" in rows[-1]


def test_a_run_that_met_its_limit_goes_on_under_a_later_one(toy_keys, tmp_path):
    run(toy_keys, tmp_path / "parts", max_steps=4)
    options = RunOptions(resume_from_checkpoint=tmp_path / "parts" / "checkpoints" / "last.pt")
    results, _, weights = run(toy_keys, tmp_path / "more", options, max_steps=8)
    assert results["steps"] == 8
    assert same(weights, run(toy_keys, tmp_path / "whole", max_steps=8)[2])


def test_the_end_of_a_run_is_kept_whatever_the_distance_of_checkpoints(toy_keys, tmp_path):
    run(toy_keys, tmp_path, save_every_n_epochs=2)
    assert RunDirectory(tmp_path).load_checkpoint("last")["progress"]["epoch"] == 3


def test_overfitting_trains_and_validates_on_the_same_batches(toy_keys, tmp_path, monkeypatch):
    seen: dict[str, list] = {"train": [], "val": []}
    loss = Trainer.loss

    def spy(self, maps, batch):
        mode = "train" if torch.is_grad_enabled() else "val"
        seen[mode].append((batch.indices.tolist(), batch.images.sum().item()))
        return loss(self, maps, batch)

    monkeypatch.setattr(Trainer, "loss", spy)
    trainer = trainer_of(toy_keys, tmp_path, overfit_batches=1, num_sanity_val_steps=0)

    class Quiet:
        requested = False

        def log(self, row, step):
            pass

    trainer.fit(Quiet(), Quiet())  # type: ignore[arg-type]
    assert len(seen["train"]) == len(seen["val"]) == 3
    assert len({str(each) for part in seen.values() for each in part}) == 1


def test_the_last_scores_keep_to_the_limits(toy_keys, tmp_path):
    # Batches of two: three of validation patches, two of test patches.
    changes = {"batch_size": 2, "max_epochs": 1, "limit_val_batches": 2, "limit_test_batches": 1}
    run(toy_keys, tmp_path / "a", **changes)
    with np.load(tmp_path / "a" / "predictions_val.npz") as val:
        assert len(val["names"]) == 4
    with np.load(tmp_path / "a" / "predictions_test.npz") as test:
        assert len(test["names"]) == 2


def test_a_checkpoint_is_scored_within_the_limits(toy_keys, toy_network, tmp_path, monkeypatch):
    network = toy_network("mtl")
    monkeypatch.setattr(rescoring, "load_network", lambda path, task: (network, {}))
    config = config_of(toy_keys, batch_size=2, limit_test_batches=1)
    rescoring.rescore(tmp_path / "best.pt", tmp_path / "out", config=config)
    assert len(PatchScores.read(tmp_path / "out" / "predictions_test.npz")) == 2


def test_no_validation_at_all(toy_keys, tmp_path):
    results = train_run(
        config_of(toy_keys, max_epochs=1, limit_val_batches=0, limit_test_batches=0), tmp_path
    )
    assert results["metrics"] == {}
    assert "the last weights are used" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "report.html").is_file()


def test_a_share_of_nothing_is_an_error(toy_keys, tmp_path):
    with pytest.raises(TrainingError, match=r"limit_train_batches: 0.1 of 3 train batches is less than one"):
        run(toy_keys, tmp_path, limit_train_batches=0.1)


def test_a_trial_run_leaves_no_checkpoint(toy_keys, tmp_path):
    results = train_run(config_of(toy_keys, fast_dev_run=True), tmp_path)
    assert results["steps"] == 1
    assert not list((tmp_path / "checkpoints").glob("*"))
    assert "no epoch" not in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "report.html").is_file()


def test_learned_weights_start_from_the_given_ones_and_do_not_decay(toy_keys, tmp_path):
    trainer = trainer_of(toy_keys, tmp_path, balancing="uncertainty", loss_weights=(1.0, 0.0))
    batch = next(trainer.batches.epoch(0, skip=0, limit=1, device=trainer.fabric.device))
    total, tissue, _ = trainer.loss(trainer.maps(batch), batch)
    assert tissue is not None
    assert total.item() == pytest.approx(tissue.loss.item())
    decays = [group["weight_decay"] for group in trainer.optimizer.param_groups]
    assert decays == [0.001, 0.0]


def test_training_may_log_its_froc(toy_keys, tmp_path):
    _, rows, _ = run(toy_keys, tmp_path, max_epochs=1, train_froc=True)
    assert 0 <= rows[0]["train_froc"] <= 1
    assert rows[0]["val_froc"] == rows[0]["val_froc_tiger"]


def lightning_checkpoint(folder, network, *, counts: bool) -> dict:
    """Write what Lightning 1.5 saves after the second epoch of three steps, and return Adam's state."""
    from collections import OrderedDict

    torch.manual_seed(1)
    # The original gives Adam all parameters, frozen ones too, and counts steps in plain integers.
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, lr=0.001, weight_decay=0.001)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    for _ in range(6):
        adam.step()
    moments = adam.state_dict()
    for each in moments["state"].values():
        each["step"] = int(each["step"])
    keys = {"lr", "betas", "eps", "weight_decay", "amsgrad", "params"}
    group = {key: value for key, value in moments["param_groups"][0].items() if key in keys}
    moments = {"state": moments["state"], "param_groups": [group | {"initial_lr": 0.001}]}
    best = {"monitor": "val_loss", "best_model_score": torch.tensor(0.5), "best_model_path": "x.ckpt"}
    best |= {"best_k_models": {"x.ckpt": torch.tensor(0.5)}, "kth_value": torch.tensor(0.5)}
    state = {
        "epoch": 2 if counts else 1,
        "global_step": 6 if counts else 5,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": OrderedDict((f"net.{key}", value) for key, value in network.state_dict().items()),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min'}": best},
        "optimizer_states": [moments],
        "lr_schedulers": [
            {"T_max": 60, "eta_min": 0, "base_lrs": [0.001], "last_epoch": 1, "_last_lr": [0.001]}
        ],
    }
    torch.save(state, folder / "epoch=1-step=5.ckpt")
    return moments


@pytest.mark.parametrize("counts", [True, False])
def test_a_run_of_the_original_is_continued(toy_keys, toy_network, tmp_path, monkeypatch, counts):
    def partly_frozen(config, allow_download=False):
        network = toy_network(config.task)
        network.body[0].requires_grad_(False)
        return network

    monkeypatch.setattr("til_mtl.trainer.build_network", partly_frozen)
    trainer = trainer_of(toy_keys, tmp_path / "run")
    moments = lightning_checkpoint(tmp_path, partly_frozen(trainer.config), counts=counts)
    trainer.restore(tmp_path / "epoch=1-step=5.ckpt")
    assert (trainer.progress.epoch, trainer.progress.batch, trainer.progress.global_step) == (2, 0, 6)
    for index, parameter in enumerate(trainer.network.parameters()):
        if parameter.requires_grad:
            found = trainer.optimizer.state[parameter]
            assert found["step"] == 6
            assert torch.equal(found["exp_avg"], moments["state"][index]["exp_avg"])
    options = RunOptions(resume_from_checkpoint=tmp_path / "epoch=1-step=5.ckpt")
    assert run(toy_keys, tmp_path / "more", options)[0]["steps"] == 9


@pytest.mark.parametrize(("precision", "kind"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_network_computes_in_the_precision_asked_for(toy_keys, tmp_path, precision, kind):
    trainer = trainer_of(toy_keys, tmp_path, precision=precision)
    batch = next(trainer.batches.epoch(0, skip=0, limit=1, device=trainer.fabric.device))
    maps = trainer.maps(batch)
    assert maps.seg is not None
    assert maps.seg.dtype == kind
    loss, _, _ = trainer.loss(maps, batch)
    assert loss.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_channels_last_is_the_same_run(toy_keys, tmp_path, precision):
    found = [
        run(toy_keys, tmp_path / str(last), channels_last=last, precision=precision)[1]
        for last in (False, True)
    ]
    for a, b in zip(*found, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-2 if precision == "bf16" else 1e-4)


def test_compiling_compiles_what_the_steps_call(toy_keys, tmp_path, monkeypatch):
    calls = []

    def compiled(function):
        return lambda *arguments: calls.append(function.__name__) or function(*arguments)

    monkeypatch.setattr(torch, "compile", compiled)
    run(toy_keys, tmp_path, compile=True, max_epochs=1, limit_test_batches=0)
    assert set(calls) == {"maps"}
    assert len(calls) == 2 + 3 + 2 + 2  # sanity, training, validation, and that of the best weights
