"""CLAM's two scripts: flags, layout, list and statuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from advmil.prepare import clam_scripts
from advmil.prepare.clam_scripts import create_patches_fp, extract_features_fp
from medshared.bags import read_bag, read_coordinates

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = ("--seg", "--patch", "--stitch")


@pytest.fixture
def create(tmp_path: Path) -> Callable[..., int]:
    def run(*extra: str, level: int = 2) -> int:
        base = ["--source", str(tmp_path / "slides"), "--save_dir", str(tmp_path / "tiles")]
        own = ["--patch_size", "16", "--step_size", "16", "--patch_level", str(level), "--preset", "mine.csv"]
        return create_patches_fp([*base, *own, *extra])

    return run


@pytest.fixture(autouse=True)
def _preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset for tiny slides, in ``presets/`` of the working directory as CLAM has it."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.csv").write_text("a_t,a_h,line_thickness\n0.1,0,24\n")
    monkeypatch.chdir(tmp_path)


def listed(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "process_list_autogen.csv").set_index("slide_id")


def test_golden_patches(tmp_path: Path, golden_npz):
    """CLAM's preset for biopsies on the golden slide gives CLAM's coordinates in CLAM's order."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "clam_slide.tiff").write_bytes((GOLDEN / "clam_slide.tiff").read_bytes())
    code = create_patches_fp(
        [
            "--source",
            "slides",
            "--save_dir",
            "tiles",
            "--patch_size",
            "16",
            "--step_size",
            "16",
            "--patch_level",
            "2",
            "--preset",
            "bwh_biopsy.csv",
            *ALL,
        ]
    )
    assert code == 0
    found = read_coordinates(tmp_path / "tiles" / "patches" / "clam_slide.h5").xy.tolist()
    assert found == golden_npz("clam_coords")["bwh_biopsy__l2_p16_s16_four_pt_pad"].tolist()


def test_layout_and_statuses(put, create, tmp_path: Path):
    folder = put(a="tissue", blank="blank")
    (folder / "cut.svs").write_text("no slide")
    tiles = tmp_path / "tiles"
    assert create(*ALL) == 1
    for kind, suffix in (("patches", "h5"), ("masks", "jpg"), ("stitches", "jpg")):
        assert (tiles / kind / f"a.{suffix}").is_file()
    assert not (tiles / "patches" / "blank.h5").exists()
    expected = {"a.svs": "processed", "blank.svs": "processed", "cut.svs": "failed_seg"}
    assert listed(tiles)["status"].to_dict() == expected
    assert not listed(tiles)["process"].any()
    (folder / "cut.svs").unlink()
    made = (tiles / "patches" / "a.h5").stat().st_mtime_ns
    assert create(*ALL) == 0
    assert listed(tiles)["status"].to_dict() == {"a.svs": "already_exist", "blank.svs": "processed"}
    assert (tiles / "patches" / "a.h5").stat().st_mtime_ns == made
    assert create(*ALL, "--no_auto_skip") == 0
    assert listed(tiles)["status"]["a.svs"] == "processed"
    assert (tiles / "patches" / "a.h5").stat().st_mtime_ns > made


def test_files_of_clam_itself_are_skipped(put, create, tmp_path: Path):
    put(a="tissue")
    create(*ALL)
    for sidecar in (tmp_path / "tiles" / "patches").glob("*.done.json"):
        sidecar.unlink()
    assert create(*ALL) == 0
    assert listed(tmp_path / "tiles")["status"].to_dict() == {"a.svs": "already_exist"}


def test_list_is_rewritten_before_every_slide(put, create, tmp_path: Path, monkeypatch):
    """A reader beside the run sees what is done and what is still to do."""
    put(a="tissue", b="blank", c="other")
    seen: list[list[str]] = []
    real = clam_scripts.attempt

    def watched(*arguments, **options):
        seen.append(listed(tmp_path / "tiles")["status"].tolist())
        return real(*arguments, **options)

    monkeypatch.setattr(clam_scripts, "attempt", watched)
    create(*ALL)
    assert seen == [["tbp"] * 3, ["processed", "tbp", "tbp"], ["processed", "processed", "tbp"]]
    assert listed(tmp_path / "tiles")["status"].tolist() == ["processed"] * 3


def test_edited_list(put, create, tmp_path: Path):
    """Own parameters and µm per pixel of one slide; rows with process 0 are left out."""
    put(a="tissue", b="tissue", c="unspaced")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "mine.csv").write_text(
        "slide_id,process,a_t,use_padding,spacing_um\na.svs,1,1000,,\nb.svs,0,,,\nc.svs,1,,False,0.5\n"
    )
    assert create(*ALL, "--process_list", "mine.csv") == 0
    tiles = tmp_path / "tiles"
    assert [path.name for path in sorted((tiles / "patches").glob("*.h5"))] == ["c.h5"]
    frame = listed(tiles)
    assert frame["status"].to_dict() == {"a.svs": "processed", "b.svs": "tbp", "c.svs": "processed"}
    assert (frame["a_t"]["a.svs"], frame["use_padding"]["c.svs"], frame["spacing_um"]["c.svs"]) == (
        1000,
        False,
        0.5,
    )


