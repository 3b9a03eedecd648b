"""The original's experiments."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aespa import experiments as tested
from aespa.config import Config
from aespa.flags import add_train_options, config_mapping

ROOT = Path(__file__).parents[1]


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """Replace the processes of the runs; a run whose name is in CODES ends with that code."""
    made: list[list[str]] = []

    def start(words):
        made.append(words)
        return CODES.get(words[words.index("-exp_name") + 1], 0)

    CODES.clear()
    monkeypatch.setattr(tested, "_run", start)
    return made


CODES: dict[str, int] = {}


def run(*names: str, root: Path, **named) -> int:
    return tested.run_experiments(
        list(names), data=Path("data"), sam_ckpt=Path("sam.pth"), log_root=root, device="cpu", **named
    )


def names_of(started: list[list[str]]) -> list[str]:
    return [words[words.index("-exp_name") + 1] for words in started]


def test_groups():
    assert [len(tested.GROUPS[name]) for name in ("all", "main", "ablations")] == [20, 8, 12]
    assert set(tested.GROUPS["main"]) | set(tested.GROUPS["ablations"]) == set(tested.NAMES)


def config_of(name: str) -> Config:
    parser = argparse.ArgumentParser()
    add_train_options(parser)
    words = tested.EXPERIMENTS[name].arguments(Path("data"), Path("sam.pth"), Path("logs"), "cpu")
    given = parser.parse_args(words)
    assert given.output == Path("logs") / name
    return Config.model_validate(config_mapping(given))


@pytest.mark.parametrize("name", tested.NAMES)
def test_every_experiment_is_a_sound_run(name):
    found = config_of(name)
    assert found.exp_name == name
    assert found.data_path == Path("data") / str(found.dataset)
    assert (found.sam_ckpt, found.device) == (Path("sam.pth"), "cpu")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LIDC_SPA_128", ("SPA", "LIDC", 128, 64, 48, 4, 16)),
        ("MBHSeg_SPA_256", ("SPA", "MBHSeg-Binary", 256, 16, 48, 4, 16)),
        ("MBHSeg_AESPA_256", ("AESPA", "MBHSeg-Binary", 256, 64, 48, 4, 16)),
        ("LIDC_SPA_N12_c4_K16", ("SPA", "LIDC", 128, 64, 12, 4, 16)),
        ("MBHSeg_SPA_N48_c2_K4", ("SPA", "MBHSeg-Binary", 128, 64, 48, 2, 4)),
    ],
)
def test_what_they_are(name, expected):
    c = config_of(name)
    assert (c.mode, c.dataset, c.image_size, c.b, c.num_samples, c.n_clusters, c.n_components) == expected


def test_chosen_by_name_and_group_once():
    found = tested.chosen(["LIDC_SPA_256", "main"])
    assert len(found) == 8
    assert found[0].name == "LIDC_SPA_256"
    with pytest.raises(
        ValueError, match=r"unknown experiment 'LIDC_SPA_64': expected all, main, ablations, LIDC"
    ):
        tested.chosen(["LIDC_SPA_64"])


def test_without_names_or_with_dry_run_they_are_listed(started, tmp_path, capsys):
    assert run(root=tmp_path) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert run("LIDC_SPA_128", root=tmp_path, dry_run=True) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:4] == ["aespa", "train", "-exp_name", "LIDC_SPA_128"]
    assert not started


def test_finished_runs_are_left_alone_and_stopped_ones_go_on(started, tmp_path):
    for name, file in (("LIDC_SPA_128", "results.json"), ("LIDC_SPA_256", "checkpoints/last.pt")):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
    assert run("LIDC_SPA_128", "LIDC_SPA_256", "LIDC_AESPA_128", root=tmp_path) == 0
    assert names_of(started) == ["LIDC_SPA_256", "LIDC_AESPA_128"]
    assert started[0][:4] == [sys.executable, "-m", "aespa.cli", "train"]
    assert started[0][-2:] == ["-resume", str(tmp_path / "LIDC_SPA_256")]
    assert "-resume" not in started[1]


def test_one_of_a_group(started, tmp_path):
    assert run("main", root=tmp_path, only=3) == 0
    assert names_of(started) == [tested.GROUPS["main"][2]]
    for number in (0, 9):
        with pytest.raises(
            ValueError, match=f"expected 1 to 8, the number of experiments chosen, found {number}"
        ):
            run("main", root=tmp_path, only=number)


def test_a_failed_run_does_not_hide_the_others(started, tmp_path, caplog):
    CODES["LIDC_SPA_128"] = 1
    assert run("LIDC_SPA_128", "LIDC_SPA_256", root=tmp_path) == 1
    assert names_of(started) == ["LIDC_SPA_128", "LIDC_SPA_256"]
    assert "1 experiments failed: LIDC_SPA_128" in caplog.text


def test_a_stopped_run_stops_the_rest(started, tmp_path):
    CODES["LIDC_SPA_128"] = 75
    assert run("LIDC_SPA_128", "LIDC_SPA_256", root=tmp_path) == 75
    assert len(started) == 1


@pytest.mark.parametrize(
    ("script", "n"), [("bash.sh", 20), ("bash_ablation.sh", 12), ("bash_priority.sh", 8)]
)
def test_the_originals_shell_scripts(script, n, tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(ROOT / script), "-dry_run", "-log_root", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == n
    assert all(line.startswith("aespa train -exp_name ") for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_signal_reaches_the_run_and_is_waited_for(tmp_path):
    """SLURM's warning goes to the job's first process, and the run is the one that can save its state."""
    run_code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        "pathlib.Path('ready').touch()\ntime.sleep(60)\n"
    )
    code = f"import sys; from aespa.experiments import _run; sys.exit(_run([sys.executable, '-c', {run_code!r}]))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 75
