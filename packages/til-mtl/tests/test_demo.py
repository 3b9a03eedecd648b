"""The demonstration's mechanics, at a size and with networks that take seconds."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from til_mtl import cli, demo
from til_mtl.config import Config
from til_mtl.demo import DRAWN, clear_output, demo_keys, demo_run_changes, run_demo
from til_mtl.errors import DataError
from til_mtl.models.weight_files import read_weights

from .conftest import ToyNetwork

METRICS = ("dice_tumor", "dice_stroma", "froc", "cell_f1", "til_spearman", "til_mae")
BASELINE = {"majority_dice", "darkness_froc", "random_froc", "darkness_spearman", "median_til_mae"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small demonstration: toy networks, one after the other in this process."""

    def load_toy(path, *, task=None, device="cpu"):
        state, meta = read_weights(path)
        network = ToyNetwork(meta["config"]["task"])
        network.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
        return network.eval(), meta

    def one_by_one(work, items, device):
        for item in items:
            work(item)

    output = tmp_path_factory.mktemp("demo") / "out"
    keys = demo_keys
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("til_mtl.trainer.build_network", lambda config, **_: ToyNetwork(config.task))
        patched.setattr("til_mtl.models.checkpoint.load_network", load_toy)
        patched.setattr(demo, "_side_by_side", one_by_one)
        patched.setattr(demo, "demo_keys", lambda *given: keys(*given) | {"lr": 0.03})
        patched.setattr(demo, "EPOCHS", 2)
        patched.setattr(demo, "STEPS_AN_EPOCH", 3)
        small = replace(
            DRAWN, tissue_regions=16, cell_regions=16, held_out_regions=2, slides=4, tissue_px=(192, 128)
        )
        patched.setattr(demo, "DRAWN", small)
        assert cli.main(["demo", "--output", str(output), "--seed", "3", "--device", "cpu"]) == 0
    return output


def test_results_have_every_number_that_is_promised(finished):
    content = json.loads((finished / "results.json").read_text())
    wanted = {*METRICS, *(f"stl_{key}" for key in METRICS)}
    assert wanted <= content["metrics"].keys()
    assert content["baseline"].keys() >= BASELINE
    for key in wanted:
        assert content["metrics"][key] is None or math.isfinite(content["metrics"][key])
    assert all(value is not None for value in content["baseline"].values())
    assert content["seconds"] > 0
    assert content["seed"] == 3
    assert len(content["slides"]) == 4
    assert content["leaderboard"]["mtl"].keys() == {"dice_tumor", "dice_stroma", "froc"}
    assert set(content["effort"]) == {"mtl", "seg", "det"}
    # The single-task networks do as many steps as the multi-task one, each on its own half of the patches.
    assert {effort["steps"] for effort in content["effort"].values()} == {6}
    assert {row["metric"] for row in content["comparison"]} >= {
        "dice_tumor",
        "dice_stroma",
        "froc",
        "cell_f1",
    }


def test_numbers_are_those_of_the_files_beside(finished):
    content = json.loads((finished / "results.json").read_text())
    of_run = json.loads((finished / "demo" / "mtl" / "results.json").read_text())["metrics"]["val"]
    assert content["metrics"]["dice_tumor"] == pytest.approx(of_run["dice_tumor"])
    assert content["metrics"]["froc"] == pytest.approx(of_run["froc"])
    rows = content["slides"]
    errors = [abs(row["mtl"] - row["planted"]) for row in rows if row["mtl"] is not None]
    if not content["metrics"]["slides_without_score"]:
        assert content["metrics"]["til_mae"] == pytest.approx(sum(errors) / len(errors))


def test_the_page_shows_it(finished):
    page = (finished / "report.html").read_text()
    for heading in (
        "Result of the multi-task network",
        "Slides",
        "Multi-task against single-task",
        "needs no learning",
    ):
        assert heading in page
    assert page.count("<img") >= 6  # three figures, three slides
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "til_scores.png", "bland_altman.png", "froc.png",
    }  # fmt: skip


def test_no_slide_was_trained_on(finished):
    manifest = (finished / "demo" / "patches" / "manifest.csv").read_text()
    slides = [
        path.stem for path in (finished / "demo" / "data" / "tiger" / "wsitils" / "images").glob("*.tif")
    ]
    assert len(slides) == 4
    assert [slide for slide in slides if slide in manifest] == []


# ------------------------------------------------------------------ folders


def earlier(output: Path) -> Path:
    (output / "demo" / "data" / "tiger").mkdir(parents=True)
    (output / "figures").mkdir()
    for name in ("results.json", "report.html", "figures/froc.png"):
        (output / name).write_text("old")
    return output


def test_an_earlier_demonstration_is_replaced_and_nothing_else(tmp_path):
    output = earlier(tmp_path / "out")
    (output / "notes.txt").write_text("mine")
    clear_output(output)
    assert {path.name for path in output.iterdir()} == {"demo", "notes.txt"}
    assert list((output / "demo").iterdir()) == []
    clear_output(output)  # one that was stopped before anything was drawn


@pytest.mark.parametrize("foreign", ["thesis.txt", "demo/thesis.txt", "data/tiger/thesis.txt"])
def test_other_folders_are_not_touched(foreign, tmp_path, capfd):
    file = tmp_path / foreign
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(
        DataError, match="not empty and not an earlier demonstration; choose another --output"
    ):
        run_demo(tmp_path)
    assert file.read_text() == "mine"
    assert cli.main(["demo", "--output", str(tmp_path)]) == 1
    assert "error: " in capfd.readouterr().err


def test_a_new_folder_is_made(tmp_path):
    clear_output(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "demo").is_dir()


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("task", ["mtl", "seg", "det"])
def test_all_networks_see_as_many_patches_of_a_task(task):
    config = Config(**demo_keys(task, Path("patches"), 7, "cpu"))
    share = 2 if task == "mtl" else 1
    assert config.batch_size / share == 4
    assert not config.freeze_encoder
    assert config.seed_everything == 7
    assert config.sampling == ("balanced" if task == "mtl" else "shuffle")


def test_work_goes_one_after_the_other_without_cores_to_share(monkeypatch):
    monkeypatch.setattr(demo.os, "sched_getaffinity", lambda _: {0}, raising=False)
    done = []
    demo._side_by_side(done.append, [1, 2, 3], "cpu")
    assert done == [1, 2, 3]


def test_work_goes_side_by_side_in_processes_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    demo._side_by_side(Path.mkdir, [tmp_path / "a", tmp_path / "b"], "cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(FileExistsError):
        demo._side_by_side(Path.mkdir, [tmp_path / "a"], "cpu")


def test_flags_win_over_the_demo_but_not_over_its_data(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(demo, "write_tiger", lambda *a: drawn.append(a))
    monkeypatch.setattr(demo, "prepare_patches", lambda tiger, out, all_folds: out.mkdir(parents=True))
    given = Namespace(output=tmp_path / "run", max_epochs=9, data_dir="mine", img_size=(256, 256))
    found = demo_run_changes(given)
    assert found["data_dir"] == tmp_path / "til-mtl-demo-data" / "patches"
    assert found["img_size"] == (64, 64)
    assert "max_epochs" not in found
    (tmp_path / "til-mtl-demo-data" / "patches" / "manifest.csv").write_text("")
    assert demo_run_changes(Namespace(output=tmp_path / "run"))["max_epochs"] == 2
    assert len(drawn) == 1  # drawn once for all runs beside each other