def test_patches_from_contours_of_an_earlier_run(put, create, tmp_path: Path):
    put(a="tissue")
    tiles = tmp_path / "tiles"
    assert create("--seg") == 0
    assert (tiles / "masks" / "a.jpg").is_file()
    assert not (tiles / "patches").exists()
    assert create("--patch") == 0
    assert not (tiles / "stitches").exists()
    assert create("--stitch") == 0
    assert (tiles / "stitches" / "a.jpg").is_file()


def test_mistakes(put, create, tmp_path: Path, capsys):
    put(a="tissue")
    assert create() == 1
    assert "nothing to do: give --seg, --patch and --stitch" in capsys.readouterr().err
    assert create(*ALL, level=7) == 1
    assert listed(tmp_path / "tiles")["status"].to_dict() == {"a.svs": "failed"}
    assert create(*ALL, "--process_list", "absent.csv") == 1
    assert "absent.csv: no such process list" in capsys.readouterr().err


@pytest.fixture
def extract(tmp_path: Path, encoder_file: Path) -> Callable[..., int]:
    def run(*extra: str, csv: Path | None = None) -> int:
        folders = ["--data_h5_dir", str(tmp_path / "tiles"), "--data_slide_dir", str(tmp_path / "slides")]
        path = csv or tmp_path / "tiles" / "process_list_autogen.csv"
        rest = ["--csv_path", str(path), "--feat_dir", str(tmp_path / "feat"), "--model_name", "synthetic"]
        return extract_features_fp(
            [*folders, *rest, "--weights", str(encoder_file), "--device", "cpu", *extra]
        )

    return run


def test_features(put, create, extract, tmp_path: Path, caplog):
    """Slides of the list; blank ones without coordinates are skipped with a message."""
    put(a="tissue", blank="blank")
    create(*ALL)
    assert extract() == 0
    bag = read_bag(tmp_path / "feat" / "h5_files" / "a.h5")
    expected = read_coordinates(tmp_path / "tiles" / "patches" / "a.h5").xy.tolist()
    assert bag.coordinates is not None
    assert bag.coordinates.tolist() == expected
    assert (tmp_path / "feat" / "pt_files" / "a.pt").is_file()
    assert "blank.h5: no such file, so the slide is skipped" in caplog.text
    made = (tmp_path / "feat" / "pt_files" / "a.pt").stat().st_mtime_ns
    assert extract() == 0
    assert (tmp_path / "feat" / "pt_files" / "a.pt").stat().st_mtime_ns == made
    assert extract("--no_auto_skip") == 0
    assert (tmp_path / "feat" / "pt_files" / "a.pt").stat().st_mtime_ns > made
    assert extract("--target_patch_size", "8") == 0  # other settings, other features
    changed = read_bag(tmp_path / "feat" / "h5_files" / "a.h5").features
    assert (changed != bag.features).any()
    assert extract("--custom_downsample", "2", "--no_auto_skip") == 0
    assert (read_bag(tmp_path / "feat" / "h5_files" / "a.h5").features == changed).all()


def test_list_of_other_forms(put, create, extract, tmp_path: Path):
    """A bare list without extensions, one slide of another format, and one that is gone."""
    put(a="tissue")
    put(".tif", b="other")
    create(*ALL)
    csv = tmp_path / "bare.csv"
    csv.write_text("slide_id\na\nb.tif\ngone\n")
    (tmp_path / "tiles" / "patches" / "gone.h5").write_bytes(
        (tmp_path / "tiles" / "patches" / "a.h5").read_bytes()
    )
    assert extract(csv=csv) == 1
    assert sorted(path.stem for path in (tmp_path / "feat" / "pt_files").glob("*.pt")) == ["a", "b"]


def test_models_without_weights(put, create, extract, tmp_path: Path, capsys):
    put(a="tissue")
    create(*ALL)
    for model, message in (("uni_v1", "pytorch_model.bin"), ("conch_v1", "not in timm")):
        base = [
            "--data_h5_dir",
            "tiles",
            "--data_slide_dir",
            "slides",
            "--feat_dir",
            "feat",
            "--device",
            "cpu",
        ]
        code = extract_features_fp(
            [*base, "--csv_path", "tiles/process_list_autogen.csv", "--model_name", model]
        )
        assert code == 1
        assert message in capsys.readouterr().err
