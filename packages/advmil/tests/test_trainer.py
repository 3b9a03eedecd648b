"""The training loop: order of construction, groups, schedule, choice of the epoch, switches, tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from advmil import training
from advmil.config import Config
from advmil.config_rules import with_task_format
from advmil.models.build import build_discriminator, build_generator
from advmil.run_data import load_run_data
from advmil.test_mode import run_test_mode
from advmil.trainer import Trainer
from advmil.training import train_run
from medshared.gpu import seed_everything
from medshared.runs import RunDirectory, StopSignal

SEMI = {"semi_training": True, "ssl_num_labeled": 0.5, "ssl_epochs": 5}


class Recorder:
    """A tracker that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def log(self, row, step: int) -> None:
        self.rows.append((step, dict(row)))

    def close(self) -> None:
        pass

    @property
    def keys(self) -> set[str]:
        return {key for _, row in self.rows for key in row}


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(training, "open_logger", lambda *arguments, **keys: found)
    return found


@pytest.fixture
def make(tiny_settings, tmp_path) -> Callable[..., Trainer]:
    """Build a trainer on the tiny cohort."""

    def build(handler: str = "adv", **changes: Any) -> Trainer:
        config = Config.model_validate(tiny_settings(**({"bcb_mode": "abmil"} | changes))).resolved()
        run = RunDirectory(tmp_path / "run").create({})
        return Trainer(config, handler, load_run_data(config), run)

    return build


# ------------------------------------------------------------------ what the tracker sees


@pytest.mark.parametrize(
    ("golden", "handler", "keys"),
    [
        ("adv", "adv", {"faithful": True, "epochs": 2}),
        ("semi_both", "adv", SEMI | {"faithful": True}),
        ("semi_ld", "adv", SEMI | {"semi_training_mode": "LD", "faithful": True}),
        ("semi_ud", "adv", SEMI | {"semi_training_mode": "UD", "faithful": True}),
        ("nll", "base", {"task": "surv_nll", "pdh_dims": "8-4", "faithful": True, "epochs": 2}),
        ("cox", "base", {"task": "surv_cox", "faithful": True, "epochs": 2}),
    ],
)
def test_the_tracker_gets_the_original_keys(
    golden, handler, keys, recorder, tiny_settings, tmp_path, golden_json
):
    config = Config.model_validate(tiny_settings(bcb_mode="abmil", es_warmup=0, **keys))
    train_run(with_task_format(config, handler), handler, tmp_path / "run", report=False)
    expected = set(golden_json("outputs")[golden]["wandb_keys"])
    if golden == "semi_ud":
        expected.discard("train_batch/netD/D_real")  # there is no visible event to pair, hence no such score
    assert expected - recorder.keys == set()
    steps = [step for step, _ in recorder.rows]
    assert steps == sorted(steps)  # trackers drop what comes late


def test_only_the_original_behaviour_logs_the_test_set_in_every_epoch(recorder, tiny_settings, tmp_path):
    config = Config.model_validate(tiny_settings(bcb_mode="abmil", epochs=1, es_warmup=0))
    train_run(config, "adv", tmp_path / "run", report=False)
    assert not {key for key in recorder.keys if key.startswith("test/")}
    assert "bestckpt/train/test/c_index" in recorder.keys


def test_test_mode_logs_its_metrics(recorder, tiny_run, tiny_settings, tmp_path, golden_json):
    keys = {"bcb_mode": "abmil", "test": True, "test_load_path": str(tiny_run), "test_save_path": "x"}
    run_test_mode(Config.model_validate(tiny_settings(**keys)), tmp_path / "test")
    assert set(golden_json("outputs")["adv_test"]["wandb_keys"]) <= recorder.keys


# ------------------------------------------------------------------ construction and groups


