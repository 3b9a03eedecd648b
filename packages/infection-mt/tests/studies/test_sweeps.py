"""Sweeps over intervals and windows: what is trained on what, checkpoints, JSON, evaluation of a finished sweep."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from infection_mt.config import Config, FramesConfig
from infection_mt.data.policy import resolve_policy
from infection_mt.studies.sweep_files import interval_stats, window_results
from infection_mt.studies.sweep_training import load_for, on_interval
from infection_mt.studies.sweep_windows import Interval
from medshared.checkpoints import load_checkpoint, save_checkpoint

SCHEMAS = json.loads((Path(__file__).parents[1] / "golden" / "schemas.json").read_text())


@pytest.fixture(scope="module")
def sweep(studio, tmp_path_factory):
    from infection_mt.studies.command_lines import run

    output = tmp_path_factory.mktemp("sweep") / "sweep"
    command = [
        "--config",
        str(studio.baseline),
        "--upper-hours",
        "24",
        "48",
        "--start-hour",
        "8",
        "--device",
        "cpu",
    ]
    metrics = ["--metrics", "auc", "f1", "accuracy", "--save-data", "--output-dir", str(output), "--debug"]
    assert run("analyze_interval_sweep_train.py", [*command, *metrics]) == 0
    return output


def same_keys(found, schema) -> None:
    if isinstance(schema, dict):
        assert set(found) == set(schema)
        for key in schema:
            same_keys(found[key], schema[key])


def test_interval_sweep_files(sweep):
    data = json.loads((sweep / "interval_sweep_data.json").read_text())
    same_keys(data, SCHEMAS["interval_sweep"]["interval_sweep_data.json"])
    assert data["hours"] == [24.0, 48.0]
    assert np.shape(data["stats"]["f1"]["test-only"]["fold_metrics"]) == (2, 1)  # [hours][folds]
    # The longest interval's model is one model, under both modes.
    for metric in data["metrics"]:
        a, b = (data["stats"][metric][mode]["fold_metrics"][-1] for mode in ("train-test", "test-only"))
        assert a == b
    for name in ("interval_sweep_combined.png", "interval_sweep_f1.png", "interval_sweep_train.log"):
        assert (sweep / name).stat().st_size > 100, name


def test_interval_checkpoints_state_their_interval(sweep):
    expected = SCHEMAS["interval_sweep"]
    state = load_checkpoint(sweep / "checkpoints" / "train-test_interval_8-24" / "fold_01_best.pth")
    assert set(expected["checkpoints/train-test_interval_1-10/fold_01_best.pth"]) == set(state)
    assert (state["start_hour"], state["upper_hour"], state["fold"]) == (8.0, 24.0, 1)
    assert set(state["best_metrics"]) == {"accuracy", "precision", "recall", "f1", "auc", "loss"}
    assert resolve_policy(state["config"]["data"]["frames"], "train").infected_window_hours == (8.0, 24.0)
    base = load_checkpoint(sweep / "checkpoints" / "test-only_base_models" / "fold_01_best.pth")
    assert set(expected["checkpoints/test-only_base_models/fold_01_best.pth"]) <= set(base)
    assert base["training_interval"] == [8.0, 48.0]
    assert resolve_policy(base["config"]["data"]["frames"], "train").infected_window_hours == (8.0, 48.0)
    assert not list((sweep / "runs").rglob("*.pt"))


def test_evaluation_of_a_finished_sweep(sweep, studio, script, tmp_path):
    command = ["--config", studio.baseline, "--upper-hours", 24, 48, "--start-hour", 8, "--device", "cpu"]
    command += ["--metrics", "auc", "f1", "accuracy", "--save-data", "--eval-only", "--checkpoint-dir", sweep]
    before = set(sweep.parent.iterdir())
    assert script("analyze_interval_sweep_train.py", *command) == 0
    [output] = set(sweep.parent.iterdir()) - before
    assert output.name.startswith("sweep_eval_")
    first, again = (json.loads((f / "interval_sweep_data.json").read_text()) for f in (sweep, output))
    assert again["stats"] == first["stats"]
    command[command.index("--start-hour") + 1] = 16
    with pytest.raises(FileNotFoundError, match="interval_16-24"):
        script("analyze_interval_sweep_train.py", *command, "--mode", "train-test")
    with pytest.raises(ValueError, match="belongs to another interval"):
        script("analyze_interval_sweep_train.py", *command, "--mode", "test-only")


def test_a_base_model_of_another_window_is_refused(sweep, tmp_path):
    """The original's base models say [start, max] but were trained on the window of the configuration."""
    state = dict(load_checkpoint(sweep / "checkpoints" / "test-only_base_models" / "fold_01_best.pth"))
    data = state["config"]["data"]
    data["frames"] = {"frames_per_hour": 0.125, "infected_window_hours": [16.0, 30.0]}
    path = save_checkpoint(tmp_path / "fold_01_best.pth", state)
    with pytest.raises(ValueError, match="artefacts"):
        load_for(path, {"training_interval": [8.0, 48.0]})


