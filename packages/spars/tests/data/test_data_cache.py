"""Cached arrays: used when whole, made anew when damaged or when the source changed."""

from __future__ import annotations

import logging
import os

import numpy as np

from spars.data.cache import cached_arrays, source_key


def test_made_once_and_anew_when_damaged(tmp_path, caplog):
    path, calls = tmp_path / "deep" / "a.npz", []

    def make():
        calls.append(1)
        return {"x": np.arange(1000), "y": np.eye(3)}

    for _ in range(2):
        found = cached_arrays(path, ["x", "y"], make)
        np.testing.assert_array_equal(found["x"], np.arange(1000))
    assert len(calls) == 1
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[500] ^= 0xFF
    for damage in (b"", whole[:200], b"no archive", bytes(flipped)):
        path.write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            found = cached_arrays(path, ["x", "y"], make)
        np.testing.assert_array_equal(found["x"], np.arange(1000))
        assert "damaged" in caplog.text
        caplog.clear()
        assert path.read_bytes() == whole
    cached_arrays(path, ["x", "z"], lambda: {"x": np.zeros(1), "z": np.ones(1)})
    assert cached_arrays(path, ["z"], make)["z"] == 1
    assert len(calls) == 5
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_key_follows_files_and_settings(tmp_path):
    file, folder = tmp_path / "a", tmp_path / "series"
    file.write_text("1")
    folder.mkdir()
    (folder / "1.dcm").write_text("x")
    keys = [
        source_key([file, None], {"m": None}),
        source_key([file, None], {"m": {1: 2}}),
        source_key([folder], {}),
    ]
    (folder / "2.dcm").write_text("y")
    keys.append(source_key([folder], {}))
    os.utime(file, ns=(1, 1))
    keys.append(source_key([file, None], {"m": None}))
    assert len(set(keys)) == 5
    assert source_key([file, None], {"m": None}) == keys[-1]
