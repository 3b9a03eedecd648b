"""The demonstration at a size of seconds; its levels are checked by the demonstration itself at full size."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest

from aespa import demo, demo_results
from aespa.config import Config
from aespa.errors import DataError

METRICS = {
    "dice_neutral_round0", "dice_follow_round1", "dice_follow_late", "dice_per_rater_round0", "random_click_dice_late",
    "ged", "dice_max", "dice_match", "interactions_to_0_85", "spa_dice_round0", "spa_dice_late", "spa_ged_samples",
    "spa_ged_mean_mask",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patched:
        small = {"N_TRAIN": 10, "N_TEST": 2, "VOLUMES": (1, 1), "EPOCHS": dict.fromkeys(demo.MODES, 1)}
        for name, value in small.items():
            patched.setattr(demo, name, value)
        for name, value in {"SHOWN_SAMPLES": 6, "SHOWN_CLUSTERS": 3, "SPA_IMAGES": 2}.items():
            patched.setattr(demo_results, name, value)
        patched.setattr(demo.os, "sched_getaffinity", lambda _: {0}, raising=False)  # in this process
        content = demo.run_demo(output, seed=1, device="cpu")
        yield output, content


def test_the_demonstration_writes_what_it_promises(made):
    output, content = made
    stored = json.loads((output / "results.json").read_text())
    assert stored["metrics"].keys() >= METRICS
    assert {"majority_dice", "plain_sam_dice_late"} <= stored["baseline"].keys()
    assert stored["seconds"] > 0
    assert stored["seed"] == content["seed"] == 1
    assert {path.name for path in (output / "figures").iterdir()} == {
        "rounds.png", "following.png", "proposals.png",
    }  # fmt: skip
    page = (output / "report.html").read_text()
    assert "masks that follow a rater" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_both_layouts_are_written(made):
    output, _ = made
    data = output / "demo" / "data"
    assert list((data / "lidc" / "train" / "images").glob("*/*.png"))
    assert list((data / "MBHSeg" / "test").glob("*/*.nii.gz"))
    assert list((data / "MBHSeg-Binary" / "test" / "imgs").glob("*/slice_*.png"))


def test_the_majority_is_that_of_the_drawing(made):
    assert made[1]["baseline"]["majority_dice"] == pytest.approx(0.83, abs=0.03)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="choose another"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_method_of_a_configuration_file_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_small_data", lambda home, dataset: home / dataset)
    file = tmp_path / "spa.yaml"
    file.write_text("mode: SPA\nepochs: 9\nencoder: vit_b\ndataset: REFUGE\n")
    changes = demo.demo_run_changes(Namespace(output=tmp_path / "run", config=file, seed=3))
    assert not {"mode", "seed"} & changes.keys()
    assert changes["dataset"] == "REFUGE"
    assert (changes["encoder"], changes["epochs"]) == ("tiny", 2)  # at demo size


@pytest.mark.parametrize("dataset", ["LIDC", "REFUGE", "MBHSeg-Multiclass", "folders"])
def test_small_data_for_the_scripts(dataset, tmp_path):
    from aespa.data.arrays import load_arrays

    changes = demo.demo_run_changes(
        Namespace(output=tmp_path / "run", dataset=dataset, epochs=7, config=None)
    )
    assert "epochs" not in changes  # what the user gave wins
    assert changes["dataset"] == dataset
    again = demo.demo_run_changes(Namespace(output=tmp_path / "run", dataset=dataset, config=None))
    assert again["data_path"] == changes["data_path"]
    config = Config(**{**again, "image_size": 32}).resolved()
    for split in ("train", "test"):
        assert len(load_arrays(config, split)) > 0
