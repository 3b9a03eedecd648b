"""What a run shows a person."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from advmil.predictions import from_arrays
from advmil.reporting import write_run_report
from medshared.files import read_json, write_json, write_npz


@pytest.fixture
def run(tiny_run, tmp_path):
    """Return a copy of the tiny run, to be changed."""
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    return tmp_path / "run"


def test_the_page_stands_alone(tiny_run):
    page = (tiny_run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']""", page)
    assert "<script" not in page
    results = read_json(tiny_run / "results.json")
    assert f"{results['sets']['test']['c_index']:.4f}" in page
    assert f"Epoch {results['best_epoch']} of 3 was chosen" in page
    for path in (tiny_run / "figures").glob("*.png"):
        assert path.stat().st_size > 3000
    names = {path.stem for path in (tiny_run / "figures").glob("*.png")}
    assert names == {"history", "scatter", "risk_groups", "curves", "brier", "calibration"}


def test_a_test_set_without_events(run):
    with np.load(run / "predictions_test.npz", allow_pickle=False) as file:
        arrays = dict(file)
    arrays["e"] = np.zeros_like(arrays["e"])
    write_npz(run / "predictions_test.npz", **from_arrays(arrays).arrays())
    page = write_run_report(run).read_text()
    assert "C-index" in page
    assert "nan" not in re.sub(r"<[^>]*>", "", page).lower().split()
    assert (run / "figures" / "risk_groups.png").stat().st_size > 3000


def test_a_run_without_a_test_set_shows_the_validation_set(run):
    (run / "predictions_test.npz").unlink()
    results = read_json(run / "results.json")
    del results["sets"]["test"], results["last_epoch"]["test"]
    write_json(run / "results.json", results)
    page = write_run_report(run).read_text()
    assert "validation patients" in page
    assert "of the test patients" not in page


def test_a_picture_that_fails_does_not_fail_the_page(run, monkeypatch, caplog):
    monkeypatch.setattr("advmil.figures.draw_brier", lambda *arguments: 1 / 0)
    assert write_run_report(run).is_file()
    assert "figure brier could not be drawn" in caplog.text


def test_text_of_a_configuration_is_never_markup(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("dataset: ''", "dataset: <img src=x onerror=alert(1)>"))
    page = write_run_report(run).read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_folder_of_runs_gets_its_evaluation(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "a")
    assert write_run_report(tmp_path) == tmp_path / "evaluation" / "evaluation.html"
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["runs"].keys() == {"a"}
