"""``advmil prepare`` from slides to graphs, and what it does with bad slides and interrupted runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from advmil.cli import main
from advmil.errors import DataError
from advmil.prepare.options import STEPS
from advmil.prepare.pipeline import Preparation, run
from advmil.prepare.process_list import SlideParameters
from medshared.bags import read_bag, read_coordinates
from medshared.command_line import STOPPED
from medshared.leases import Shard
from medshared.slides import CLAM_PRESETS, ClamSegmentation

GOLDEN = Path(__file__).parents[1] / "golden"


def words(outcomes, step: str | None = None) -> dict[str, str]:
    """Return item → status of a step, or of the last step each item came to."""
    return {o.item: o.status for o in outcomes if step in (None, o.step)}


def cohort_table(path: Path, patients: dict[str, list[str]]) -> Path:
    rows = [(slide, patient, 1, 100.0) for patient, slides in patients.items() for slide in slides]
    pd.DataFrame(rows, columns=["pathology_id", "patient_id", "e", "t"]).to_csv(path, index=False)
    return path


def test_all_steps(put, plan, tmp_path: Path):
    put(a="tissue", b="other")
    table = cohort_table(tmp_path / "table.csv", {"p": ["b", "a"]})
    p = plan(steps=STEPS, table=table, clusters=3)
    outcomes, code = run(p)
    assert code == 0
    assert set(words(outcomes).values()) == {"done"}
    out = tmp_path / "out"
    big = read_coordinates(out / "tiles-l2-s16" / "patches" / "a.h5")
    small = read_coordinates(out / "tiles-l1-s16" / "patches" / "a.h5")
    assert len(small.xy) == 16 * len(big.xy) >= 16 * 9
    assert (small.attributes["patch_level"], small.attributes["downsample"]) == (1, [4.0, 4.0])
    bags = {slide: read_bag(out / "feat-l1-synthetic" / "h5_files" / f"{slide}.h5") for slide in "ab"}
    np.testing.assert_array_equal(bags["a"].coordinates, small.xy)
    labels = np.load(out / "patch-l1-cluster3-ids" / "p.npy", allow_pickle=False)
    assert len(labels) == len(bags["a"].features) + len(bags["b"].features)
    graph = torch.load(out / "wsigraph-l1-features" / "a.pt", weights_only=True)
    np.testing.assert_array_equal(graph["x"].numpy(), bags["a"].features)
    for kind in ("masks", "stitches"):
        assert (out / "tiles-l2-s16" / kind / "a.jpg").is_file()
    for folder in ("tiles-l2-s16", "tiles-l1-s16"):
        listed = pd.read_csv(out / folder / "process_list_autogen.csv")
        assert listed["slide_id"].tolist() == ["a.svs", "b.svs"]
        assert listed["status"].tolist() == ["processed"] * 2
    again, code = run(p)
    assert (code, set(words(again).values())) == (0, {"skipped"})


def test_golden_patches_of_clams_parameters(plan, golden_npz, golden_json, tmp_path: Path):
    """The golden slide through the pipeline gives CLAM's coordinates in CLAM's order, and its attributes."""
    (tmp_path / "slides").mkdir()
    os.link(GOLDEN / "clam_slide.tiff", tmp_path / "slides" / "clam_slide.tiff")
    own = {"bwh_biopsy": CLAM_PRESETS["bwh_biopsy"], "small_area": ClamSegmentation(a_t=1, a_h=0)}
    for name, segmentation in own.items():
        for contour_fn in ("four_pt", "four_pt_hard", "center", "basic"):
            key = f"{name}__l2_p16_s16_{contour_fn}_pad"
            if key not in golden_npz("clam_coords"):
                continue
            parameters = SlideParameters(segmentation, contour_fn=contour_fn)
            p = plan(steps=("segment", "patch"), tissue="clam", parameters=parameters)
            assert run(p)[1] == 0
            found = read_coordinates(p.tiles / "patches" / "clam_slide.h5")
            np.testing.assert_array_equal(found.xy, golden_npz("clam_coords")[key], err_msg=key)
    expected = golden_json("clam_coords")["attrs_example"] | {"save_path": str(p.tiles / "patches")}
    assert found.attributes == expected


def test_bad_slides_stop_nothing(put, plan, tmp_path: Path):
    """Truncated, no slide at all, gone, and blank: each is in the report, the whole one is done."""
    folder = put(good="tissue", cut="tissue", blank="blank")
    whole = (folder / "cut.svs").read_bytes()
    (folder / "cut.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "text.svs").write_text("no slide")
    (folder / "gone.svs").symlink_to(folder / "nowhere.svs")
    (folder / "._good.svs").write_text("what some systems leave beside files")
    outcomes, code = run(plan())
    assert code == 1
    assert words(outcomes, "features") == {"good": "done"}
    expected = {"good": "done", "cut": "failed", "blank": "empty", "text": "failed", "gone": "failed"}
    assert words(outcomes) == expected
    report = json.loads((tmp_path / "out" / "prepare-report.json").read_text())
    failed = {entry["item"]: entry["message"] for entry in report["failed"]}
    assert set(failed) == {"cut", "text", "gone"}
    assert all(f"{item}.svs" in message for item, message in failed.items())
    listed = pd.read_csv(tmp_path / "out" / "tiles-l2-s16" / "process_list_autogen.csv").set_index("slide_id")
    assert listed["status"].to_dict() == {
        "good.svs": "processed",
        "blank.svs": "processed",
        "cut.svs": "failed_seg",
        "text.svs": "failed_seg",
        "gone.svs": "failed_seg",
    }
    assert not list(tmp_path.rglob("*.tmp")) + list(tmp_path.rglob("*.lock"))


def test_a_slide_that_cannot_be_decoded_is_not_blank(put, plan, damage):
    """All tiles of the level that is segmented are damaged: a failure, not a slide without tissue."""
    slide = put(a="tissue") / "a.svs"
    for level, tiles in ((0, 16), (1, 4), (2, 1)):
        damage(slide, [(x, y) for x in range(tiles) for y in range(tiles)], level)
    outcomes, code = run(plan(steps=("segment",)))
    assert (code, words(outcomes)) == (1, {"a": "failed"})
    assert "no tissue found, but" in outcomes[0].message


def test_fault_share(put, plan, damage, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    damage(slide, [(2, 2)], 1)
    assert words(run(plan())[0], "features") == {"a": "failed"}
    outcomes, code = run(plan(features={"max_fault_share": 0.5}))
    assert (code, words(outcomes, "features")) == (0, {"a": "done"})
    bag = read_bag(tmp_path / "out" / "feat-l1-synthetic" / "pt_files" / "a.pt")
    whole = read_coordinates(tmp_path / "out" / "tiles-l1-s16" / "patches" / "a.h5").xy
    assert len(bag.features) % 16 == 0
    assert 0 < len(whole) - len(bag.features) <= 64


def test_tampered_outputs_are_made_again(put, plan, tmp_path: Path):
    put(a="tissue")
    p = plan()
    run(p)
    features = p.feature_folder / "pt_files" / "a.pt"
    before = features.read_bytes()
    features.write_bytes(before[:-10] + bytes(10))
    assert words(run(p)[0], "features") == {"a": "done"}
    assert features.read_bytes() == before
    # Coordinates that were cut off are made again, and nothing after them changes.
    coordinates = p.tiles / "patches" / "a.h5"
    coordinates.write_bytes(coordinates.read_bytes()[:500])
    outcomes, code = run(p)
    assert code == 0
    assert words(outcomes, "patch") == {"a": "done"}
    assert words(outcomes, "segment") == {"a": "skipped"}
    # A slide that was replaced is done from the start.
    put(a="other")
    os.utime(tmp_path / "slides" / "a.svs", (1, 1))
    assert set(words(run(p)[0]).values()) == {"done"}


def test_truncated_coordinates_fail_their_slide_only(put, plan):
    put(a="tissue", b="other")
    run(plan(steps=("segment", "patch", "regions")))
    path = plan().small_tiles / "patches" / "a.h5"
    path.write_bytes(path.read_bytes()[:500])
    outcomes, code = run(plan(steps=("features",)))
    assert (code, words(outcomes)) == (1, {"a": "failed", "b": "done"})
    assert "not a whole HDF5 file" in outcomes[0].message


def test_contours_corrected_by_hand_are_kept(put, plan):
    """Half of the tissue is taken away in another program: the next run cuts patches in what is left."""
    put(a="tissue")
    p = plan(steps=("segment", "patch"))
    run(p)
    path = p.tiles / "contours" / "a.geojson"
    before = len(read_coordinates(p.tiles / "patches" / "a.h5").xy)
    content = json.loads(path.read_text())
    features = content["features"] if isinstance(content, dict) else content
    square = [[128, 128], [512, 128], [512, 384], [128, 384], [128, 128]]
    features[0]["geometry"] = {"type": "Polygon", "coordinates": [square]}
    path.write_text(json.dumps(content))
    outcomes, _ = run(p)
    assert (words(outcomes, "segment"), words(outcomes, "patch")) == ({"a": "skipped"}, {"a": "done"})
    assert 0 < len(read_coordinates(p.tiles / "patches" / "a.h5").xy) < before
    path.write_text("{ cut off")
    outcomes, _ = run(p)
    assert words(outcomes) == {"a": "done"}
    assert len(read_coordinates(p.tiles / "patches" / "a.h5").xy) == before


def test_parameters_without_tissue_remove_old_patches(put, plan):
    put(a="tissue")
    run(plan(steps=("segment", "patch")))
    strict = SlideParameters(ClamSegmentation(a_t=1000))
    outcomes, code = run(plan(steps=("segment", "patch"), tissue="clam", parameters=strict))
    assert (code, words(outcomes)) == (0, {"a": "empty"})
    assert not (plan().tiles / "patches" / "a.h5").exists()


def test_process_list(put, plan, tmp_path: Path, caplog):
    """Rows with process 0 and slides that are not listed are left out; a slide that is gone fails by itself."""
    put(a="tissue", b="other", c="tissue", d="unspaced")
    (tmp_path / "list.csv").write_text(
        "slide_id,process,a_t,contour_fn,spacing_um\na.svs,1,0.1,center,0.25\nb.svs,0,,,\ngone.svs,1,,,\nd.svs,1,0.1,,0.5\n"
    )
    p = plan(process_list=tmp_path / "list.csv", tissue="clam")
    outcomes, code = run(p)
    assert code == 1
    assert words(outcomes) == {"a": "done", "gone": "failed", "d": "done"}
    spacings = {s: read_bag(p.feature_folder / "h5_files" / f"{s}.h5").attributes.spacing_um for s in "ad"}
    assert spacings == {"a": 1.0, "d": 2.0}
    listed = pd.read_csv(p.tiles / "process_list_autogen.csv").set_index("slide_id")
    assert listed["process"].to_dict() == {"a.svs": 0, "b.svs": 0, "gone.svs": 0, "d.svs": 0}
    assert listed["status"].to_dict() == {
        "a.svs": "processed",
        "b.svs": "tbp",
        "gone.svs": "failed_seg",
        "d.svs": "processed",
    }
    run(plan(process_list=tmp_path / "list.csv", steps=("segment",)))
    assert "have no effect with --tissue otsu" in caplog.text
    (tmp_path / "list.csv").write_text("slide_id,process\na.svs,0\n")
    with pytest.raises(DataError, match=r"list\.csv: no slide to do"):
        run(p)


def test_spacing_of_slides_that_do_not_say(put, plan):
    put(a="unspaced", b="tissue")
    p = plan(spacing_um=0.25)
    assert run(p)[1] == 0
    found = {s: read_bag(p.feature_folder / "h5_files" / f"{s}.h5").attributes.spacing_um for s in "ab"}
    assert found == {"a": 1.0, "b": 2.0}


def test_same_stem_twice(put, plan, tmp_path: Path):
    put(a="tissue")
    put(".tif", a="other")
    with pytest.raises(DataError, match=r"several slides of one name \(a\.svs, a\.tif\)"):
        run(plan())
    assert not (tmp_path / "out").exists()
    assert words(run(plan(slide_suffix="svs", steps=("segment",)))[0]) == {"a": "done"}


def test_level_beyond_the_slide(put, plan):
    put(a="tissue")
    outcomes, code = run(plan(patch_level=4))
    assert (code, words(outcomes)) == (1, {"a": "failed"})
    assert "a.svs: patch_level is 4, but the slide has levels 0–2" in outcomes[-1].message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_level": 0}, "--patch-level 0: the step regions needs a finer level"),
        ({"steps": ("clusters",)}, "the step clusters needs --table"),
        ({"steps": ("features",)}, "which the step features needs; run patch and regions first"),
        ({"steps": ("regions",)}, "which the step regions needs; run patch first"),
        ({"patch_size": 0}, "--patch-size 0: expected at least 1"),
        ({"transform": "sharp"}, "transform 'sharp': expected one of"),
        ({"weights": None}, "encoder 'synthetic' needs --weights"),
        ({"slide_suffix": ".ndpi"}, r"no slides here; expected files ending in \.ndpi"),
        ({"slides": Path("nowhere")}, "nowhere: no such folder of slides"),
    ],
)
def test_mistakes_are_told_before_the_first_slide(put, plan, tmp_path: Path, changes, message):
    put(a="tissue")
    with pytest.raises(ValueError, match=message):
        run(plan(**changes))
    assert not (tmp_path / "out").exists()


def test_patches_without_regions(put, plan):
    put(a="tissue")
    p = plan(steps=("segment", "patch", "features"), patch_level=1)
    assert run(p)[1] == 0
    assert p.feature_folder.name == "feat-l1-synthetic"
    bag = read_bag(p.feature_folder / "h5_files" / "a.h5")
    assert bag.attributes.patch_size_level0 == 64


def test_single_patch(put, plan, tmp_path: Path):
    """One patch is one bag; a graph needs two, and says so."""
    put(a="tissue")
    p = plan(steps=("segment", "patch", "features", "graphs"), patch_size=56, patch_level=2)
    outcomes, code = run(p)
    assert words(outcomes, "features") == {"a": "done"}
    assert len(read_bag(p.feature_folder / "pt_files" / "a.pt").features) == 1
    assert (code, words(outcomes, "graphs")) == (1, {"a": "failed"})
    assert "1 patch: a graph needs at least 2" in outcomes[-1].message


def test_settings_that_change_the_features_make_them_again(put, plan):
    put(a="tissue")
    run(plan())
    for features, status in (
        ({"batch_size": 3}, "skipped"),
        ({"half": True}, "done"),
        ({"half": True, "target_px": 8}, "done"),
    ):
        assert words(run(plan(features=features))[0], "features") == {"a": status}
    stored = read_bag(plan().feature_folder / "h5_files" / "a.h5").features
    assert stored.dtype == np.float16
    first = run(plan(transform="light", seed=1))[0]
    again = run(plan(transform="light", seed=2))[0]
    assert words(first, "features") == words(again, "features") == {"a": "done"}
    assert plan(transform="light").feature_folder.name == "feat-l1-synthetic-light"


def test_shards_cover_everything_once(put, plan, tmp_path: Path):
    """Also where a slide fails in an early step: the others stay with the shard that began them."""
    folder = put(a="tissue", c="other", d="tissue", e="other")
    (folder / "b.svs").write_text("no slide")
    table = cohort_table(tmp_path / "table.csv", {"p": ["a", "c"], "q": ["d", "e"]})
    shards = [Shard.parse("1/2"), Shard.parse("2/2")]
    steps = ("segment", "patch", "regions", "features", "clusters")
    done = [run(plan(shard=shard, steps=steps, table=table, clusters=2))[0] for shard in shards]
    encoded = [words(outcomes, "features") for outcomes in done]
    assert [sorted(each) for each in encoded] == [["a", "c", "e"], ["d"]]
    assert set(encoded[0].values()) | set(encoded[1].values()) == {"done"}
    # A patient with slides in both shards waits for the second one; nothing fails for it.
    assert words(done[0], "clusters") == {"p": "done", "q": "busy"}
    assert words(done[1], "clusters") == {"q": "done"}
    for number in (1, 2):
        assert (tmp_path / "out" / f"prepare-report-{number}-of-2.json").is_file()
    listed = pd.read_csv(tmp_path / "out" / "tiles-l2-s16" / "process_list_autogen.csv").set_index("slide_id")
    assert listed["status"]["b.svs"] == "failed_seg"
    assert (listed["status"].drop("b.svs") == "processed").all()


def test_clusters_of_a_patient_whose_slide_is_missing(put, plan, tmp_path: Path):
    put(a="tissue")
    table = cohort_table(tmp_path / "table.csv", {"p": ["a", "lost"]})
    outcomes, code = run(plan(steps=("segment", "patch", "features", "clusters"), table=table))
    assert (code, words(outcomes, "clusters")) == (1, {"p": "failed"})
    assert "no feature files of lost, which the table gives to patient p" in outcomes[-1].message


PREPARE = "import sys; from advmil.cli import main; sys.exit(main(sys.argv[1:]))"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def command(p: Preparation) -> list[str]:
    base = ["prepare", str(p.slides), "--output", str(p.output), "--patch-size", "16", "--device", "cpu"]
    return [*base, "--encoder", "synthetic", "--weights", str(p.weights), "--steps", *p.steps]


def test_killed_run_is_continued(put, plan, tmp_path: Path):
    """kill -9 while slides are in work: what exists is whole, and the next run does the rest."""
    put(**{f"s{i:02}": ("tissue", "other")[i % 2] for i in range(10)})
    p = plan(steps=("segment", "patch", "regions"))
    job = start(command(p))
    deadline = time.monotonic() + 300  # a loaded machine starts a process slowly
    while not (p.tiles / "contours" / "s02.geojson").exists():
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    job.kill()
    job.communicate()
    finished = {path.stem for path in (p.tiles / "contours").glob("*.geojson")}
    for stem in finished:
        json.loads((p.tiles / "contours" / f"{stem}.geojson").read_text())
    assert finished
    outcomes, code = run(plan())
    assert code == 0
    again = words(outcomes, "segment")
    assert sum(status == "skipped" for status in again.values()) >= len(finished) - 1
    assert set(words(outcomes, "features").values()) == {"done"}
    assert not list(tmp_path.rglob("*.lock"))
    assert not [path for path in (p.tiles / "contours").iterdir() if path.suffix == ".tmp"]


def test_two_runs_share_the_work(put, plan):
    """Side by side on one folder: each slide is done by one of them, and who ends while the other works says so."""
    put(**{f"s{i}": ("tissue", "other")[i % 2] for i in range(6)})
    p = plan(steps=("segment", "patch", "regions"))
    jobs = [start(command(p)) for _ in range(2)]
    said = [job.communicate(timeout=100) for job in jobs]
    assert sorted(job.returncode for job in jobs) in ([0, 0], [0, STOPPED]), said
    assert len(list((p.small_tiles / "patches").glob("*.h5"))) == 6
    outcomes, _ = run(p)
    assert set(words(outcomes).values()) == {"skipped"}


def test_command_line(put, plan, encoder_file, capsys):
    put(a="tissue")
    p = plan()
    assert main([*command(p), "--half", "--target-patch-size", "8", "--jobs", "2"]) == 0
    assert read_bag(p.feature_folder / "pt_files" / "a.pt").features.dtype == np.float16
    assert main([*command(p), "--preset", "tgca"]) == 1
    assert "preset 'tgca': expected one of" in capsys.readouterr().err
    assert main([*command(p), "--shard", "3/2"]) == 1
    assert "shard 3/2 does not exist" in capsys.readouterr().err


def test_coordinates_are_clams(put, plan):
    put(a="tissue")
    p = plan(steps=("segment", "patch"))
    run(p)
    with h5py.File(p.tiles / "patches" / "a.h5") as file:
        data = file["coords"]
        assert data.dtype == np.int64
        assert set(data.attrs) == {
            "patch_size",
            "patch_level",
            "downsample",
            "downsampled_level_dim",
            "level_dim",
            "name",
            "save_path",
        }
