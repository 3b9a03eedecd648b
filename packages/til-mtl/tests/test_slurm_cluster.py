"""Every wrapper on a real cluster: disturbed and divided jobs end with the numbers of quiet, single ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medshared.configuration import dump_yaml
from til_mtl.synthetic_slides import TigerSettings, write_tiger

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
KEYS = {"img_size": [64, 64], "batch_size": 4, "num_workers": 0, "device": "cpu", "pretrained": "none"}
PATCHES = ["--patch", "64", "--cell-size", "14", "--folds", "2", "--all-folds", "--test-fraction", "0.2"]


@pytest.fixture(scope="module")
def user(slurm_testing, tmp_path_factory):
    return slurm_testing.SlurmUser(tmp_path_factory.mktemp("til") / "home", ROOT)


@pytest.fixture(scope="module")
def tiger(tmp_path_factory):
    settings = TigerSettings(
        patch_px=64, region_px=64, tissue_regions=8, cell_regions=8, held_out_regions=2, slides=4,
        tissue_px=(192, 160), margin_px=16, wsi_slides=1,
    )  # fmt: skip
    return write_tiger(tmp_path_factory.mktemp("tiger"), 0, settings)


@pytest.fixture(scope="module")
def patches(user, tiger) -> Path:
    """Two arrays over one folder; what they cut is what the rest is trained on."""
    prepare = {"TIGER": tiger.tiger, "OUTPUT": "patches", "SHARDS": 2}
    pairs = [user.submit("slurm/prepare_array.sh", *PATCHES, **prepare) for _ in range(2)]
    states = user.wait(*pairs[0], *pairs[1])
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    return user.home / "patches"


@pytest.fixture(scope="module")
def config(user):
    """Write a configuration of so many epochs; returns the file."""

    def write(task: str, epochs: int, **keys: Any) -> Path:
        path = user.home / f"{task}{epochs}.yaml"
        path.write_text(dump_yaml({**KEYS, "task": task, "max_epochs": epochs, **keys}))
        return path

    return write


@pytest.fixture(scope="module")
def jobs(user, patches, config) -> dict[str, Any]:
    """All trainings, submitted at once."""
    train = {"CONFIG": config("mtl", 4)}
    compare = {"CONFIG": config("mtl", 1), "FOLDS": 2}
    data = ["--data_dir", patches]
    (user.home / "runs/broken").mkdir(parents=True)
    (user.home / "runs/broken/fold2").write_text("no folder")
    return {
        "disturbed": user.submit("slurm/train.sh", *data, **train, OUTPUT="runs/disturbed"),
        "quiet": user.serial("slurm/train.sh", *data, **train, OUTPUT="runs/quiet"),
        "compare": user.submit("slurm/compare_array.sh", *data, **compare, OUTPUT="runs/compare"),
        "serial": user.serial("slurm/compare_array.sh", *data, **compare, OUTPUT="runs/serial"),
        "broken": user.submit("slurm/compare_array.sh", *data, **compare, OUTPUT="runs/broken"),
    }


def test_a_training_that_is_warned_and_killed_has_the_weights_of_a_quiet_one(user, jobs, slurm_testing):
    (job,) = jobs["disturbed"]
    run = user.home / "runs/disturbed/checkpoints"
    user.disturb("til-mtl-train", job, run / "last.pt")
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    assert user.codes("til-mtl-train", job) == [75, None, 0]
    slurm_testing.finished(jobs["quiet"])
    for name in ("best.pt", "last.pt"):
        assert slurm_testing.same_weights(run / name, user.home / "runs/quiet/checkpoints" / name), name


def test_two_arrays_over_one_folder_cut_each_region_once(user, patches, tiger, slurm_testing):
    serial = user.serial("slurm/prepare_array.sh", *PATCHES, TIGER=tiger.tiger, OUTPUT="serial", SHARDS=2)
    slurm_testing.finished(serial)
    cut = [{file.relative_to(user.home / run): file.read_bytes() for file in (user.home / run).rglob("*.png")}
           for run in ("patches", "serial")]  # fmt: skip
    assert cut[0] == cut[1] != {}
    # Each of the collecting jobs fills the folders anew.
    assert user.done("til-mtl-prepare") == {"regions": 16, "folders": 2}


def test_a_comparison_as_an_array_equals_the_serial_one(user, jobs, slurm_testing):
    assert set(user.wait(*jobs["compare"]).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial"])
    one, other = (user.home / "runs" / run / "comparison.csv" for run in ("compare", "serial"))
    pd.testing.assert_frame_equal(pd.read_csv(one), pd.read_csv(other), check_exact=True)


def test_one_failing_fold_is_named_and_nothing_is_compared(user, jobs):
    array, collecting = jobs["broken"]
    states = user.wait(array, collecting)
    assert states == {f"{array}_0": "COMPLETED", f"{array}_1": "FAILED", collecting: "FAILED"}, user.logs()
    told = (user.home / f"slurm_LOG/til-mtl-compare-collect_{collecting}.err").read_text()
    assert "task 1: failed with exit code 1" in told
    assert f"til-mtl-compare_{array}_1.err" in told
    assert not (user.home / "runs/broken/comparison.csv").exists()


def test_two_arrays_over_one_folder_score_each_slide_once(user, jobs, tiger, slurm_testing):
    slurm_testing.finished(jobs["quiet"])
    slides = {"CHECKPOINT": user.home / "runs/quiet/checkpoints/best.pt", "SLIDES": tiger.slides, "SHARDS": 2}
    flags = [
        "--masks",
        tiger.tissue_masks,
        "--patch",
        "64",
        "--margin",
        "8",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    pairs = [user.submit("slurm/predict_array.sh", *flags, **slides, OUTPUT="scores") for _ in range(2)]
    serial = user.serial("slurm/predict_array.sh", *flags, **slides, OUTPUT="serial-scores")
    states = user.wait(*pairs[0], *pairs[1])
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(serial)
    assert user.done("til-mtl-predict") == {"predict": 4}
    one, other = (scores(user.home / run) for run in ("scores", "serial-scores"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def scores(folder: Path) -> pd.DataFrame:
    (table,) = folder.glob("*scores*.csv")
    found = pd.read_csv(table)
    return found.drop(columns=[name for name in found if "seconds" in name])
