"""The original's three tools under their names and arguments."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from advmil.prepare.tools import big_to_small_patching, deepattnmisl_cluster, patchgcn_graph_s2
from medshared.bags import ClamAttributes, read_coordinates, write_clam_bag, write_coordinates

PACKAGE = Path(__file__).parents[2]
BIG = ClamAttributes(256, 2, (16.0, 16.0), (4000, 3000), (4000, 3000), "s", "o")


@pytest.fixture
def tiles(tmp_path: Path, golden_npz) -> Path:
    """CLAM's folder of big patches of two slides, with its list."""
    folder = tmp_path / "tiles-l2-s256"
    for name in ("s", "t"):
        write_coordinates(folder / "patches" / f"{name}.h5", golden_npz("tools")["b2s_in"], BIG)
    (folder / "process_list_autogen.csv").write_text("slide_id\ns.svs\nt.svs\n")
    return folder


def test_big_to_small(tiles: Path, tmp_path: Path, golden_npz):
    """The original's own command: it reads patches/, writes patches/ and copies the list."""
    out = tmp_path / "tiles-l1-s256"
    assert big_to_small_patching([str(tiles), str(out)]) == 0
    for name in ("s", "t"):
        found = read_coordinates(out / "patches" / f"{name}.h5")
        np.testing.assert_array_equal(found.xy, golden_npz("tools")["b2s_corrected"])
        assert found.attributes["save_path"] == str(out / "patches")
    assert (out / "process_list_autogen.csv").read_text() == "slide_id\ns.svs\nt.svs\n"


def test_big_to_small_of_a_folder_of_files(tiles: Path, tmp_path: Path, golden_npz):
    out = tmp_path / "out"
    assert big_to_small_patching([str(tiles / "patches"), str(out), "--legacy_offsets", "--only", "t"]) == 0
    found = read_coordinates(out / "patches" / "t.h5").xy
    np.testing.assert_array_equal(found, golden_npz("tools")["b2s_original"])
    assert sorted(path.name for path in (out / "patches").glob("*.h5")) == ["t.h5"]
    assert (out / "process_list_autogen.csv").is_file()  # that of the folder above


def test_big_to_small_leaves_a_bad_file_behind(tiles: Path, tmp_path: Path):
    (tiles / "patches" / "s.h5").write_bytes(b"cut off")
    assert big_to_small_patching([str(tiles), str(tmp_path / "out"), "--jobs", "2"]) == 1
    assert (tmp_path / "out" / "patches" / "t.h5").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tiles}", "{tiles}"], "is where the big patches are read from"),
        (["{tiles}/patches/none", "{tiles}/o"], r"no coordinate files (*.h5) here or in its patches/"),
        (["{tiles}", "{tiles}/o", "--only", "u"], "--only names u, which are not among the 2 items"),
    ],
)
def test_big_to_small_mistakes(tiles: Path, capsys, arguments, message):
    assert big_to_small_patching([text.replace("{tiles}", str(tiles)) for text in arguments]) == 1
    assert message in capsys.readouterr().err


