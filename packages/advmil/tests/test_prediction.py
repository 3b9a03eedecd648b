"""``advmil predict``: the files it writes, whatever goes wrong with single inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from advmil import cli
from advmil.run_files import load_model
from medshared.bags import BagAttributes, write_clam_bag


@pytest.fixture
def features(tiny_cohort, tmp_path) -> Path:
    """Folder with the feature files of four slides of three patients."""
    folder = tmp_path / "features"
    folder.mkdir()
    truth = tiny_cohort.truth
    patients = [
        *truth["patient_id"][truth["n_slides"] == 2][:1],
        *truth["patient_id"][truth["n_slides"] == 1][:2],
    ]
    for patient in patients:
        for path in tiny_cohort.features.glob(f"{patient}-S*.pt"):
            shutil.copy(path, folder)
    return folder


def _table(features: Path) -> Path:
    path = features.parent / "table.csv"
    rows = [f"{p.stem},{p.stem.split('-')[0]},other" for p in sorted(features.iterdir())]
    path.write_text("\n".join(["pathology_id,patient_id,site", *rows, "absent-S1,absent,x"]) + "\n")
    return path


def _predict(output: Path, *arguments: object, run: Path | list[Path]) -> int:
    runs = run if isinstance(run, list) else [run]
    text = [str(a) for a in arguments]
    return cli.main(["predict", *text, "--run", *map(str, runs), "--device", "cpu", "--output", str(output)])


def _report(output: Path) -> dict:
    return json.loads((output / "prediction-report.json").read_text())


def _failures(output: Path) -> dict[str, str]:
    items = _report(output)["items"]
    return {item["name"]: item["message"] for item in items if item["status"] == "failed"}


def test_everything_is_written(tiny_run, tiny_cohort, features, tmp_path):
    output = tmp_path / "out"
    arguments = ["--table", _table(features), "--coordinates", tiny_cohort.coordinates, "--samples", 40]
    assert _predict(output, features, *arguments, "--region-scores", run=tiny_run) == 0
    table = pd.read_csv(output / "predictions.csv")
    assert len(table) == 3
    assert sorted(table["slides"].str.count(";")) == [0, 0, 1]
    assert (table["predicted_days_low"] <= table["predicted_days"]).all()
    assert (table["predicted_days"] <= table["predicted_days_high"]).all()
    assert (table["sample_sd_days"] > 0).all()
    curves = pd.read_csv(output / "curves.csv")
    assert list(curves.columns) == ["patient_id", "days", "survival", "low", "high"]
    assert (curves.groupby("patient_id")["survival"].first() == 1).all()
    with np.load(output / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["samples_days"].shape == (3, 40)
        np.testing.assert_allclose(
            np.median(arrays["samples_days"], axis=1), table["predicted_days"], rtol=1e-6
        )
        assert arrays["patients"].tolist() == table["patient_id"].tolist()
    for patient, n in zip(table["patient_id"], table["n_patches"], strict=True):
        attention = pd.read_csv(output / "attention" / f"{patient}.csv")
        assert len(attention) == n
        assert attention["weight"].sum() == pytest.approx(1)
        assert attention[["x", "y", "region_score"]].notna().all(axis=None)
    assert (output / "figures" / "curves.png").stat().st_size > 10_000
    report = _report(output)
    assert (report["predicted"], report["failed"], report["settings"]["samples"]) == (3, 0, 40)


def test_numbers_do_not_depend_on_order_or_company(tiny_run, features, tmp_path):
    files = sorted(features.iterdir())
    assert _predict(tmp_path / "a", *files, "--seed", 7, run=tiny_run) == 0
    assert _predict(tmp_path / "b", *reversed(files), "--seed", 7, run=tiny_run) == 0
    assert _predict(tmp_path / "c", files[1], "--seed", 7, "--no-attention", run=tiny_run) == 0
    assert _predict(tmp_path / "d", files[1], "--seed", 8, "--no-attention", run=tiny_run) == 0
    for name in ("predictions.csv", "curves.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    a, c, d = (pd.read_csv(tmp_path / name / "predictions.csv").set_index("patient_id") for name in "acd")
    pd.testing.assert_frame_equal(a.loc[[files[1].stem]], c)
    assert d["predicted_days"].iloc[0] != c["predicted_days"].iloc[0]
    assert not (tmp_path / "c" / "attention").exists()


def test_several_runs_pool_their_draws(tiny_run, untrained_run, features, tmp_path):
    runs = [tiny_run, untrained_run(tmp_path / "second", seed=5)]
    assert _predict(tmp_path / "out", features, "--samples", 30, run=runs) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert {"predicted_days_runs_mean", "predicted_days_runs_sd"} <= set(table)
    with np.load(tmp_path / "out" / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["samples_days"].shape == (4, 60)
        assert arrays["run_of_draw"].tolist() == [0] * 30 + [1] * 30
    # The first run draws as it would alone.
    assert _predict(tmp_path / "alone", features, "--samples", 30, run=tiny_run) == 0
    with np.load(tmp_path / "alone" / "samples.npz") as one, np.load(tmp_path / "out" / "samples.npz") as two:
        np.testing.assert_array_equal(one["samples_days"], two["samples_days"][:, :30])


def test_zero_noise_is_the_networks_deterministic_answer(tiny_run, features, tmp_path):
    assert _predict(tmp_path / "out", features, "--zero-noise", run=tiny_run) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("patient_id")
    model = load_model(tiny_run)
    for path in features.iterdir():
        with torch.no_grad():
            expected = float(model.network(torch.load(path, weights_only=True)[None])) * model.unit_days
        assert table.loc[path.stem, "predicted_days"] == pytest.approx(expected, rel=1e-5)
    assert table["predicted_days_low"].isna().all()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("graph", {"bcb_mode": "graph"}),
        ("cluster", {"bcb_mode": "cluster"}),
        ("patch", {"bcb_mode": "patch"}),
        ("cox", {"task": "surv_cox"}),
        ("nll", {"task": "surv_nll", "pdh_dims": "8-4", "time_format": "quantile"}),
    ],
)
def test_every_backbone_and_kind(untrained_run, tiny_cohort, features, tmp_path, name, keys):
    run = untrained_run(tmp_path / name, "base" if "task" in keys else "adv", **keys)
    arguments = ["--coordinates", tiny_cohort.coordinates, "--samples", 20]
    assert _predict(tmp_path / "out", features, *arguments, run=run) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 4
    assert np.isfinite(table["risk"]).all()
    assert len(pd.read_csv(tmp_path / "out" / "curves.csv")) == 4 * 101


# --- bad input: each is recorded with its message, and the good ones are predicted


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _bad(name: str, folder: Path) -> None:
    """Put one bad file into a folder of features."""
    good = np.ones((16, 16), dtype=np.float32)
    xy = np.stack([np.arange(16) % 4, np.arange(16) // 4], axis=1) * 256
    path = folder / "bad.pt"
    if name.startswith("h5"):
        made, _ = write_clam_bag(folder / "made", "bad", good, xy)
        path = Path(shutil.copy(made, folder / "bad.h5"))
        shutil.rmtree(folder / "made")
    else:
        torch.save(torch.from_numpy(good), path)
    if "truncated" in name:
        _truncate(path)
    if name == "h5 coordinates only":
        with h5py.File(path, "a") as file:
            del file["features"]
    content: object = {
        "NaN": torch.full((16, 16), float("nan")),
        "width": torch.ones(16, 7),
        "empty": torch.ones(0, 16),
        "pickled": Path("x"),
    }.get(name)
    if content is not None:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("truncated pt", "bad.pt"),
        ("h5 truncated", "not a whole HDF5 file"),
        ("h5 coordinates only", "holds coordinates without features"),
        ("NaN", "rows hold NaN or infinite features"),
        ("width", "has 7 features a patch but the model was trained on 16"),
        ("empty", "the bag is empty"),
        ("pickled", "bad.pt"),
    ],
)
def test_a_bad_bag_is_recorded_and_the_others_are_predicted(tiny_run, features, tmp_path, name, message):
    _bad(name, features)
    output = tmp_path / "out"
    assert _predict(output, features, "--samples", 5, run=tiny_run) == 1
    assert message in _failures(output)["bad"]
    assert len(pd.read_csv(output / "predictions.csv")) == 4
    assert not (output / "attention" / "bad.csv").exists()
    assert not list(output.rglob("*.tmp"))


def test_a_patient_with_a_bad_slide_fails_as_a_whole(tiny_run, features, tmp_path):
    table = _table(features)
    first = next(p for p in sorted(features.iterdir()) if p.stem.endswith("-S2"))
    _truncate(first)
    assert _predict(tmp_path / "out", features, "--table", table, "--samples", 5, run=tiny_run) == 1
    patient = first.stem.split("-")[0]
    assert first.name in _failures(tmp_path / "out")[patient]
    predicted = pd.read_csv(tmp_path / "out" / "predictions.csv")["patient_id"]
    assert len(predicted) == 2
    assert patient not in set(predicted)


def test_slides_beside_the_table(tiny_run, features, tmp_path, caplog):
    table = _table(features)
    two = next(p for p in sorted(features.iterdir()) if p.stem.endswith("-S2"))
    shutil.copy(two, features / "stranger.pt")
    two.unlink()
    assert _predict(tmp_path / "out", features, "--table", table, "--samples", 5, run=tiny_run) == 1
    assert "slide stranger is not in" in _failures(tmp_path / "out")["stranger"]
    assert f"predicted without the slides not given ({two.stem})" in caplog.text
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 3
    left = [item["name"] for item in _report(tmp_path / "out")["items"] if item["status"] == "left out"]
    assert left == [two.stem]


def test_a_slide_given_twice(tiny_run, features, tmp_path):
    files = sorted(features.iterdir())
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(files[1], other / files[0].name)
    assert _predict(tmp_path / "out", features, other, features, "--samples", 5, run=tiny_run) == 1
    failures = _failures(tmp_path / "out")
    assert "is given twice" in failures[files[0].stem]
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 3


def test_h5_is_preferred_for_its_coordinates(tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    xy = np.stack([np.arange(32) % 4, np.arange(32) // 4], axis=1) * 256
    info = BagAttributes("clam", "net", 0.5, 256.0, None, "S")
    write_clam_bag(tmp_path / "f", "S", rng.standard_normal((32, 16)).astype(np.float32), xy, info)
    assert _predict(tmp_path / "out", tmp_path / "f", "--samples", 5, run=tiny_run) == 0
    attention = pd.read_csv(tmp_path / "out" / "attention" / "S.csv")
    assert attention[["x", "y"]].to_numpy().tolist() == xy.tolist()


# --- bad requests: one message, nothing written


def _mixed(folder: Path) -> None:
    for name, encoder in (("A", "resnet50_trunc"), ("B", "uni")):
        xy = np.stack([np.arange(16) % 4, np.arange(16) // 4], axis=1) * 256
        info = BagAttributes("clam", encoder, 0.5, 256.0, None, name)
        write_clam_bag(folder, name, np.ones((16, 16), dtype=np.float32), xy, info)


def test_requests_that_cannot_be_met(tiny_run, untrained_run, features, tmp_path, capsys):
    output = tmp_path / "out"

    def refused(*arguments: object, run: Path = tiny_run) -> str:
        assert _predict(output, *arguments, run=run) == 1
        assert not (output / "predictions.csv").exists()
        return capsys.readouterr().err

    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(tiny_run / "config.yaml", unfinished)
    assert "the run is not finished, continue it with --resume" in refused(features, run=unfinished)
    _mixed(tmp_path / "mixed")
    assert "features of different encoders or spacings must not be mixed" in refused(tmp_path / "mixed")
    (tmp_path / "t.csv").write_text("pathology_id,patient_id\nother,P\n")
    assert "names none of the 4 slides given" in refused(features, "--table", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("slide,patient\nother,P\n")
    assert "required columns ['pathology_id', 'patient_id']" in refused(
        features, "--table", tmp_path / "t.csv"
    )
    assert "no such table of slides" in refused(features, "--table", tmp_path / "none.csv")
    assert "--level: expected a probability" in refused(features, "--level", 90)
    assert "--samples: expected at least 1" in refused(features, "--samples", 0)
    assert not output.exists()


def test_inputs_that_are_nothing(tiny_run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    inputs = [tmp_path / "empty", tmp_path / "notes.txt", tmp_path / "gone"]
    assert _predict(tmp_path / "out", *inputs, run=tiny_run) == 1
    failures = _failures(tmp_path / "out")
    assert "no features" in failures[str(inputs[0])]
    assert "neither features" in failures[str(inputs[1])]
    assert "no such file or folder" in failures[str(inputs[2])]
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_patients_that_cannot_name_a_file(tiny_run, features, tmp_path):
    slide = sorted(features.iterdir())[0].stem
    (tmp_path / "t.csv").write_text(f"pathology_id,patient_id\n{slide},a/b\n")
    assert (
        _predict(tmp_path / "out", features / f"{slide}.pt", "--table", tmp_path / "t.csv", run=tiny_run) == 1
    )
    assert "cannot name a file" in _failures(tmp_path / "out")["a/b"]
