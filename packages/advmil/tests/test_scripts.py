"""``main.py`` and the verbs that take finished runs, as a user starts them."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from advmil import cli, demo
from medshared.configuration import dump_yaml, load_yaml_or_json
from medshared.runs import RunDirectory

ROOT = Path(__file__).parents[1]
QUICK = {"bcb_mode": "abmil", "epochs": 1, "es_warmup": 0, "device": "cpu"}
BASE = {"task": "surv_reg"}


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs draw nothing where pictures are not the subject."""
    monkeypatch.setattr("advmil.training.write_run_report", lambda folder: folder)
    monkeypatch.setattr("advmil.reporting.write_run_report", lambda folder: folder)


@pytest.fixture
def write_config(tiny_settings, tmp_path):
    """Write a YAML file and return it; results go to ``out`` beside it."""

    def write(**changes) -> Path:
        keys = tiny_settings(**(QUICK | {"save_path": str(tmp_path / "out")} | changes))
        path = tmp_path / "cfg.yaml"
        path.write_text(dump_yaml(keys))
        return path

    return write


@pytest.fixture
def main(monkeypatch):
    """Run ``python main.py …`` in this process, so that torch is imported once."""

    def run(*arguments: str | Path, code: int = 0) -> None:
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
        assert (stop.value.code or 0) == code

    return run


def finished(folder: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("results.json"))


# ------------------------------------------------------------------ grids


@pytest.mark.parametrize(
    ("multi_run", "folds", "expected"),
    [
        (False, 1, ["out"]),
        (True, 1, ["out"]),
        (False, [1, 0], ["out"]),
        (True, [1, 0], ["out-data_split_seed_0", "out-data_split_seed_1"]),
    ],
)
def test_with_and_without_lists_and_multi_run(
    multi_run, folds, expected, write_config, main, tmp_path, no_pictures
):
    path = write_config(data_split_seed=folds)
    main("--config", path, "--handler", "adv", *(["--multi_run"] if multi_run else []))
    assert finished(tmp_path) == expected
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in expected]
    if len(expected) == 1:
        assert results[0]["fold"] == 1  # the first of a list
        assert not (tmp_path / "out" / "summary.json").exists()
        return
    values = [result["sets"]["test"]["c_index"] for result in results]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (group,) = summary["groups"]
    assert group["folds"] == 2
    assert group["metrics"]["test/c_index"]["mean"] == pytest.approx(np.mean(values))
    assert group["metrics"]["test/c_index"]["sd"] == pytest.approx(np.std(values))
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert table["run"].tolist() == ["out-data_split_seed_1", "out-data_split_seed_0"]
    assert table["test/c_index"].tolist() == pytest.approx(values[::-1])