def test_big_to_small_checks_the_scale(put, tmp_path: Path):
    slides = put(a="tissue")
    write_coordinates(
        tmp_path / "big" / "a.h5", [[0, 0]], ClamAttributes(16, 2, (8.0, 8.0), (1, 1), (1, 1), "a", "o")
    )
    base = [str(tmp_path / "big"), str(tmp_path / "out"), "--slide_dir", str(slides)]
    assert big_to_small_patching(base) == 1
    assert big_to_small_patching([*base, "--scale", "2"]) == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``<root>/NLST/processed`` with features of three slides of two patients, and the table."""
    processed = tmp_path / "data" / "NLST" / "processed"
    rng = np.random.default_rng(0)
    for n, slide in enumerate(("10", "11", "20")):
        xy = np.stack([np.arange(12 + n), np.zeros(12 + n, int)], axis=1) * 1024
        features = rng.standard_normal((12 + n, 4))
        write_clam_bag(processed / "feat-l1-RN50-B", slide, features, xy)
        write_coordinates(processed / "tiles-l1-s256" / "patches" / f"{slide}.h5", xy, BIG)
    rows = [("11", "p", 1, 5.0), ("20", "q", 0, 9.0), ("10", "p", 1, 5.0)]
    table = tmp_path / "work" / "table" / "nlst_path_full.csv"
    table.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["pathology_id", "patient_id", "e", "t"]).to_csv(table, index=False)
    (tmp_path / "work" / "tools").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize("where", ["work", "work/tools"])
def test_clusters(root: Path, tmp_path: Path, monkeypatch, where):
    """The table is found from the original's two working directories, whatever the case of the name."""
    monkeypatch.chdir(tmp_path / where)
    assert deepattnmisl_cluster(["NLST", "3", "--root", str(root)]) == 0
    folder = root / "NLST" / "processed" / "patch-l1-cluster3-ids"
    labels = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in "pq"}
    assert {name: len(each) for name, each in labels.items()} == {"p": 25, "q": 14}
    assert labels["p"].dtype == np.int32


def test_clusters_elsewhere(root: Path, tmp_path: Path):
    table = tmp_path / "work" / "table" / "nlst_path_full.csv"
    features = root / "NLST" / "processed" / "feat-l1-RN50-B" / "pt_files"
    (features / "10.pt").unlink()
    arguments = [
        "nlst",
        "8",
        "--table",
        str(table),
        "--feat_dir",
        str(features),
        "--save_dir",
        str(tmp_path / "ids"),
    ]
    assert deepattnmisl_cluster(arguments) == 1  # p lacks a slide
    assert [path.name for path in sorted((tmp_path / "ids").glob("*.npy"))] == ["q.npy"]
    assert deepattnmisl_cluster([*arguments, "--only", "q"]) == 0


def test_no_table(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert deepattnmisl_cluster(["LGG", "8"]) == 1
    assert (
        "no table of slides: tried table/lgg_path_full.csv, table/LGG_path_full.csv"
        in capsys.readouterr().err
    )


def test_graphs(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path / "work")
    assert patchgcn_graph_s2(["NLST", "--root", str(root)]) == 0
    folder = root / "NLST" / "processed" / "wsigraph-l1-features"
    assert [path.stem for path in sorted(folder.glob("*.pt"))] == ["10", "11", "20"]
    graph = torch.load(folder / "20.pt", weights_only=True)
    assert graph["edge_index"].shape == (2, 8 * 14)


def test_graphs_of_slides_with_undecodable_patches(root: Path, tmp_path: Path, monkeypatch):
    """Features lack two of the patches: their own coordinates are used, those of the tiles do not fit."""
    monkeypatch.chdir(tmp_path / "work")
    processed = root / "NLST" / "processed"
    xy = read_coordinates(processed / "tiles-l1-s256" / "patches" / "10.h5").xy[2:]
    write_clam_bag(processed / "feat-l1-RN50-B", "10", np.eye(10, 4), xy)
    arguments = ["NLST", "--root", str(root), "--only", "10"]
    tiles = ["--coord_dir", str(processed / "tiles-l1-s256" / "patches")]
    assert patchgcn_graph_s2([*arguments, *tiles]) == 1
    assert patchgcn_graph_s2(arguments) == 0
    graph = torch.load(processed / "wsigraph-l1-features" / "10.pt", weights_only=True)
    np.testing.assert_array_equal(graph["centroid"].numpy(), xy)


@pytest.mark.parametrize(
    "script",
    [
        "create_patches_fp.py",
        "extract_features_fp.py",
        "tools/big_to_small_patching.py",
        "tools/deepattnmisl_cluster.py",
        "tools/patchgcn_graph_s2.py",
    ],
)
def test_scripts_answer_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(PACKAGE / script), run_name="__main__")
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_help_is_light():
    """No script loads torch or pandas to say what its arguments are."""
    import subprocess

    code = "import sys, advmil.prepare.tools, advmil.prepare.clam_scripts; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "scipy", "sklearn", "h5py"} & set(loaded)
