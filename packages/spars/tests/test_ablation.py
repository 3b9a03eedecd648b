"""Experiments side by side, with stand-ins for training."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medshared.command_line import RunInterruptedError
from medshared.files import read_json, write_json
from spars import ablation, cli
from spars.ablation import Ablation, run_ablation
from spars.config import ClassifierConfig, GameConfig
from spars.errors import DataError
from spars.presets import FAMILIES


class Runs:
    """Records what is trained; ``broken`` fails."""

    def __init__(self) -> None:
        self.classifiers: list[tuple[str, ClassifierConfig]] = []
        self.games: list[tuple[str, GameConfig]] = []
        self.broken: set[str] = set()
        self.stopped: set[str] = set()

    def classifier(self, config, folder: Path, *, preset=None, resume=False, stop=None):
        del preset, stop
        if resume and (folder / "results.json").is_file():
            return read_json(folder / "results.json")
        self._fail(folder)
        self.classifiers.append((folder.name, config))
        metrics = {"val_auc": 0.5 + config.train_end / 100, "train_loss": 1.0}
        results = {"metrics": metrics, "cases": {"val": [24, 40]}, "best_epoch": 3}
        write_json(folder / "results.json", results)
        return results

    def game(self, config, folder: Path, *, resume=False, evaluate=False, stop=None):
        del stop
        assert evaluate
        if resume and (folder / "results.json").is_file():
            return read_json(folder / "results.json")
        self._fail(folder)
        self.games.append((folder.name, config))
        if config.mode != "standard":
            keys = ("dice_last", "dice_mean", "dice_sd_population", "reward_mean", "reward_sd_population")
            write_json(folder / "results.json", dict.fromkeys(keys, 0.125))
            return {}
        write_json(folder / "results.json", {"iterations": 1})
        entry = {"n": 4, "dice_mean": config.window_size[0] / 100, "dice_sd": 0.1}
        summary = {"agent": entry, "score_map": {**entry, "dice_mean": 0.75}}
        write_json(folder / "evaluation" / "results.json", {"summary": summary})
        return {}

    def _fail(self, folder: Path) -> None:
        if folder.name in self.stopped:
            raise RunInterruptedError("stopped")
        if folder.name in self.broken:
            raise DataError(f"{folder.name} cannot be used\nsecond line")


@pytest.fixture
def runs(monkeypatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(ablation, "run_classifier", found.classifier)
    monkeypatch.setattr(ablation, "run_game", found.game)
    return found


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "ablation.csv").open() as file:
        return {row["preset"]: row for row in csv.DictReader(file)}


def test_the_classifiers_of_a_family_make_one_table(runs, tmp_path):
    assert run_ablation(Ablation(FAMILIES["classifier"], tmp_path, common={"data_dir": tmp_path})) == 0
    assert [name for name, _ in runs.classifiers] == list(FAMILIES["classifier"])
    assert {config.val_start for _, config in runs.classifiers} == {24}
    rows = table(tmp_path)
    assert [row["n_train"] for row in rows.values()] == ["8", "12", "16", "20", "24"]
    assert rows["ex3_16in"]["val_auc"] == "0.66"
    assert {(row["status"], row["n_val"]) for row in rows.values()} == {("done", "16")}
    assert "train_loss" not in rows["ex3_16in"]
    assert "ex3_16in" in (tmp_path / "report.html").read_text()


def test_each_window_gets_a_classifier_of_its_own(runs, tmp_path):
    assert run_ablation(Ablation(FAMILIES["window"], tmp_path, {"epochs": 2}, {"iterations": 3})) == 0
    assert [config.crop_size for _, config in runs.classifiers] == [c.window_size for _, c in runs.games]
    assert {config.epochs for _, config in runs.classifiers} == {2}
    assert {config.iterations for _, config in runs.games} == {3}
    for _, config in runs.games:
        size = "_".join(map(str, config.window_size))
        assert config.classifier_weights == tmp_path / "classifiers" / size / "ex4_24in_weights.pth"
    row = table(tmp_path)["window-64_64_32"]
    assert (row["agent_dice"], row["score_map_dice"], row["n_test"]) == ("0.64", "0.75", "4")
    assert row["window_size"] == "64×64×32"


def test_thresholds_share_one_classifier_and_differ_in_the_threshold_alone(runs, tmp_path):
    assert run_ablation(Ablation(FAMILIES["threshold"], tmp_path)) == 0
    assert len(runs.classifiers) == 1
    assert [config.termination_threshold for _, config in runs.games] == [0.2, 0.3, 0.4, 0.5, 0.6]
    same = {
        config.model_copy(update={"termination_threshold": 0}).model_dump_json() for _, config in runs.games
    }
    assert len(same) == 1


def test_faithful_windows_are_stretched_for_one_classifier(runs, tmp_path):
    common = {"mode": "faithful"}
    assert run_ablation(Ablation(FAMILIES["window"], tmp_path, common=common)) == 0
    ((name, config),) = runs.classifiers
    assert (name, config.crop_size, config.mode) == ("stretched", (96, 96, 64), "faithful")
    assert table(tmp_path)["window-8_8_8"]["dice_mean"] == "0.125"
    assert "one and the same volume" in (tmp_path / "report.html").read_text()


def test_weights_that_are_given_are_used(runs, tmp_path):
    run_ablation(Ablation(("best_RL",), tmp_path, game={"classifier_weights": "mine.pth"}))
    assert runs.classifiers == []
    assert runs.games[0][1].classifier_weights == Path("mine.pth")


def test_a_failing_script_stops_no_other_and_is_told(runs, tmp_path, caplog):
    runs.broken = {"window-16_16_8"}
    wanted = Ablation(FAMILIES["window"], tmp_path)
    assert run_ablation(wanted) == 1
    rows = table(tmp_path)
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done", "done", "done"]
    assert rows["window-16_16_8"]["message"] == "window-16_16_8 cannot be used"
    assert "1 of the scripts failed: window-16_16_8" in caplog.text
    assert "cannot be used" in (tmp_path / "report.html").read_text()
    runs.broken, before = set(), len(runs.games)
    assert run_ablation(Ablation(FAMILIES["window"], tmp_path, resume=True)) == 0
    assert [name for name, _ in runs.games[before:]] == ["window-16_16_8"]
    assert {row["status"] for row in table(tmp_path).values()} == {"done"}


def test_a_stop_ends_everything_and_can_be_resumed(runs, tmp_path):
    runs.stopped = {"ex2_12in"}
    with pytest.raises(RunInterruptedError):
        run_ablation(Ablation(FAMILIES["classifier"], tmp_path))
    assert [name for name, _ in runs.classifiers] == ["ex1_8in"]


def test_a_job_of_an_array_fills_in_its_row(runs, tmp_path):
    for name in FAMILIES["classifier"][:2]:
        assert run_ablation(Ablation(FAMILIES["classifier"], tmp_path, only=(name,), resume=True)) == 0
    assert [row["status"] for row in table(tmp_path).values()] == ["done", "done", *["not run"] * 3]


def test_a_job_waits_for_the_classifier_that_another_one_trains(runs, tmp_path, monkeypatch):
    from medshared.leases import acquire_lease

    folder = tmp_path / "classifiers" / "48_48_24"
    waited = []
    with acquire_lease(folder / ".training.lock") as other:
        assert other is not None

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            (folder / ".training.lock").unlink()

        monkeypatch.setattr(ablation.time, "sleep", sleep)
        assert run_ablation(Ablation(("best_RL",), tmp_path)) == 0
    assert len(waited) == 1


def test_unknown_scripts_are_refused(tmp_path):
    with pytest.raises(DataError, match="no preset 'best'"):
        run_ablation(Ablation(("best",), tmp_path))
    with pytest.raises(DataError, match="--only best_RL: not among ex1_8in"):
        run_ablation(Ablation(("ex1_8in",), tmp_path, only=("best_RL",)))


def test_the_verb_reads_both_sections_of_a_file_and_keys_of_the_command_line(runs, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("classifier:\n  epochs: 3\n  lr: 0.5\ngame:\n  iterations: 4\n")
    words = [
        "ablate",
        "--presets",
        "ex1_8in",
        "window-8_8_8",
        "--config",
        str(file),
        "--output",
        str(tmp_path / "o"),
    ]
    assert cli.main([*words, "--classifier-keys", "lr=0.25", "--game-keys", "n_games=2", "--seed", "5"]) == 0
    ((_, first), (_, second)), ((_, game),) = runs.classifiers, runs.games
    assert (first.epochs, first.lr, first.seed, first.train_end) == (3, 0.25, 5, 8)
    assert (second.epochs, second.crop_size) == (3, (8, 8, 8))
    assert (game.iterations, game.n_games, game.seed) == (4, 2, 5)


def test_a_key_that_there_is_not_fails_the_script_by_name(runs, tmp_path, caplog):
    words = ["ablate", "--presets", "best_RL", "--output", str(tmp_path), "--game-keys", "iteration=3"]
    assert cli.main(words) == 1
    assert "iterations" in table(tmp_path)["best_RL"]["message"]