def test_networks_are_built_in_the_original_order(make):
    trainer = make(seed=5)
    seed_everything(5)
    expected = build_generator(trainer.config).state_dict(), build_discriminator(trainer.config).state_dict()
    for network, state in zip((trainer.network, trainer.discriminator), expected, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_training_metrics_are_those_of_predictions_without_dropout(make):
    """In the step of D, G predicts in evaluation mode; these predictions are what an epoch reports."""
    trainer = make(gen_noi_noise="0-0", times_test_sample=1, opt_netG_lr=1e-30, opt_netD_lr=1e-30)
    row = trainer.train_epoch(0, StopSignal(), Recorder())
    for key in ("loss_recon_org", "c_index", "loss_recon"):
        assert row[f"train/{key}"] == pytest.approx(trainer.validate("train")[key], rel=1e-5)


def test_a_dropped_group_is_missing_from_the_training_metrics(make, monkeypatch):
    trainer = make(bp_every_batch=5, drop_last_group=True)
    seen = []
    assemble = trainer._training_predictions
    monkeypatch.setattr(trainer, "_training_predictions", lambda: seen.append(assemble()) or seen[-1])
    trainer.train_epoch(0, StopSignal(), Recorder())
    assert len(seen[0]) == 15
    assert len(trainer.data.sets["train"]) == 16


@pytest.mark.parametrize("updates", [1, 3])
def test_g_is_updated_so_many_times_for_each_d(updates, make, monkeypatch):
    trainer = make(gen_updates=updates)
    steps = {"g": 0, "d": 0}
    for name, optimizer in (("g", trainer.optimizer), ("d", trainer.optimizer_d)):
        step = optimizer.step

        def counted(*arguments, name=name, step=step, **keys):
            steps[name] += 1
            return step(*arguments, **keys)

        monkeypatch.setattr(optimizer, "step", counted)
    trainer.train_epoch(0, StopSignal(), Recorder())
    assert steps == {"g": 4 * updates, "d": 4}


def test_semi_supervised_epochs_take_all_labelled_and_one_fold(make):
    trainer = make(**SEMI, ssl_kfold=3)
    labelled = set(trainer.data.sets["labeled_train"])
    folds = [{p for group in trainer.groups(epoch) for p in group} for epoch in range(4)]
    assert all(labelled <= fold for fold in folds)
    assert folds[0] == folds[3]
    hidden = [fold - labelled for fold in folds[:3]]
    assert set().union(*hidden) == set(trainer.data.sets["unlabeled_train"])
    assert sum(map(len, hidden)) == len(trainer.data.sets["unlabeled_train"])
    assert trainer.data.labelled == labelled


@pytest.mark.parametrize(("mode", "warmup"), [("UD+LD", 3), ("LD", 0), ("UD", 0)])
def test_semi_supervised_warm_up(mode, warmup, make):
    trainer = make(
        **SEMI, ssl_kfold=3, semi_training_mode=mode, es_warmup=9, ssl_es_warmup=9, ssl_es_patience=7
    )
    assert trainer.stopping.warmup == warmup
    assert trainer.stopping.patience == 7
    assert trainer.epochs == 5


# ------------------------------------------------------------------ schedule and choice


def fit(trainer: Trainer, values: list[float], monkeypatch) -> list[float]:
    """Run the loop on given validation values; return G's learning rate in each epoch."""
    values_of_epochs = iter(values)
    monkeypatch.setattr(trainer, "train_epoch", lambda *arguments: {})
    monkeypatch.setattr(trainer, "validate", lambda name: {trainer.monitored: next(values_of_epochs)})
    monkeypatch.setattr(trainer, "save_last", lambda: None)
    monkeypatch.setattr(trainer, "save_original", lambda which: None)
    trainer.fit(StopSignal(), Recorder())
    return [row["lr"] for row in trainer.run.metrics_rows]


def test_the_first_epoch_after_the_warm_up_is_chosen_and_patience_ends_the_run(make, monkeypatch):
    trainer = make(es_warmup=2, es_patience=3, epochs=50)
    fit(trainer, [0.1, 0.1, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5], monkeypatch)
    assert trainer.progress.best_epoch == 5
    assert trainer.progress.epoch == 8


def test_the_learning_rate_of_g_falls_on_a_plateau_counted_from_the_first_epoch(make, monkeypatch):
    trainer = make(es_warmup=5, es_patience=30, epochs=13)
    rates = fit(trainer, [1.0] * 13, monkeypatch)
    assert rates[:12] == [trainer.config.opt_netG_lr] * 12
    assert rates[12] == trainer.config.opt_netG_lr / 2
    assert trainer.optimizer_d.param_groups[0]["lr"] == trainer.config.opt_netD_lr


def test_without_early_stopping_there_is_no_schedule(make, monkeypatch):
    trainer = make(es_patience=None, epochs=14)
    assert set(fit(trainer, [1.0] * 14, monkeypatch)) == {trainer.config.opt_netG_lr}
    assert trainer.progress.best_epoch == 0


def test_the_concordance_is_maximised(make, monkeypatch):
    trainer = make(es_warmup=0, epochs=3, monitor_metrics="ci")
    fit(trainer, [0.5, 0.9, 0.7], monkeypatch)
    assert trainer.progress.best_epoch == 2


# ------------------------------------------------------------------ switches


def draws_of(trainer: Trainer, monkeypatch) -> int:
    """Return how many numbers of noise a validation takes from the training stream."""
    taken = []
    source = trainer.noise
    monkeypatch.setattr(
        Trainer, "noise", property(lambda self: lambda size: taken.append(size) or source(size))
    )
    trainer.validate("validation")
    return sum(int(np.prod(size)) for size in taken)


@pytest.mark.parametrize(("kind", "draws"), [("sample", 1), ("zero", 0), ("mean", 1 + 8)])
def test_noise_of_the_validation(kind, draws, make, monkeypatch):
    trainer = make(val_noise=kind)
    patients = len(trainer.data.sets["validation"])
    width = 4  # of the last layer's input
    assert draws_of(trainer, monkeypatch) == draws * patients * width


@pytest.mark.parametrize("lower", [True, False])
def test_the_median_of_an_even_number_of_samples(lower, make):
    trainer = make(median_lower=lower)
    predicted = trainer.predict(trainer.data.sets["test"], samples=4)
    ordered = np.sort(predicted.samples, axis=1)
    expected = ordered[:, 1] if lower else ordered[:, 1:3].mean(axis=1)
    assert predicted.point == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("faithful", [True, False])
def test_the_unused_norm_of_the_graph_backbone(faithful, make):
    trainer = make(bcb_mode="graph", faithful=faithful, loss_regl1_coef=0.01)
    before = trainer.network.state_dict()["backbone.layers.0.norm.weight"].clone()
    trainer.train_epoch(0, StopSignal(), Recorder())
    same = torch.equal(trainer.network.state_dict()["backbone.layers.0.norm.weight"], before)
    assert same is not faithful


@pytest.mark.parametrize("faithful", [True, False])
def test_without_adversarial_weight_d_learns_only_in_the_original(faithful, make):
    trainer = make(loss_gan_coef=0.0, faithful=faithful)
    before = [p.detach().clone() for p in trainer.discriminator.parameters()]
    row = trainer.train_epoch(0, StopSignal(), Recorder())
    changed = any(
        not torch.equal(a, b) for a, b in zip(before, trainer.discriminator.parameters(), strict=True)
    )
    assert changed is faithful
    assert ("train_batch/netD/Loss_D" in row) is faithful


@pytest.mark.parametrize("faithful", [True, False])
def test_the_loss_of_d(faithful, make):
    sink = Recorder()
    make(faithful=faithful, loss_gan_coef=0.004).train_epoch(0, StopSignal(), sink)
    first = next(row for _, row in sink.rows if "train_batch/netD/D_real" in row)
    fake, real = (np.array(first[f"train_batch/netD/{name}"]) for name in ("D_fake", "D_real"))
    # Near zero logits the original's fake term is -1 + log sigma(fake) instead of softplus(fake).
    expected = np.log1p(np.exp(-real)) + (
        np.log1p(np.exp(fake)) if not faithful else -1 - np.log1p(np.exp(-fake))
    )
    assert first["train_batch/netD/Loss_D"] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("faithful", "kept"), [(True, 1), (False, 2)])
