"""Every wrapper on a real cluster: disturbed and divided jobs end with the numbers of quiet, single ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medshared.configuration import dump_yaml

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
SIZE, WINDOW = [24, 24, 16], [6, 6, 6]
GRID = {"full_image_size": SIZE, "device": "cpu", "hu_window": [-60, 160]}
CLASSIFIER = {**GRID, "crop_size": WINDOW, "crop_no": 4, "val_batches": 1, "train_batches": 2, "width": 4}
GAME = {**GRID, "window_size": WINDOW, "n_games": 2, "n_steps": 8, "eval_seeds": 1}


@pytest.fixture(scope="module")
def user(slurm_testing, tmp_path_factory):
    return slurm_testing.SlurmUser(tmp_path_factory.mktemp("spars") / "home", ROOT)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """As many volumes as the index ranges of the experiment reach."""
    from spars.synthetic import write_synthetic

    folder = tmp_path_factory.mktemp("data")
    write_synthetic(folder, 24, 16, 2, size=tuple(SIZE), geometry="plain")
    return folder


@pytest.fixture(scope="module")
def jobs(user, data, tiny_runs) -> dict[str, Any]:
    """Everything, submitted at once."""

    def write(name: str, **keys: Any) -> Path:
        path = user.home / f"{name}.yaml"
        path.write_text(dump_yaml(keys))
        return path

    classifier = {
        "SCRIPT": "net_global.py",
        "CONFIG": write("c", **CLASSIFIER, epochs=40, data_dir=str(data)),
    }
    weights = {"data_dir": str(tiny_runs.data), "classifier_weights": str(tiny_runs.weights)}
    keys = {**GAME, **weights, "window_size": [6, 6, 4], "iterations": 25}
    game = {"SCRIPT": "best_RL.py", "CONFIG": write("g", **keys)}
    keys = {**CLASSIFIER, "epochs": 1}
    ablation = {
        "FAMILY": "classifier",
        "CONFIG": write("a", classifier=keys, game={}),
        "OUTPUT": "runs/ablation",
    }
    flags = ["--data_dir", str(data)]
    ablate = ["slurm/ablate_array.sh", *flags]
    alone = ["--family", "classifier", "--config", ablation["CONFIG"], "--output", "runs/serial", *flags]
    # The third of five finds a file where its folder should be.
    (user.home / "runs/ablation").mkdir(parents=True)
    (user.home / "runs/ablation/ex3_16in").write_text("no folder")
    predict = ["slurm/predict_array.sh", "--classifier_weights", str(tiny_runs.weights), "--device", "cpu"]
    masks = {"AGENT": tiny_runs.game, "IMAGES": tiny_runs.data / "imagesTr"}
    masks |= {"OUTPUT": "runs/masks", "SHARDS": 2}
    return {
        "quiet classifier": user.serial("slurm/train.sh", **classifier, OUTPUT="runs/quiet-classifier"),
        "quiet game": user.serial("slurm/train.sh", **game, OUTPUT="runs/quiet-game"),
        "broken": user.submit(*ablate, **ablation),
        "predict": [user.submit(*predict, **masks) for _ in range(2)],
        "serial predict": user.serial(*predict, **{**masks, "OUTPUT": "runs/serial-masks", "SHARDS": 1}),
        "serial ablate": user.python("-m", "spars.cli", "ablate", *alone),
        "ablate": (ablate, ablation),
        "game": game,
        # The last, so that it still runs when the first test looks.
        "classifier": user.submit("slurm/train.sh", **classifier, OUTPUT="runs/classifier"),
    }


@pytest.mark.parametrize(("run", "weights"), [("classifier", "ex4_24in_weights.pth"), ("game", "agent.pt")])
def test_a_training_that_is_warned_and_killed_has_the_weights_of_a_quiet_one(
    run, weights, user, jobs, slurm_testing
):
    folder = user.home / "runs" / run
    # A game is over too soon to be submitted with all the rest.
    (job,) = jobs[run] if run == "classifier" else user.submit("slurm/train.sh", **jobs[run], OUTPUT=folder)
    user.disturb("spars-train", job, folder / "checkpoints/last.pt")
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    assert user.codes("spars-train", job) == [75, None, 0]
    slurm_testing.finished(jobs[f"quiet {run}"])
    assert slurm_testing.same_weights(folder / weights, user.home / "runs" / f"quiet-{run}" / weights)


def test_two_arrays_over_one_folder_segment_each_volume_once(user, jobs, slurm_testing, tiny_runs):
    one, other = jobs["predict"]
    assert set(user.wait(*one, *other).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial predict"])
    n = len(list((tiny_runs.data / "imagesTr").glob("*.nii.gz")))
    assert user.done("spars-predict") == {"predict": n}
    runs = [user.home / "runs" / run for run in ("masks", "serial-masks")]
    masks = [{file.name: file.read_bytes() for file in (run / "pred").glob("*.nii.gz")} for run in runs]
    assert masks[0] == masks[1]
    assert len(masks[0]) == n


def test_an_experiment_with_a_failing_script_has_no_table_and_given_again_equals_the_serial_one(
    user, jobs, slurm_testing
):
    array, collecting = jobs["broken"]
    states = user.wait(array, collecting)
    expected = {f"{array}_{k}": "FAILED" if k == 2 else "COMPLETED" for k in range(5)}
    assert states == {**expected, collecting: "FAILED"}, user.logs()
    told = (user.home / f"slurm_LOG/spars-ablate-collect_{collecting}.err").read_text()
    assert "task 2: failed with exit code 1" in told
    assert f"spars-ablate_{array}_2.err" in told

    (user.home / "runs/ablation/ex3_16in").unlink()
    ablate, ablation = jobs["ablate"]
    assert set(user.wait(*user.submit(*ablate, **ablation)).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial ablate"])
    tables = [sorted((user.home / "runs" / run).glob("*.csv")) for run in ("ablation", "serial")]
    assert [file.name for file in tables[0]] == [file.name for file in tables[1]] != []
    for one, other in zip(*tables, strict=True):
        assert without_times(one) == without_times(other), one.name


def without_times(table: Path) -> Any:
    import pandas as pd

    found = pd.read_csv(table)
    return found.drop(columns=[name for name in found if "seconds" in name or "memory" in name]).to_csv()
