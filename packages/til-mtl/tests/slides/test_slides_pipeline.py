"""Many slides: failures, shards, resuming, tables."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from medshared.leases import Shard, acquire_lease
from medshared.slides import write_pyramid
from til_mtl.errors import CheckpointError, DataError
from til_mtl.slides.pipeline import COLUMNS, find_slides, run_slides

from .conftest import colour_rule


@pytest.fixture
def folder(tmp_path, slide, pixels):
    """Two good slides, a truncated one, one without spacing, a blank one."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("a.tif", "b.tif"):
        shutil.copy(slide, slides / name)
    (slides / "cut.tif").write_bytes(slide.read_bytes()[: slide.stat().st_size // 2])
    write_pyramid(slides / "nompp.tif", pixels, None, "generic", tile_px=64, downsamples=(1, 4))
    blank = np.full((300, 400, 3), 245, np.uint8)
    write_pyramid(slides / "blank.tif", blank, 0.5, "generic", tile_px=64, downsamples=(1, 4))
    (slides / "notes.txt").write_text("no slide")
    return slides


class Counting:
    """A model factory that counts calls."""

    def __init__(self):
        self.made = self.called = 0

    def __call__(self):
        self.made += 1

        def model(tiles):
            self.called += 1
            return colour_rule(tiles)

        return model


def read(out):
    return pd.read_csv(out / "til_scores.csv"), pd.read_csv(out / "slides.csv", index_col="image-id")


def test_a_failed_slide_is_recorded_with_its_reason_and_gets_no_score(folder, options):
    chosen = options(slides=folder, masks=None)
    assert run_slides(chosen, Counting()) == 1
    scores, states = read(chosen.out)
    assert tuple(scores.columns) == COLUMNS
    assert scores["image-id"].tolist() == ["a", "b"]
    assert (scores["tils-score"] > 0).all()
    assert states["status"].to_dict() == {
        "a": "done",
        "b": "done",
        "blank": "empty",
        "cut": "failed",
        "nompp": "failed",
    }
    assert "--mpp-of nompp=VALUE" in states.loc["nompp", "message"]
    assert "no tissue was found" in states.loc["blank", "message"]
    assert "cut.tif" in states.loc["cut", "message"]
    report = json.loads((chosen.out / "predict-report.json").read_text())
    assert report["counts"] == {"predict": {"done": 2, "empty": 1, "failed": 2}}
    for name in ("blank", "cut", "nompp"):
        assert not (chosen.out / name / "til-score.json").exists()


def test_a_second_run_makes_only_what_is_missing(folder, options):
    chosen = options(slides=folder, masks=None)
    run_slides(chosen, Counting())
    before = (chosen.out / "a" / "segmentation.tif").stat().st_mtime_ns
    again = Counting()
    solved = options(slides=folder, masks=None, mpp_of={"nompp": 0.5})
    run_slides(solved, again)
    assert again.made == 1
    assert (chosen.out / "a" / "segmentation.tif").stat().st_mtime_ns == before
    scores, states = read(chosen.out)
    assert scores["image-id"].tolist() == ["a", "b", "nompp"]
    assert states.loc["nompp", "status"] == "done"


def test_nothing_to_do_loads_no_network(slide, masks, options):
    run_slides(options(), Counting())
    idle = Counting()
    assert run_slides(options(), idle) == 0
    assert (idle.made, idle.called) == (0, 0)
    run_slides(options(again=True), idle)
    assert idle.made == 1


@pytest.mark.parametrize("breakage", ["damage", "remove", "settings"])
def test_what_is_not_whole_is_made_again(options, breakage):
    run_slides(options(), Counting())
    result = options().out / "a" / "detected-lymphocytes.json"
    whole = result.read_bytes()
    changed = options(conf=0.6) if breakage == "settings" else options()
    if breakage == "damage":
        result.write_bytes(whole[:-9])
    elif breakage == "remove":
        result.unlink()
    again = Counting()
    assert run_slides(changed, again) == 0
    assert again.made == 1
    assert (result.read_bytes() == whole) == (breakage != "settings")


def test_a_slide_that_fails_now_has_no_score_of_before(folder, options):
    chosen = options(slides=folder, masks=None)
    run_slides(chosen, Counting())
    content = (folder / "b.tif").read_bytes()
    (folder / "b.tif").write_bytes(content[: len(content) // 2])
    run_slides(chosen, Counting())
    scores, states = read(chosen.out)
    assert scores["image-id"].tolist() == ["a"]
    assert states.loc["b", "status"] == "failed"
    assert not (chosen.out / "b" / "til-score.json").exists()


def test_shards_share_one_folder(folder, options):
    for part in (0, 1):
        shard = Shard(part, 2)
        run_slides(options(slides=folder, masks=None, shard=shard), Counting())
        scores, states = read(options().out)
        assert len(scores) == part + 1
        assert (options().out / f"predict-report-{part + 1}-of-2.json").is_file()
        if part == 0:
            assert (states["status"] == "not yet").sum() == 2
    assert states["status"].tolist() == ["done", "done", "empty", "failed", "failed"]


def test_slides_side_by_side_give_the_same(folder, options, tmp_path):
    run_slides(options(slides=folder, masks=None), Counting())
    run_slides(options(slides=folder, masks=None, jobs=3, threads=1, out=tmp_path / "other"), Counting())
    first, second = (pd.read_csv(path / "til_scores.csv") for path in (tmp_path / "out", tmp_path / "other"))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_a_missing_mask_fails_that_slide_alone(folder, masks, options):
    chosen = options(slides=folder, masks=masks)
    assert run_slides(chosen, Counting()) == 1
    scores, states = read(chosen.out)
    assert scores["image-id"].tolist() == ["a"]
    assert "no b_tissue.tif" in states.loc["b", "message"]


def test_a_network_that_cannot_be_loaded_is_no_slides_fault(folder, options, caplog):
    def factory():
        raise CheckpointError("best.pt: damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        run_slides(options(slides=folder, masks=None), factory)
    assert caplog.text.count("damaged") == 1


def test_bad_arguments_are_named(tmp_path, folder, options):
    with pytest.raises(DataError, match="no such slide or folder of slides"):
        run_slides(options(slides=tmp_path / "nowhere"), Counting())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no slides here; expected files ending in"):
        find_slides(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="--mpp-of q=…: no slide of this name"):
        run_slides(options(slides=folder, mpp_of={"q": 0.5}), Counting())
    with pytest.raises(DataError, match=r"no\.pt: no such checkpoint"):
        run_slides(options(checkpoint=tmp_path / "no.pt"), Counting())
    shutil.copy(folder / "a.tif", folder / "a.tiff")
    with pytest.raises(DataError, match=r"several slides of one name \(a\.tif, a\.tiff\)"):
        find_slides(folder, tmp_path / "out")


def test_slides_in_subfolders(slide, options, tmp_path):
    """As archives deliver them: a folder a slide."""
    for name in ("one/a.tif", "two/b.tif"):
        (tmp_path / "slides" / name).parent.mkdir(parents=True)
        shutil.copy(slide, tmp_path / "slides" / name)
    chosen = options(slides=tmp_path / "slides", masks=None, out=tmp_path / "slides" / "results")
    for _ in range(2):  # results are no slides
        assert run_slides(chosen, Counting()) == 0
        assert read(chosen.out)[0]["image-id"].tolist() == ["a", "b"]
    shutil.copy(slide, tmp_path / "slides" / "two" / "a.tif")
    with pytest.raises(DataError, match=r"several slides of one name \(one/a\.tif, two/a\.tif\)"):
        run_slides(chosen, Counting())


def test_names_of_any_letters(slide, masks, options, tmp_path):
    name = "Fäll 1 [α,*] 试"
    (tmp_path / "slides").mkdir()
    shutil.copy(slide, tmp_path / "slides" / f"{name}.tif")
    (tmp_path / "masks").mkdir()
    shutil.copy(masks / "a_tissue.tif", tmp_path / "masks" / f"{name}_tissue.tif")
    chosen = options(slides=tmp_path / "slides", masks=tmp_path / "masks", mpp_of={name: 0.5})
    assert run_slides(chosen, Counting()) == 0
    assert read(chosen.out)[0]["image-id"].tolist() == [name]
    assert f"TIL score of {name}" in (chosen.out / name / "report.html").read_text(encoding="utf-8")
    idle = Counting()
    run_slides(chosen, idle)
    assert idle.made == 0


def test_results_of_other_settings_are_in_no_table(folder, options):
    run_slides(options(slides=folder, masks=None), Counting())
    changed = options(slides=folder, masks=None, conf=0.6, shard=Shard(1, 5))
    run_slides(changed, Counting())
    scores, states = read(changed.out)
    assert scores["image-id"].tolist() == ["b"]
    assert states.loc["a", "status"] == "not yet"


def test_what_another_job_said_of_its_slides_is_kept(folder, options):
    chosen = options(slides=folder, masks=None)
    run_slides(chosen, Counting())
    with acquire_lease(chosen.out / "cut" / ".slide.json.lock"):  # held by the other job
        assert run_slides(chosen, Counting()) == 1  # nompp
    states = read(chosen.out)[1]
    assert states.loc["cut", "status"] == "failed"
    assert "cut.tif" in states.loc["cut", "message"]


KILLED = """
import os, signal
from pathlib import Path
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.pipeline import run_slides

def model(tiles):
    for file in Path({out!r}).glob("*/.segmentation.tif.*.tmp"):
        os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("the map was not begun")

run_slides(SlideOptions(slides=Path({slide!r}), out=Path({out!r}), patch=96, margin=8, batch=7), lambda: model)
"""


def test_a_job_that_was_killed_is_continued(slide, options):
    chosen = options(masks=None)
    code = KILLED.format(out=str(chosen.out), slide=str(slide))
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {file.name for file in (chosen.out / "a").iterdir()}
    assert ".slide.json.lock" in left
    assert any(name.endswith(".tmp") for name in left)
    assert run_slides(chosen, Counting()) == 0
    assert read(chosen.out)[0]["image-id"].tolist() == ["a"]
    assert not [file.name for file in (chosen.out / "a").iterdir() if file.name.startswith(".")]


def test_masks_beside_the_slides_are_no_slides(folder, masks, tmp_path):
    shutil.copy(masks / "a_tissue.tif", folder)
    assert [file.stem for file in find_slides(folder, tmp_path / "out")] == [
        "a",
        "b",
        "blank",
        "cut",
        "nompp",
    ]
