"""A finished run scored again gives its own numbers, on other sides and other data too."""

import numpy as np
import pandas as pd
import pytest

from infection_mt import cli
from infection_mt.evaluation import Predictions
from infection_mt.rescoring import rescore
from infection_mt.synthetic import SyntheticParams, generate
from medshared.files import read_json


def test_the_test_set_again(tiny_run, tmp_path):
    results = rescore(tiny_run, tmp_path, device="cpu")
    before = read_json(tiny_run / "results.json")
    for name, value in before["test_metrics"].items():
        assert results["test_metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert read_json(tmp_path / "results.json")["frames"] == before["frames"]["test"]
    old, new = Predictions.load(tiny_run), Predictions.load(tmp_path)
    assert old.keys == new.keys
    np.testing.assert_allclose(old.probability, new.probability, atol=1e-6)


def test_another_side(tiny_run, tmp_path):
    results = rescore(tiny_run, tmp_path, split="val", device="cpu")
    assert results["frames"] == read_json(tiny_run / "results.json")["frames"]["val"]
    assert not set(Predictions.load(tmp_path).keys) & set(Predictions.load(tiny_run).keys)


def test_other_data_by_manifest_and_by_folders(tiny_run, tmp_path):
    params = SyntheticParams(
        stacks_per_class=2, n_pages=6, size=32, frames_per_hour=0.125, n_cells=12, seed=5
    )
    data = generate(tmp_path / "data", params)
    # A manifest with the columns of the folders, so that both name the same frames.
    table = pd.read_csv(data.manifest)[["file", "condition"]]
    table.to_csv(data.folder / "short.csv", index=False)
    by_manifest = rescore(tiny_run, tmp_path / "a", manifest=data.folder / "short.csv", device="cpu")
    by_folders = rescore(
        tiny_run, tmp_path / "b", folders=(data.infected_dir, data.uninfected_dir), device="cpu"
    )
    assert by_manifest["test_metrics"] == by_folders["test_metrics"]
    assert by_manifest["frames"] == 2 * 5 + 2 * 6
    assert any("CONFOUNDED" in warning for warning in by_manifest["warnings"])


def test_the_command(tiny_run, tmp_path, capsys):
    assert cli.main(["evaluate", str(tiny_run), "--output", str(tmp_path / "x"), "--device", "cpu"]) == 0
    assert (tmp_path / "x" / "results.json").exists()
    assert cli.main(["evaluate", str(tmp_path / "none"), "--device", "cpu"]) == 1
    assert "no finished run" in capsys.readouterr().err
