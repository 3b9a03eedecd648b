"""Finished runs as they lie on disk."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from advmil.errors import DataError
from advmil.inference import predict_generator
from advmil.run_data import load_run_data
from advmil.run_files import find_runs, load_model, open_run
from advmil.training import _evaluation_noise


def test_a_run_knows_its_configuration_and_sets(tiny_run):
    run = open_run(tiny_run)
    assert run.handler == "adv"
    assert run.config.bcb_mode == "abmil"
    assert run.name == "train"
    assert len(run.predictions("test")) == 9
    assert run.training_predictions().patients == run.predictions("train").patients


def test_the_loaded_model_predicts_what_the_run_wrote(tiny_run):
    model = load_model(tiny_run)
    data = load_run_data(model.run.config.resolved())
    written = model.run.predictions("test")
    again = predict_generator(
        model.network,
        model.discriminator,
        data,
        written.patients,
        model.run.config.resolved(),
        samples=written.samples.shape[1],
        noise=_evaluation_noise(model.run.config, "test"),
        device=torch.device("cpu"),
    )
    assert np.array_equal(again.samples, written.samples)
    assert np.array_equal(again.fake_scores, written.fake_scores)
    assert not model.network.training
    assert model.unit_days == pytest.approx(data.labels.unit_days)
    assert model.edges is None


def test_last_weights_where_asked_or_where_no_best_are(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    for letter in "GD":
        (tmp_path / "run" / f"train_model{letter}-best.pth").unlink()
    fallback, last = load_model(tmp_path / "run"), load_model(tiny_run, which="last")
    a, b = (model.network.state_dict() for model in (fallback, last))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_runs_are_found_once(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "b")
    shutil.copytree(tiny_run, tmp_path / "a")
    (tmp_path / "other").mkdir()
    assert find_runs([tmp_path]) == [tmp_path / "a", tmp_path / "b"]
    assert find_runs([tmp_path / "b", tmp_path]) == [tmp_path / "b", tmp_path / "a"]


def test_what_is_no_finished_run(tiny_run, tmp_path):
    with pytest.raises(DataError, match=r"no finished run here \(expected config\.yaml and results\.json\)$"):
        open_run(tmp_path)
    shutil.copy(tiny_run / "config.yaml", tmp_path)
    with pytest.raises(DataError, match="continue it with --resume"):
        open_run(tmp_path)
    with pytest.raises(DataError, match="no predictions of a set 'x'; it has test, train, validation"):
        open_run(tiny_run).predictions("x")


def test_weights_in_the_newer_spelling_of_the_graph_layer_are_read(tiny_settings, tmp_path):
    import torch

    from advmil.config import Config
    from advmil.run_files import load_model
    from advmil.training import train_run

    keys = tiny_settings(bcb_mode="graph", epochs=1, es_warmup=0)
    train_run(Config.model_validate(keys), "adv", tmp_path / "run", report=False)
    path = tmp_path / "run" / "train_modelG-best.pth"
    state = torch.load(path, weights_only=True)
    renamed = {k.replace("conv.t", "conv.aggr_module.t"): v for k, v in state["model"].items()}
    assert renamed.keys() != state["model"].keys()
    torch.save(state | {"model": renamed}, path)
    found = load_model(tmp_path / "run").network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in state["model"].items())


def test_a_run_can_be_checked_and_repeated_from_its_own_configuration(tiny_run, tmp_path):
    from advmil.cli import main

    config = str(tiny_run / "config.yaml")
    assert main(["check", "--config", config, "--debug"]) == 0
    assert main(["train", "--config", config, "--output", str(tmp_path / "again"), "--debug"]) == 0
    first, again = (open_run(folder).results["sets"]["test"] for folder in (tiny_run, tmp_path / "again"))
    assert again["c_index"] == first["c_index"]
    assert again["loss_recon_org"] == first["loss_recon_org"]