def test_resuming_a_grid_leaves_finished_runs_alone(write_config, main, tmp_path, no_pictures):
    path = write_config(data_split_seed=[0, 1])
    main("-f", path, "-d", "base", "--set", "task=surv_cox", "--set", "data_split_seed=[0]", "--multi_run")
    first = tmp_path / "out-data_split_seed_0" / "results.json"
    before = first.stat().st_mtime_ns, first.read_text()
    main("-f", path, "-d", "base", "--set", "task=surv_cox", "--multi_run", "--resume")
    assert (first.stat().st_mtime_ns, first.read_text()) == before
    assert finished(tmp_path) == ["out-data_split_seed_0", "out-data_split_seed_1"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["groups"][0]["folds"] == 2
    # Without --resume a finished run is never overwritten.
    main("-f", path, "-d", "base", "--set", "task=surv_cox", "--multi_run", code=1)
    assert first.read_text() == before[1]


@pytest.mark.parametrize(
    ("key", "values", "flags", "message"),
    [
        ("data_split_seed", [7, 0], [], "syn-fold7.npz: no such split"),
        ("bp_every_batch", [64, 4], ["--faithful"], "drop_last_group leaves no group"),
        ("opt_netG", ["nonsense", "adam"], [], "nonsense"),
    ],
)
def test_a_failing_run_of_a_grid_stops_no_other(
    key, values, flags, message, write_config, main, tmp_path, no_pictures, capfd, caplog
):
    main("--config", write_config(**{key: values}), "--handler", "adv", "--multi_run", *flags, code=1)
    assert finished(tmp_path) == [f"out-{key}_{values[1]}"]
    shown = capfd.readouterr().err + caplog.text
    assert message in shown
    assert f"1 of 2 runs failed: {tmp_path}/out-{key}_{values[0]}" in shown
    assert pd.read_csv(tmp_path / "out" / "summary.csv")[key].tolist() == [values[1]]


def test_test_mode_over_a_grid(tiny_run, write_config, main, tmp_path):
    keys = {"test": True, "test_load_path": str(tiny_run), "test_mask_ratio": [0.0, 0.5]}
    path = write_config(**keys, test_save_path=str(tmp_path / "masked_{}-fold_{}"))
    main("--config", path, "--handler", "adv", "--multi_run")
    assert finished(tmp_path) == ["masked_0.0-fold_0", "masked_0.5-fold_0"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [group["point"] for group in summary["groups"]] == [
        {"test_mask_ratio": 0.0},
        {"test_mask_ratio": 0.5},
    ]
    main("--config", path, "--handler", "adv", "--output", tmp_path / "given")
    assert "given" in finished(tmp_path)


def test_runs_that_would_share_a_folder_are_refused(tiny_run, write_config, main, tmp_path, capfd):
    keys = {"test": True, "test_load_path": str(tiny_run), "test_zero_noise": [True, False]}
    main(
        *("--config", write_config(**keys, test_save_path=str(tmp_path / "one"))),
        *("--handler", "adv", "--multi_run"),
        code=1,
    )
    assert "2 runs of the grid would write into" in capfd.readouterr().err
    assert finished(tmp_path) == []


def test_a_signal_between_two_runs_starts_no_further_one(
    write_config, main, tmp_path, monkeypatch, capfd, no_pictures
):
    from advmil import training

    inner = training.train_run

    def stopped_at_the_end(*arguments, **keys):
        results = inner(*arguments, **keys)
        signal.raise_signal(signal.SIGTERM)
        return results

    monkeypatch.setattr(training, "train_run", stopped_at_the_end)
    main("-f", write_config(data_split_seed=[0, 1]), "-d", "adv", "--multi_run", code=75)
    assert finished(tmp_path) == ["out-data_split_seed_0"]
    assert "stopped by SIGTERM before" in capfd.readouterr().err


# ------------------------------------------------------------------ flags


@pytest.mark.parametrize(("handler", "task"), [("adv", "cont_gansurv"), ("base", "surv_nll")])
def test_demo(handler, task, main, tmp_path, monkeypatch, no_pictures):
    make = demo.generate_cohort
    monkeypatch.setattr(
        demo,
        "generate_cohort",
        lambda home, seed, settings: make(home, seed, replace(settings, n_patients=24)),
    )
    output = tmp_path / "run"
    flags = ["--set", "epochs=2", "--set", "es_warmup=0", "--set", f"task={task}", "--set", "bcb_mode=abmil"]
    if task == "surv_nll":
        flags += ["--set", "pdh_dims=32-4"]
    main("--demo", "--handler", handler, "--output", output, "--device", "cpu", *flags)
    results = json.loads((output / "results.json").read_text())
    assert results["handler"] == handler
    assert results["task"] == task
    assert results["epochs"] == 2


def test_faithful_scores_the_test_set_in_every_epoch(write_config, main, tmp_path, no_pictures):
    path = write_config(epochs=2, eval_test_each_epoch=None)
    main("--config", path, "--handler", "adv", "--faithful")
    columns = pd.read_csv(tmp_path / "out" / "metrics.csv").columns
    assert {"test/c_index", "test/loss_recon_org"} <= set(columns)
    config = load_yaml_or_json(tmp_path / "out" / "config.yaml")
    assert config["faithful"] is True
    assert config["loss_bce_legacy"] is True
    assert config["labels_from"] == "table"


def test_tensorboard(write_config, main, tmp_path, no_pictures):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = write_config(epochs=2, wandb_dir=str(tmp_path / "shared"))
    main("--config", path, "--handler", "adv", "--logger", "tensorboard")
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train_batch/netD/Loss_D", "validation/c_index", "bestckpt/train/test/c_index"} <= tags
    assert len(events.Scalars("validation/c_index")) == 2
    assert len(events.Scalars("train_batch/netG/Loss_G_total")) == 8  # one a group of bags
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "CFG"], "--handler is missing; give adv (AdvMIL) or base (baselines)"),
        (["--config", "CFG", "--handler", "gan"], "--handler gan: expected adv (AdvMIL) or base"),
        (["--handler", "adv"], "--config is missing"),
        (["--config", "gone.yaml", "--handler", "adv"], "gone.yaml"),
        (["--config", "CFG", "--handler", "base"], "'cont_gansurv' is AdvMIL; use --handler adv"),
        (["--config", "CFG", "--handler", "adv", "--set", "gen_nois=1"], "gen_nois"),
    ],
)
def test_what_cannot_start_says_why(arguments, message, write_config, main, capfd, tmp_path):
    path = write_config()
    main(*(path if word == "CFG" else word for word in arguments), code=1)
    shown = capfd.readouterr().err
    assert f"error: {message}" in shown or message in shown[shown.index("error: ") :]
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_help_is_light():
    """``--help`` imports neither torch nor pandas nor matplotlib, which keeps it under two seconds."""
    code = (
        "import runpy, sys\n"
        "sys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "main.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for flag in ("--config", "-f", "--handler", "-d", "--multi_run", "--resume", "--faithful", "--demo"):
        assert flag in done.stdout


# ------------------------------------------------------------------ stopping a process


@pytest.fixture(scope="module")
def uninterrupted(tiny_cohort, tmp_path_factory):
    """A run that nothing stops, and its configuration."""
    folder = tmp_path_factory.mktemp("whole")
    keys = (
        tiny_cohort.config()
        | QUICK
        | {
            "bcb_dims": "16-8-8",
            "gen_dims": "8-1",
            "disc_netx_out_dim": 4,
            "disc_nety_hid_dims": "3-4",
            "bp_every_batch": 4,
            "epochs": 12,
            "times_test_sample": 5,
        }
    )
    path = folder / "cfg.yaml"
    path.write_text(dump_yaml(keys))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("advmil.training.write_run_report", lambda folder: folder)
        assert cli.main(["train", "-f", str(path), "-d", "adv", "--output", str(folder / "run")]) == 0
    return path, folder / "run"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_goes_on_bit_for_bit(number, code, uninterrupted, tmp_path, no_pictures):
    config, whole = uninterrupted
    output = tmp_path / "run"
    command = [sys.executable, str(ROOT / "main.py"), "-f", str(config), "-d", "adv", "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (output / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        shown = process.communicate(timeout=60)[1]
    assert process.returncode == code, shown
    assert not (output / "results.json").exists()
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in shown
        assert "--resume continues" in shown
        assert "Traceback" not in shown
    state = RunDirectory(output).load_checkpoint("last")
    assert 0 < state["progress"]["epoch"] < 12
    assert cli.main(["train", "-f", str(config), "-d", "adv", "--output", str(output), "--resume"]) == 0
    assert (output / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    sets = [json.loads((folder / "results.json").read_text())["sets"] for folder in (output, whole)]
    assert json.dumps(sets[0]) == json.dumps(sets[1])
    for name in ("train_modelG-best.pth", "train_modelG-last.pth", "train_modelD-last.pth"):
        a, b = (torch.load(folder / name, weights_only=True)["model"] for folder in (output, whole))
        assert all(torch.equal(a[key], b[key]) for key in a), name


# ------------------------------------------------------------------ verbs over finished runs


@pytest.fixture(scope="module")
def two_models(uninterrupted, tmp_path_factory):
    """Two folds of AdvMIL and of a baseline."""
    folder = tmp_path_factory.mktemp("models")
    config, _ = uninterrupted
    short = ["--set", "epochs=2", "--set", "data_split_seed=[0, 1]", "--multi_run"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("advmil.training.write_run_report", lambda folder: folder)
        base = ["--set", "task=surv_reg", "--set", "pdh_dims=8-1"]
        for name, handler, flags in (("adv", "adv", []), ("base", "base", base)):
            command = ["train", "-f", str(config), "-d", handler, "--output", str(folder / name)]
            assert cli.main([*command, *short, *flags]) == 0
    return folder


def test_evaluate_finds_the_folds_of_a_grid(two_models, tmp_path):
    output = tmp_path / "evaluation"
    command = ["evaluate", str(two_models / "adv"), "--resamples", "20", "--output", str(output)]
    assert cli.main(command) == 0
    content = json.loads((output / "evaluation.json").read_text())
    assert list(content["runs"]) == ["adv-data_split_seed_0", "adv-data_split_seed_1"]
    folds = pd.read_csv(output / "folds.csv").set_index("metric")
    values = [run["c_index"] for run in content["runs"].values()]
    assert folds.loc["c_index", "mean"] == pytest.approx(np.mean(values))
    assert folds.loc["c_index", "sd"] == pytest.approx(np.std(values))
    assert "evaluation.html" in {path.name for path in output.iterdir()}


def test_compare_two_models(two_models, tmp_path):
    output = tmp_path / "comparison"
    command = ["compare", str(two_models / "adv"), str(two_models / "base"), "--resamples", "20"]
    assert cli.main([*command, "--output", str(output)]) == 0
    content = json.loads((output / "comparison.json").read_text())
    assert set(content["folds"]) == {"0", "1"}
    row = content["folds"]["0"][0]
    assert row["metric"] == "c_index"
    assert row["difference"] == pytest.approx(row["a"] - row["b"])
    assert {row["metric"] for row in content["over_folds"]} >= {"c_index"}
    assert pd.read_csv(output / "comparison_fold1.csv")["metric"].tolist()[0] == "c_index"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "EMPTY"], "no finished run here or directly below"),
        (
            ["evaluate", "RUN", "--set-name", "tset"],
            "no predictions of a set 'tset'; it has test, train, validation",
        ),
        (["compare", "RUN", "FOLDS", "--output", "OUT"], "compare runs of the same folds"),
        (["compare", "ALL", "FOLDS", "--output", "OUT"], "are both of fold 0"),
        (["report", "EMPTY"], "no finished run here"),
    ],
)
def test_verbs_that_cannot_start_say_why(arguments, message, two_models, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    places = {
        "EMPTY": tmp_path / "empty",
        "RUN": two_models / "adv-data_split_seed_0",
        "FOLDS": two_models / "base",
        "ALL": two_models,
        "OUT": tmp_path / "out",
    }
    assert cli.main([str(places.get(word, word)) for word in arguments]) == 1
    shown = capfd.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_report_is_written_again_from_the_files(tiny_run):
    page = tiny_run / "report.html"
    before = page.read_text()
    page.unlink()
    assert cli.main(["report", str(tiny_run)]) == 0
    assert page.read_text().count("<img") == before.count("<img") > 3
