"""Listings are sorted, complete, and cost no decoding; importing them costs no torch."""

from __future__ import annotations

import subprocess
import sys

from aespa.data.records import files_by_name, natural_order, subfolders


def test_numbers_sort_as_numbers():
    names = ["slice_10.png", "slice_2.png", "b", "slice_2_r1.npy", "10", "9"]
    assert sorted(names, key=natural_order) == [
        "9",
        "10",
        "b",
        "slice_2.png",
        "slice_2_r1.npy",
        "slice_10.png",
    ]


def test_hidden_and_missing_entries_are_passed_over(tmp_path):
    for name in (".hidden", "b2", "b10"):
        (tmp_path / name).mkdir()
    (tmp_path / "x.png").write_text("")
    (tmp_path / ".DS_Store").write_text("")
    assert [path.name for path in subfolders(tmp_path)] == ["b2", "b10"]
    assert list(files_by_name(tmp_path)) == ["x.png"]
    assert subfolders(tmp_path / "none") == []
    assert files_by_name(tmp_path / "none") == {}


def test_listing_imports_no_torch():
    code = (
        "import sys, aespa.data.records, aespa.data.lidc, aespa.data.folders, aespa.data.checking, aespa.synthetic;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
