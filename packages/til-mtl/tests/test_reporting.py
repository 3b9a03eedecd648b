"""The page of a run."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from medshared.configuration import load_config
from til_mtl.config import Config
from til_mtl.reporting import rewrite_run_report
from til_mtl.training import train_run

pytestmark = pytest.mark.usefixtures("toy_network")
TITLES = {
    "mtl": "Multi-task network",
    "seg": "Single-task tissue network",
    "det": "Single-task cell network",
}


def run(keys, folder, **changes):
    train_run(load_config(Config, keys | {"max_epochs": 1} | changes, label="test"), folder)
    return folder


@pytest.mark.parametrize("task", ["mtl", "seg", "det"])
def test_a_page_of_each_task(toy_keys, tmp_path, task):
    folder = run(toy_keys, tmp_path / "run", task=task)
    page = (folder / "report.html").read_text()
    assert TITLES[task] in page
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"patches", "learning"} | ({"froc"} if task != "seg" else set())
    assert page.count("<img") == len(figures)
    for heading in ("Result", "Pictures", "Effort"):
        assert heading in page
    assert "There is no test set" not in page
    assert "batch_size" in page  # the configuration
    # One file that can be sent: nothing is fetched from elsewhere.
    assert 'src="http' not in page


def test_it_is_said_that_there_is_no_test_set(toy_keys, make_patches, tmp_path):
    data = make_patches(tmp_path / "two", {"train": (4, 4), "val": (2, 2)})
    page = (run(toy_keys, tmp_path / "run", data_dir=str(data)) / "report.html").read_text()
    assert "There is no test set: the epoch was selected on the patches that these numbers describe." in page
    assert "val set" in page


def test_the_page_comes_again_from_the_files_alone(toy_keys, tmp_path, patch_root):
    folder = run(toy_keys, tmp_path / "run")
    before = (folder / "report.html").read_text()
    for name in ("report.html", "figures/froc.png", "figures/learning.png"):
        (folder / name).unlink()
    for image in patch_root.rglob("*.png"):
        image.unlink()
    assert rewrite_run_report(folder) == folder / "report.html"
    after = (folder / "report.html").read_text()
    assert after.count("<img") == before.count("<img") == 3
    value = json.loads((folder / "results.json").read_text())["metrics"]["test"]["dice_tumor"]
    assert f"{value:.3f}"[:4] in after


def test_values_that_are_not_defined_do_not_spoil_the_page(toy_keys, tmp_path, patch_root):
    """One tissue and no cell in validation and test: some Dice and the FROC are not defined."""
    for split in ("val", "test"):
        for mask in (patch_root / "segmentation" / split / "mask").iterdir():
            Image.new("L", (16, 16), 0).save(mask)
        for mask in (patch_root / "detection" / split / "mask").iterdir():
            Image.new("L", (16, 16)).save(mask)
    folder = run(toy_keys, tmp_path / "run")
    (folder / "report.html").unlink()
    assert rewrite_run_report(folder).is_file()


def test_a_run_without_an_epoch_has_a_page(toy_keys, tmp_path):
    folder = run(toy_keys, tmp_path / "run", max_epochs=0)
    assert "<img" in (folder / "report.html").read_text()


def test_metrics_of_another_kind_are_named(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OSError, match=r"results\.json"):
        rewrite_run_report(tmp_path / "run")