def test_resume_reuses_checkpoints(sweep, studio, script):
    files = {p: p.stat().st_mtime_ns for p in (sweep / "checkpoints").rglob("*.pth")}
    command = ["--config", studio.baseline, "--upper-hours", 24, 48, "--start-hour", 8, "--device", "cpu"]
    assert script("analyze_interval_sweep_train.py", *command, "--resume", "--output-dir", sweep) == 0
    assert files == {p: p.stat().st_mtime_ns for p in (sweep / "checkpoints").rglob("*.pth")}


def test_sliding_sweep(studio, script, tmp_path):
    command = [
        "--config",
        studio.baseline,
        "--window-size",
        16,
        "--stride",
        24,
        "--start-hour",
        0,
        "--end-hour",
        40,
    ]
    command += [
        "--match-uninfected-window",
        "--metrics",
        "auc",
        "f1",
        "--save-data",
        "--output",
        tmp_path / "out",
    ]
    assert script("analyze_sliding_window_train.py", *command, "--device", "cpu") == 0
    out = tmp_path / "out"
    data = json.loads((out / "sliding_window_w16_s24_data.json").read_text())
    schema = SCHEMAS["sliding_window_train"]
    same_keys(data, schema["sliding_window_w10_s20_data.json"])
    assert data["window_starts"] == [0.0, 24.0]
    assert data["results"]["auc"]["window_centers"] == [8.0, 32.0]
    state = load_checkpoint(out / "checkpoints" / "window_24-40" / "fold_01_best.pth")
    assert set(state) == set(schema["checkpoints/window_1-11/fold_01_best.pth"])
    frames = state["config"]["data"]["frames"]
    for side in ("train", "val", "test"):
        policy = resolve_policy(frames, side)
        assert policy.infected_window_hours == policy.uninfected_window_hours == (24.0, 40.0)
        assert policy.frames_per_hour == 0.125
    assert {p.name for p in out.glob("*.png")} == {
        f"sliding_window_w16_s24_{m}.png" for m in ("combined", "auc", "f1")
    }


def test_viewing_and_table(sweep, script, tmp_path, caplog):
    data = sweep / "interval_sweep_data.json"
    command = [
        "--data",
        data,
        "--output-dir",
        tmp_path,
        "--metrics",
        "f1",
        "--hide-points",
        "--layout",
        "wide",
    ]
    assert script("visualize_sliding_window.py", *command) == 0
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "interval_sweep_combined.png",
        "interval_sweep_f1.png",
    }
    assert "--layout has no effect" in caplog.text
    assert "--color-scheme" not in caplog.text
    table = tmp_path / "table.json"
    assert script("load_checkpoint_example.py", "--checkpoint-dir", sweep, "--output", table) == 0
    rows = json.loads(table.read_text())
    assert len(rows) == 3
    assert {row["interval"] for row in rows} == {"8-24", "8-48"}
    assert rows[0]["auc"] == max(row["auc"] for row in rows)


