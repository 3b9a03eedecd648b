"""``infection-mt prepare``: everything is looked at, good stacks go on, the verdict is in the exit code."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from infection_mt.config import Config
from infection_mt.data.audit import audit, drift_table, illumination_warnings, page_statistics
from infection_mt.data.stacks import load_stacks
from infection_mt.synthetic import SyntheticParams, generate
from medshared.files import read_json

WINDOWS = {"infected_window_hours": [4, 48], "uninfected_window_hours": [0, 48], "frames_per_hour": 0.25}
FILES = ("stacks.csv", "splits.json", "overlaps.csv", "drift.csv", "contact_sheet.png", "report.html")


@pytest.fixture
def configured(tmp_path):
    """(data, configuration) of a synthetic set."""

    def make(variant="plain", n=5, frames=WINDOWS, data=None, **sections):
        keys = {"wells_per_class": 2} if variant == "plain" else {}
        made = generate(tmp_path / "data", SyntheticParams(n, n_pages=6, size=32, variant=variant, **keys))
        plain = {
            "output_dir": tmp_path / "outputs",
            "data": {
                "infected_dir": made.infected_dir,
                "uninfected_dir": made.uninfected_dir,
                "split_ratios": [0.6, 0.2, 0.2],
                "num_workers": 0,
                "transforms": {"image_size": 16},
                "frames": frames,
                **(data or {}),
            },
            **sections,
        }
        return made, Config.model_validate(plain)

    return make


def test_sound_data(configured, tmp_path):
    _, config = configured()
    output = tmp_path / "prepare"
    assert audit(config, output) == 0
    assert {path.name for path in output.iterdir()} == set(FILES)
    stacks = pd.read_csv(output / "stacks.csv")
    assert list(stacks.columns) == [
        "path", "condition", "label", "plate", "well", "position", "n_frames", "shape", "dtype", "split"
    ]  # fmt: skip
    assert len(stacks) == 10
    assert set(stacks["shape"]) == {"32x32"}
    assert set(stacks["n_frames"]) == {6}
    sides = read_json(output / "splits.json")
    assert {side: len(files) for side, files in sides.items()} == {"train": 6, "val": 2, "test": 2}
    for side, files in sides.items():
        assert set(stacks.loc[stacks["split"] == side, "path"]) == set(files)
    assert len(pd.read_csv(output / "drift.csv")) == 20
    assert len(list((tmp_path / "outputs" / "frame_cache").glob("*.npy"))) == 10
    page = (output / "report.html").read_text()
    assert "ready to train" in page
    assert "data:image/png" in page
    assert "share wells" in page
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.width > 500
        assert sheet.height > 1000  # three stacks of each class


@pytest.mark.parametrize("cache", ["disk", "off"])
def test_a_bad_stack_is_named_and_the_others_go_on(configured, tmp_path, cache):
    made, config = configured("truncated", data={"cache": cache})
    assert made.infected_dir.is_dir()
    rgba = made.uninfected_dir / "synth_s5_c4_p9_t0-5_ec.tiff"
    tifffile.imwrite(rgba, np.zeros((2, 8, 8, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"])
    output = tmp_path / "prepare"
    assert audit(config, output) == 1
    bad = pd.read_csv(output / "bad_stacks.csv")
    assert set(bad["path"]) == {str(made.faulty[0]), str(rgba)}
    assert bad["page"].isna().all()
    reasons = dict(zip(bad["path"], bad["reason"], strict=True))
    assert "cut off" in reasons[str(made.faulty[0])]
    assert "RGBA; drop the alpha channel" in reasons[str(rgba)]
    assert len(pd.read_csv(output / "stacks.csv")) == 9
    assert made.faulty[0].name in (output / "report.html").read_text()
    assert len(list((tmp_path / "outputs" / "frame_cache").glob("*.npy"))) == (9 if cache == "disk" else 0)


@pytest.mark.parametrize(("first_hour", "code"), [(4, 1), (16, 0)])
def test_a_bad_page_stops_a_run_only_when_a_window_holds_it(configured, tmp_path, first_hour, code):
    made, config = configured("nan", frames={**WINDOWS, "infected_window_hours": [first_hour, 48]})
    output = tmp_path / "prepare"
    assert audit(config, output) == code
    bad = pd.read_csv(output / "bad_stacks.csv")
    assert bad[["path", "page"]].to_numpy().tolist() == [[str(made.faulty[0]), 3]]  # hour 12
    assert ("data.frames chooses a page" in (output / "report.html").read_text()) == bool(code)


def test_a_missing_file_of_a_manifest_and_an_impossible_split(configured, tmp_path):
    made, _ = configured(n=2)
    text = made.manifest.read_text() + "gone.tif,infected,plate1,b2,7,1.0,1\n"
    made.manifest.write_text(text)
    config = Config.model_validate(
        {
            "output_dir": tmp_path / "outputs",
            "data": {
                "manifest": made.manifest,
                "num_workers": 0,
                "transforms": {"image_size": 16},
                "frames": WINDOWS,
            },
        }
    )
    assert audit(config, tmp_path / "prepare") == 1
    page = (tmp_path / "prepare" / "report.html").read_text()
    assert "gone.tif" in page
    assert "the val side has no stack" in page
    assert read_json(tmp_path / "prepare" / "splits.json") == {}


def test_folds_overlaps_and_duplicates(configured, tmp_path):
    made, config = configured(n=6, cv={"num_folds": 3})
    twin = made.infected_dir / "synth_s5_b9_p1_t0-5_ec.tiff"
    twin.write_bytes(sorted(made.infected_dir.iterdir())[0].read_bytes())
    output = tmp_path / "prepare"
    audit(config, output, duplicates=True)
    folds = read_json(output / "splits.json")
    assert list(folds) == ["fold_1", "fold_2", "fold_3"]
    tested = [path for fold in folds.values() for path in fold["test"]]
    assert len(tested) == len(set(tested)) == 13
    assert {"split_fold_1", "split_fold_3"} < set(pd.read_csv(output / "stacks.csv").columns)
    assert twin.name in (output / "dedup_removed.jsonl").read_text()
    assert "Stacks that look alike" in (output / "report.html").read_text()


def test_page_statistics_are_those_of_a_plane():
    y, x = np.mgrid[-0.5:0.5:30j, -0.5:0.5:40j]
    mean, right, down = page_statistics(200 + 50 * x - 20 * y)
    assert (mean, right, down) == pytest.approx((200, 0.25, -0.1))
    assert page_statistics(np.zeros((4, 4))) == (0, 0, 0)


def test_illumination_that_gives_the_class_away_is_said(tmp_path):
    for variant, expected in (("plain", 0), ("confounded", 1)):
        made = generate(tmp_path / variant, SyntheticParams(6, n_pages=2, size=32, variant=variant))
        data = {"infected_dir": made.infected_dir, "uninfected_dir": made.uninfected_dir}
        stacks = load_stacks(Config.model_validate({"data": data}).data)
        warnings = illumination_warnings(drift_table(stacks))
        assert len(warnings) == expected, warnings
        assert all("left to right" in text for text in warnings)
