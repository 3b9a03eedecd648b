"""Checkpoints of the original, and the files that a run keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medshared.configuration import load_config
from til_mtl import checkpoints, trainer
from til_mtl.checkpoints import link_original_name, plain_config
from til_mtl.config import Config
from til_mtl.errors import CheckpointError
from til_mtl.models.checkpoint import load_network
from til_mtl.trainer import RunOptions, Trainer
from til_mtl.training import train_run


@pytest.fixture
def partly_frozen(toy_network, monkeypatch):
    """Toy networks whose first convolution is frozen, as the encoder is."""

    def make(config: Config, allow_download: bool = False) -> nn.Module:
        network = toy_network(config.task)
        network.body[0].requires_grad_(False)
        return network

    monkeypatch.setattr(trainer, "build_network", make)
    return make


def lightning_file(path, network: nn.Module, *, epoch: int = 4, step: int = 99, all_parameters: bool = True):
    """Write what Lightning 1.5.10 keeps of the original's module: Adam over all parameters, the frozen ones unseen."""
    parameters = list(network.parameters())
    given = parameters if all_parameters else [p for p in parameters if p.requires_grad]
    state = {
        index: {
            "step": step + 1,
            "exp_avg": torch.full_like(p, 0.25 + index),
            "exp_avg_sq": torch.full_like(p, 0.5 + index),
        }
        for index, p in enumerate(given)
        if p.requires_grad
    }
    group = {"lr": 0.0005, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.001, "amsgrad": False}
    group |= {"initial_lr": 0.001, "params": list(range(len(given)))}
    content = {
        "epoch": epoch,
        "global_step": step,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": {f"net.{key}": value for key, value in network.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": state, "param_groups": [group]}],
        "lr_schedulers": [{"T_max": 60, "eta_min": 0, "last_epoch": 5, "_last_lr": [0.0005]}],
    }
    torch.save(content, path)
    return path


def start(config: Config, folder, resume_from) -> Trainer:
    from medshared.runs import RunDirectory
    from til_mtl.run_data import load_run_data

    config = config.resolved()
    run = RunDirectory(folder).create(plain_config(config))
    found = Trainer(config, load_run_data(config), run, RunOptions(resume_from_checkpoint=resume_from))
    found.restore(resume_from)
    return found


@pytest.mark.parametrize("all_parameters", [True, False])
def test_adam_of_the_original_goes_on(partly_frozen, toy_keys, tmp_path, all_parameters):
    config = load_config(Config, toy_keys, label="test")
    torch.manual_seed(3)
    network = partly_frozen(config)
    file = lightning_file(tmp_path / "epoch=4-step=99.ckpt", network, all_parameters=all_parameters)
    found = start(config, tmp_path / "run", file)
    assert (found.progress.epoch, found.progress.global_step) == (5, 100)
    for key, value in network.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], value)
    first = 2 if all_parameters else 0  # weight and bias of the frozen convolution come first
    trained = [p for p in found.network.parameters() if p.requires_grad]
    for index, parameter in enumerate(trained):
        moments = found.optimizer.optimizer.state[parameter]
        assert float(moments["step"]) == 100
        assert torch.equal(moments["exp_avg"], torch.full_like(parameter, 0.25 + first + index))
        assert torch.equal(moments["exp_avg_sq"], torch.full_like(parameter, 0.5 + first + index))
    # Rate and decay are those of the run.
    assert found.optimizer.param_groups[0]["lr"] == config.lr


def test_training_continues_after_the_original(partly_frozen, toy_keys, tmp_path):
    config = load_config(Config, toy_keys | {"max_epochs": 6}, label="test")
    file = lightning_file(tmp_path / "epoch=4-step=99.ckpt", partly_frozen(config))
    results = train_run(config, tmp_path / "run", RunOptions(resume_from_checkpoint=file), report=False)
    assert results["steps"] == 103  # one more epoch of three steps
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "a checkpoint of the original; data order and random numbers start afresh" in log


def test_another_network_is_named(partly_frozen, toy_keys, tmp_path):
    config = load_config(Config, toy_keys, label="test")
    file = lightning_file(tmp_path / "a.ckpt", partly_frozen(config))
    state = torch.load(file, weights_only=True)
    state["optimizer_states"][0]["param_groups"][0]["params"] = [0, 1, 2]
    torch.save(state, file)
    with pytest.raises(
        CheckpointError,
        match="belongs to another network or task than mtl: its optimiser has 3 parameters, the network 8",
    ):
        start(config, tmp_path / "run", file)
    (tmp_path / "run2").mkdir()
    state["state_dict"] = {"net.elsewhere": torch.zeros(1)}
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="belongs to another network or task than mtl"):
        start(config, tmp_path / "run2", file)


def test_the_best_weights_are_one_file_under_two_names(toy_network, toy_keys, tmp_path):
    config = load_config(Config, toy_keys, label="test")
    results = train_run(config, tmp_path / "run", report=False)
    folder = tmp_path / "run" / "checkpoints"
    (twin,) = folder.glob("epoch=*-step=*.ckpt")
    assert twin.samefile(folder / "best.pt")
    assert twin.name.startswith(f"epoch={results['best_epoch']}-")


def test_without_links_there_is_a_copy(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(checkpoints.os, "link", refuse)
    best = tmp_path / "best.pt"
    for epoch in (0, 1):
        best.write_bytes(b"weights %d" % epoch)
        link_original_name(best, epoch, 3 * epoch + 2)
    (twin,) = tmp_path.glob("*.ckpt")  # that of the epoch before is gone
    assert twin.name == "epoch=1-step=5.ckpt"
    assert twin.read_bytes() == b"weights 1"
    assert not twin.samefile(best)


def test_the_real_network_of_an_original_file_is_found_again(golden_json, tmp_path):
    """By names alone, without building it twice: the optimiser counts as the original's does."""
    order = golden_json("parameters_stl_det")["order"]
    with torch.device("meta"):
        from til_mtl.models.build import assemble_network

        network = assemble_network(Config(task="det"))
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in order]
    assert [p.requires_grad for p in network.parameters()] == [trained for _, trained in order]


def test_damaged_files_are_named(tmp_path):
    file = tmp_path / "epoch=1-step=2.ckpt"
    file.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"epoch=1-step=2\.ckpt"):
        load_network(file)