def test_overrides_survive_saving():
    """What a section for one split leaves out is taken from the enclosing one, also after writing and reading."""
    frames = FramesConfig.model_validate(
        {"frames_per_hour": 0.5, "infected_window_hours": [1, 40], "test": {"infected_window_hours": [2, 8]}}
    )
    again = FramesConfig.model_validate(frames.model_dump(mode="json"))
    for side in ("train", "val", "test"):
        assert resolve_policy(again, side) == resolve_policy(frames, side)
    assert resolve_policy(again, "test").frames_per_hour == 0.5


def test_interval_of_a_configuration(studio):
    config = Config.model_validate(json.loads(studio.config.read_text()))
    changed = on_interval(config, Interval(8, 24), match_uninfected=False)
    policy = resolve_policy(changed.data.frames, "test")
    assert policy.infected_window_hours == (8.0, 24.0)
    assert policy.uninfected_window_hours == (0.0, 48.0)
    assert resolve_policy(config.data.frames, "test").infected_window_hours == (8.0, 48.0)
    assert Interval(1.5, 6).name == "1.5-6"


@pytest.mark.parametrize(
    ("script_name", "flags", "message"),
    [
        ("analyze_interval_sweep_train.py", ["--upper-hours", "1"], "is not after"),
        ("analyze_interval_sweep_train.py", ["--upper-hours", "9", "--eval-only"], "--checkpoint-dir"),
        ("analyze_sliding_window_train.py", ["--window-size", "90"], "no window of 90 h"),
    ],
)
def test_wrong_input(studio, script, capsys, script_name, flags, message):
    assert script(script_name, "--config", studio.baseline, *flags, debug=False) == 1
    assert message in capsys.readouterr().err


def test_wrong_files(script, capsys, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    assert script("visualize_sliding_window.py", "--data", tmp_path / "x.json", debug=False) == 1
    assert "is no sweep" in capsys.readouterr().err
    assert script("load_checkpoint_example.py", "--checkpoint-dir", tmp_path, debug=False) == 1
    assert "holds no sweep checkpoints" in capsys.readouterr().err


def reference(name: str) -> Path:
    given = os.environ.get("MEDPAPERS_REFERENCE_DATA")
    folder = Path(given) if given else Path(__file__).parents[5] / "shared" / "data"
    path = folder / "infection-mt" / name
    if not path.is_file():
        pytest.skip(f"reference data left out: {path} is absent (set MEDPAPERS_REFERENCE_DATA)")
    return path


def test_published_sweeps(tmp_path, script):
    """Means and deviations of the published sweeps follow from their folds, and their files are drawn."""
    sweeps = json.loads(reference("sweeps.json").read_text())
    for name in ("interval_20251212-145928", "sliding_20251212-145411"):
        content = sweeps[name]
        if "stats" in content:
            lists = [s for modes in content["stats"].values() for s in modes.values()]
            pairs = [(interval_stats(s["fold_metrics"]), s) for s in lists]
            found = [(a["mean"], b["mean"], a["std"], b["std"]) for a, b in pairs]
        else:
            results = content["results"]
            again = window_results(
                content["window_starts"],
                results["auc"]["window_ends"],
                {metric: r["fold_metrics"] for metric, r in results.items()},
            )
            found = [(again[m]["means"], r["means"], again[m]["stds"], r["stds"]) for m, r in results.items()]
            assert again["auc"]["window_centers"] == results["auc"]["window_centers"]
        for mean, expected_mean, std, expected_std in found:
            np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-6)
            np.testing.assert_allclose(std, expected_std, rtol=0, atol=1e-6)
        data = tmp_path / f"{name}_data.json"
        data.write_text(json.dumps(content))
        assert script("visualize_sliding_window.py", "--data", data, "--combined-only") == 0
        assert (tmp_path / f"{name}_combined.png").exists()