def test_hidden_regions_are_counted(faithful, kept, tiny_run, tiny_settings, tmp_path):
    """Of 10 regions at ratio 0.8, 2 stay; floating-point error left the original 1."""
    keys = {
        "bcb_mode": "abmil",
        "test": True,
        "test_load_path": str(tiny_run),
        "test_save_path": "x",
        "test_mask_ratio": 0.8,
        "faithful": faithful,
    }
    config = Config.model_validate(tiny_settings(**keys)).resolved()
    data = load_run_data(config)
    (patients,) = data.sets.values()
    regions = {p: data.source.load(p).x.shape[1] // 16 for p in patients}
    found = run_test_mode(config, tmp_path / "test")["regions_kept"]
    assert {found[p] for p in patients if regions[p] == 10} == {kept}


def test_a_histogram_of_every_epoch_where_asked(tiny_settings, tmp_path):
    config = Config.model_validate(tiny_settings(bcb_mode="abmil", epochs=2, es_warmup=0, log_plot=True))
    train_run(config, "adv", tmp_path / "run", report=False)
    pictures = sorted((tmp_path / "run" / "figures" / "histograms").iterdir())
    assert [path.name for path in pictures] == ["validation-epoch0001.png", "validation-epoch0002.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_an_absent_gpu_number_is_no_error(make, monkeypatch):
    from advmil.trainer import choose_device

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(Config(cuda_id=7), None) == torch.device("cuda")
    assert choose_device(Config(cuda_id=0), None) == torch.device("cuda:0")
    assert choose_device(Config(cuda_id=0), "cpu") == torch.device("cpu")


def test_epochs_without_gain_are_told_where_asked(make, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        fit(make(es_warmup=0, epochs=2, es_verbose=True), [1.0, 1.0], monkeypatch)
    assert "no improvement for 1 of 30 epochs" in caplog.text
