"""Scanning folders and manifests."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from infection_mt.config import DataConfig
from infection_mt.data import stacks as module
from infection_mt.data.stacks import load_stacks, parse_name, read_manifest
from medshared.images import StackError


@pytest.mark.parametrize(
    ("name", "position", "well"),
    [
        ("run_s5_b2_p13_t0-94_ec.tiff", "13", "b2"),
        ("run_S12_H11_p007_t0-94_.tif", "007", "h11"),
        ("b02_p1_.tif", "1", "b2"),
        ("exp-c4_p19_x.tif", "19", "c4"),
        ("Well-B3_p2_.tif", "2", "b3"),
        ("x_p7_.tif", "7", None),
        ("plain.tiff", "unknown", None),
    ],
)
def test_names(name, position, well):
    assert parse_name(name) == (position, well)


def test_folders_in_the_order_of_path_strings(stack_files):
    data = stack_files(
        {f"w_s5_b2_p{k}_t_.tif": (2, 8, 8) for k in (2, 10, 1)},
        {"w_s5_c4_p3_t_.tiff": (4, 8, 8)},
        infected_label=7,
    )
    assert data.uninfected_dir is not None
    (data.uninfected_dir / "sub").mkdir()
    (data.uninfected_dir / "notes.txt").write_text("x")
    stacks = load_stacks(data)
    assert [(s.position, s.label, s.condition, s.n_frames) for s in stacks] == [
        ("10", 7, "infected", 2),
        ("1", 7, "infected", 2),
        ("2", 7, "infected", 2),
        ("3", 0, "uninfected", 4),
    ]
    assert stacks[0].shape == (8, 8)
    assert stacks[0].dtype == "uint16"
    assert stacks[1].key == "b2/1"
    assert stacks[0].group("well") == "b2"
    with pytest.raises(ValueError, match=r"w_s5_b2_p10_t_.tif: its plate is unknown.*column 'plate'"):
        stacks[0].group("plate")


def test_missing_and_empty_folders(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError, match=r"infected_dir: folder .* holds no"):
        load_stacks(DataConfig(infected_dir=tmp_path / "a", uninfected_dir=tmp_path / "b"))
    with pytest.raises(FileNotFoundError, match=r"infected_dir: folder .* does not exist"):
        load_stacks(DataConfig(infected_dir=tmp_path / "b", uninfected_dir=tmp_path / "a"))


def test_every_unreadable_stack_is_named(stack_files):
    data = stack_files({"w_s5_b2_p1_.tif": (2, 8, 8)}, {"w_s5_c4_p1_.tif": (2, 8, 8)})
    for folder, name in ((data.infected_dir, "w_s5_b2_p2_.tif"), (data.uninfected_dir, "w_s5_c4_p2_.tif")):
        (folder / name).write_bytes(b"II*\0junk")
    with pytest.raises(StackError, match="2 of the stacks") as caught:
        load_stacks(data)
    assert "w_s5_b2_p2_.tif" in str(caught.value)
    assert "w_s5_c4_p2_.tif" in str(caught.value)


def test_hidden_duplicates(stack_files):
    data = stack_files({"w_s5_b2_p1_.tif": (2, 8, 8)}, {"w_s5_c4_p1_.tif": (2, 8, 8)})
    assert data.infected_dir is not None
    link = data.infected_dir / "w_s5_b2_p9_.tif"
    link.symlink_to("w_s5_b2_p1_.tif")
    with pytest.raises(ValueError, match="are the same file"):
        load_stacks(data)
    link.unlink()
    copy = data.infected_dir / "copy_s5_b2_p1_.tiff"
    copy.write_bytes((data.infected_dir / "w_s5_b2_p1_.tif").read_bytes())
    with pytest.raises(ValueError, match=r"both show b2/1 \(well/position\)"):
        load_stacks(data)
    copy.unlink()
    (data.infected_dir / "._w_s5_b2_p1_.tif").write_bytes(b"resource fork")
    assert len(load_stacks(data)) == 2


def test_mixed_sizes_are_reported(stack_files, caplog):
    data = stack_files({"w_s5_b2_p1_.tif": (2, 8, 8)}, {"w_s5_c4_p1_.tif": (2, 8, 9)})
    with caplog.at_level(logging.WARNING):
        load_stacks(data)
    assert "1 of 8x8 uint16; 1 of 8x9 uint16" in caplog.text


def test_page_counts_are_remembered_until_the_file_changes(stack_files, tmp_path, monkeypatch):
    data = stack_files({"w_s5_b2_p1_.tif": (3, 8, 8)}, {"w_s5_c4_p1_.tif": (2, 8, 8)})
    opened: list[str] = []
    real = module.read_stack_info
    monkeypatch.setattr(module, "read_stack_info", lambda path: opened.append(Path(path).name) or real(path))
    first = load_stacks(data, tmp_path / "cache")
    assert len(opened) == 2
    assert load_stacks(data, tmp_path / "cache") == first
    assert len(opened) == 2
    changed = first[0].path
    tifffile.imwrite(changed, np.zeros((5, 8, 8), np.uint16), photometric="minisblack")
    os.utime(changed, ns=(1, 1))
    assert load_stacks(data, tmp_path / "cache")[0].n_frames == 5
    assert opened[2:] == [changed.name]
    index = tmp_path / "cache" / module.INDEX_NAME
    assert len(json.loads(index.read_text())["stacks"]) == 2
    index.write_text("{broken")
    assert load_stacks(data, tmp_path / "cache")[0].n_frames == 5


def _manifest(folder: Path, text: str, names=("a.tif", "b.tif")) -> Path:
    for name in names:
        tifffile.imwrite(folder / name, np.zeros((2, 8, 8), np.uint8), photometric="minisblack")
    path = folder / "manifest.csv"
    path.write_text(text)
    return path


def test_manifest(tmp_path):
    path = _manifest(
        tmp_path,
        "file,condition,plate,well,position,run,onset_hour,split,label\n"
        "a.tif,infected,P1,B2,13,r1,1.5,train,\n"
        "b.tif,mock,P1,c4,,,,test,5\n",
    )
    a, b = load_stacks(DataConfig(manifest=path))
    assert (a.label, a.condition, a.plate, a.well, a.position, a.run) == (
        1,
        "infected",
        "P1",
        "b2",
        "13",
        "r1",
    )
    assert (a.onset_hour, a.split, a.n_frames, a.key) == (1.5, "train", 2, "r1/P1/b2/13")
    assert (b.label, b.condition, b.position, b.onset_hour) == (5, "uninfected", "unknown", None)
    assert b.key == "P1/uninfected/b"
    assert a.group("well") == "P1/b2"
    assert a.group("position") == a.key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "file,condition\na.tif,infected\nmissing.tif,mock\n",
            r"manifest.csv:3: column 'file': .*missing.tif",
        ),
        ("file,condition\na.tif,sick\n", r"manifest.csv:2: column 'condition'"),
        ("file\na.tif\n", "condition"),
        ("file,condition\n", "no rows"),
        (
            "file,condition,split\na.tif,infected,train\nb.tif,mock,\n",
            r"manifest.csv:3: column 'split' is empty",
        ),
        ("file,condition,split\na.tif,infected,dev\n", r"manifest.csv:2: column 'split'"),
        ("file,condition,onset_hour\na.tif,infected,soon\n", r"manifest.csv:2: column 'onset_hour'"),
        ("file,condition\na.tif,infected\na.tif,mock\n", "same file"),
    ],
)
def test_manifest_errors_name_row_and_column(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_manifest(_manifest(tmp_path, text))
