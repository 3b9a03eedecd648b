import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from infection_mt.analysis import plots
from infection_mt.analysis.plots import temporal_generalization, window_overlay
from infection_mt.analysis.run_analysis import analyze_command, analyze_run
from infection_mt.prediction_table import Predictions
from infection_mt.windows import window_predictions

HISTORY = "epoch,train_total_loss,val_total_loss,val_cls_auc,val_reg_mae\n1,2.0,1.5,nan,4\n2,1.0,1.2,0.97,3\n"
PLOTS = (
    "prediction_scatter.png",
    "training_curves.png",
    "validation_metrics.png",
    "temporal_generalization.png",
)


def table(label: int | None = None, outputs: str = "both") -> Predictions:
    rng = np.random.default_rng(0)
    metadata: list[dict[str, Any]] = [
        {
            "path": f"x_s5_{'b2' if s % 2 else 'c4'}_p{s}_t0-9_.tif",
            "position": str(s),
            "frame_index": f,
            "hours_since_start": float(f),
            "label": s % 2,
        }
        for s in range(4)
        for f in range(12)
        if label in (None, s % 2)
    ]
    y = np.array([row["label"] for row in metadata])
    hours = np.array([row["hours_since_start"] for row in metadata])
    logit = None if outputs == "time" else 2.0 * y - 1 + rng.normal(size=y.size)
    time = None if outputs == "class" else hours + rng.normal(size=y.size)
    return Predictions.from_outputs(logit, time, y, hours, metadata=metadata)


def make_run(folder: Path, predictions: Predictions | None = None, results: str | None = None) -> Path:
    folder.mkdir()
    text = json.dumps({"test_metrics": {"cls_auc": 0.9, "reg_mae": 1.5}}) if results is None else results
    (folder / "results.json").write_text(text)
    (folder / "history.csv").write_text(HISTORY)
    if predictions is not None:
        predictions.save(folder)
    return folder


@pytest.fixture
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw at a low resolution: most of the time goes into pixels."""
    draw = plots.save_figure

    def save(path: Path, figure: Figure) -> Path:
        figure.set_dpi(20)
        return draw(path, figure)

    monkeypatch.setattr(plots, "save_figure", save)


@pytest.mark.usefixtures("small_figures")
def test_a_complete_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", table())
    written = analyze_run(run, tmp_path / "out", n_resamples=20)
    names = {str(path.relative_to(tmp_path / "out")) for path in written}
    assert names >= {
        *PLOTS,
        "training_summary.txt",
        "figures/reliability.png",
        "tables/position_error_summary.csv",
    }
    assert all(path.is_file() for path in written)
    assert {path.name for path in run.iterdir()} == {
        "results.json",
        "history.csv",
        "test_predictions.npz",
        "test_metadata.jsonl",
    }


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("training_curves.png", (3600, 1000)),
        ("validation_metrics.png", (2250, 1500)),
        ("prediction_scatter.png", (2700, 750)),
    ],
)
def test_sizes_of_the_original(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    run = make_run(tmp_path / "run", table() if name.startswith("prediction") else None)
    analyze_run(run, n_resamples=0)
    with Image.open(run / name) as image:
        assert image.size == size
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 20


@pytest.mark.usefixtures("small_figures")
@pytest.mark.parametrize(("label", "outputs"), [(1, "both"), (0, "both"), (None, "time"), (None, "class")])
def test_partial_runs(tmp_path: Path, label: int | None, outputs: str) -> None:
    run = make_run(tmp_path / "run", table(label, outputs))
    names = {path.name for path in analyze_run(run, n_resamples=5)}
    assert ("prediction_scatter.png" in names) == (outputs != "class")
    assert ("temporal_generalization.png" in names) == (outputs != "time")
    assert ("roc.png" in names) == (outputs != "time" and label is None)
    assert "training_summary.txt" in names


def test_what_is_missing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", results='{"test_metrics": {"cls_auc": 0.95, "reg_mae": 1.')
    (run / "history.csv").unlink()
    with caplog.at_level(logging.WARNING):
        written = analyze_run(run)
    assert [path.name for path in written] == ["training_summary.txt"]
    assert "results.json: cut" in caplog.text
    assert "training curves are left out" in caplog.text
    assert "figures of predictions are left out" in caplog.text
    assert "Classification: EXCELLENT" in written[0].read_text()


def test_damaged_predictions_do_not_stop_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", table())
    (run / "test_predictions.npz").write_bytes(b"PK")
    with caplog.at_level(logging.WARNING):
        names = [path.name for path in analyze_run(run)]
    assert "unreadable" in caplog.text
    assert names == ["training_curves.png", "validation_metrics.png", "training_summary.txt"]


def test_exit_codes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert analyze_command(tmp_path / "gone") == 2
    assert analyze_command(tmp_path) == 2
    assert "no such run folder" in caplog.text
    assert "no results there" in caplog.text
    (tmp_path / "results.json").write_text("[]")
    assert analyze_command(tmp_path) == 2
    assert analyze_command(make_run(tmp_path / "run"), tmp_path / "out") == 0


def test_figures_touch_no_global_state() -> None:
    from matplotlib import _pylab_helpers

    windows = window_predictions(table())
    temporal_generalization(windows)
    figure = window_overlay({"a": windows, "b": windows})
    assert len(figure.axes) == 2
    assert not _pylab_helpers.Gcf.figs
