"""Every wrapper on a real cluster: disturbed and divided jobs end with the numbers of quiet, single ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aespa.experiments import GROUPS
from medshared.configuration import dump_yaml

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def user(slurm_testing, tmp_path_factory):
    return slurm_testing.SlurmUser(tmp_path_factory.mktemp("aespa") / "home", ROOT)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Slices with raters, and volumes to be cut."""
    from aespa.synthetic import write_lidc, write_mbhseg

    folder = tmp_path_factory.mktemp("data")
    write_lidc(folder / "LIDC", 6, 4, 0)
    write_mbhseg(folder / "raw", 4, 2, 0)
    return folder


@pytest.fixture(scope="module")
def jobs(user, data) -> dict[str, Any]:
    """All that needs no other's results, submitted at once."""
    keys = {"image_size": 64, "encoder": "tiny", "runs": 2, "b": 1, "w": 0, "device": "cpu", "epochs": 12}
    keys |= {"val_freq": 6, "dataset": "LIDC", "data_path": str(data / "LIDC")}
    config = user.home / "tiny.yaml"
    config.write_text(dump_yaml(keys))
    prepare = {"VOLUMES": data / "raw", "SHARDS": 2}
    # Seven of the eight experiments have been done; the fourth lacks MedSAM's weights.
    names = GROUPS["main"]
    for name in [*names[:3], *names[4:]]:
        (user.home / "logs_new" / name).mkdir(parents=True)
        (user.home / "logs_new" / name / "results.json").write_text("{}")
    return {
        "config": config,
        "disturbed": user.submit("slurm/train.sh", CONFIG=config, OUTPUT="runs/disturbed"),
        "quiet": user.serial("slurm/train.sh", CONFIG=config, OUTPUT="runs/quiet"),
        "prepare": [user.submit("slurm/prepare_array.sh", **prepare, OUTPUT="slices") for _ in range(2)],
        "serial": user.serial("slurm/prepare_array.sh", **prepare, OUTPUT="serial"),
        "experiments": user.submit("slurm/experiments_array.sh", "-data", data, GROUP="main"),
    }


@pytest.fixture(scope="module")
def trained(user, jobs, slurm_testing) -> Path:
    """The checkpoint of the quiet training."""
    slurm_testing.finished(jobs["quiet"])
    return user.home / "runs/quiet/checkpoints/best.pt"


def test_a_training_that_is_warned_and_killed_has_the_weights_of_a_quiet_one(user, jobs, slurm_testing):
    (job,) = jobs["disturbed"]
    run = user.home / "runs/disturbed"
    user.disturb("aespa-train", job, run / "checkpoints/last.pt")
    assert user.wait(job) == {job: "COMPLETED"}, user.logs()
    assert user.codes("aespa-train", job) == [75, None, 0]
    slurm_testing.finished(jobs["quiet"])
    for name in ("best.pt", "last.pt"):
        files = [each / "checkpoints" / name for each in (run, user.home / "runs/quiet")]
        assert slurm_testing.same_weights(*files), name


def test_two_arrays_over_one_folder_cut_each_volume_once(user, jobs, slurm_testing):
    one, other = jobs["prepare"]
    assert set(user.wait(*one, *other).values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(jobs["serial"])
    assert set(user.done("aespa-prepare").values()) == {6}
    slices = [{file.relative_to(user.home / run): file.read_bytes() for file in (user.home / run).rglob("*.png")}
              for run in ("slices", "serial")]  # fmt: skip
    assert slices[0] == slices[1] != {}


def test_one_failing_experiment_is_named(user, jobs):
    array, collecting = jobs["experiments"]
    states = user.wait(array, collecting)
    expected = {f"{array}_{k}": "FAILED" if k == 3 else "COMPLETED" for k in range(8)}
    assert states == {**expected, collecting: "FAILED"}, user.logs()
    told = (user.home / f"slurm_LOG/aespa-experiment-collect_{collecting}.err").read_text()
    assert "task 3: failed with exit code 1" in told
    assert f"aespa-experiment_{array}_3.err" in told


def test_images_and_evaluation(user, jobs, trained, data, slurm_testing):
    images = {"CHECKPOINT": trained, "IMAGES": data / "LIDC/test/images", "SHARDS": 2}
    flags = ["-device", "cpu"]
    pairs = [user.submit("slurm/predict_array.sh", *flags, **images, OUTPUT="masks") for _ in range(2)]
    serial = user.serial("slurm/predict_array.sh", *flags, **images, OUTPUT="serial-masks")
    (evaluation,) = user.submit("slurm/evaluate.sh", CONFIG=jobs["config"], CHECKPOINT=trained, OUTPUT="val")
    states = user.wait(*pairs[0], *pairs[1], evaluation)
    assert set(states.values()) == {"COMPLETED"}, user.logs()
    slurm_testing.finished(serial)
    n = len(list((data / "LIDC/test/images").rglob("*.png")))
    assert user.done("aespa-predict") == {"predict": n}
    masks = [{file.name: file.read_bytes() for file in (user.home / run / "masks").rglob("*.png")}
             for run in ("masks", "serial-masks")]  # fmt: skip
    assert masks[0] == masks[1]
    assert len(masks[0]) == n
    assert (user.home / "val/results.json").is_file()
