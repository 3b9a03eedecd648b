"""``advmil check``: every mismatch of table, splits and files as a line that names them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from advmil import cli
from advmil.config import Config
from advmil.data.splits import write_split
from advmil.data_check import check_run_data
from medshared.configuration import dump_yaml


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Twelve patients with one slide each, split 6/3/3."""
    folder = tmp_path / "cohort"
    (folder / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["pathology_id,patient_id,e,t"]
    for k in range(12):
        rows.append(f"{1000 + k},P{k},{k % 2},{100 + k}")
        torch.save(
            torch.from_numpy(rng.standard_normal((16, 8)).astype(np.float32)),
            folder / "features" / f"{1000 + k}.pt",
        )
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    names = [f"P{k}" for k in range(12)]
    for fold in (0, 1):
        write_split(folder / f"fold{fold}.npz", names[:6], names[6:9], names[9:])
    return folder


def _keys(cohort: Path, **changes) -> dict:
    return {
        "path_patch": str(cohort / "features"),
        "path_label": str(cohort / "table.csv"),
        "data_split_path": str(cohort / "fold{}.npz"),
        "bcb_mode": "abmil",
        "bcb_dims": "8-8-8",
        "gen_dims": "8-1",
        "disc_netx_in_dim": 8,
    } | changes


def _check(cohort: Path, **changes) -> list[str]:
    return check_run_data(Config.model_validate(_keys(cohort, **changes)).resolved())


def test_good_data_has_no_problem(cohort):
    assert _check(cohort) == []


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_tables_and_splits(cohort):
    _edit(cohort / "table.csv", "1003,P3,1,103", "1002,P3,1,103\n1002,P3,1,103")
    (line, *_), n = _check(cohort), len(_check(cohort))
    assert "table.csv" in line
    assert "1002" in line
    assert n >= 1
    _edit(cohort / "table.csv", "1002,P3,1,103\n1002,P3,1,103", "1003,P3,1,0")
    assert any("expected days above 0" in line for line in _check(cohort))
    _edit(cohort / "table.csv", "1003,P3,1,0", "1003,Q3,1,103")
    assert any("P3" in line and "fold0.npz" in line for line in _check(cohort))
    (cohort / "fold0.npz").write_bytes((cohort / "fold0.npz").read_bytes()[:100])
    assert any("not a whole npz" in line for line in _check(cohort))
    (cohort / "table.csv").unlink()
    assert any("no such table of slides" in line for line in _check(cohort))


def test_files_of_slides(cohort):
    torch.save(torch.ones(16, 7), cohort / "features" / "1001.pt")
    torch.save(torch.ones(15, 8), cohort / "features" / "1002.pt")
    torch.save(torch.full((16, 8), float("nan")), cohort / "features" / "1003.pt")
    (cohort / "features" / "1004.pt").write_bytes(b"cut")
    (cohort / "features" / "1005.pt").unlink()
    torch.save(torch.ones(16, 8), cohort / "features" / "2000.pt")
    lines = _check(cohort)
    for expected in (
        "1001.pt has 7 features a patch but bcb_dims starts with 8",
        "1002.pt: 15 patches are no whole number of regions",
        "1003.pt: 16 of 16 rows hold NaN",
        "1004.pt",
        "patient P5: ",
        "1 slides without a patient",
    ):
        assert any(expected in line for line in lines), expected
    assert len(lines) == 6


def test_many_missing_slides_are_counted_and_said_where_to_get(cohort):
    for path in sorted((cohort / "features").iterdir())[:11]:
        path.unlink()
    lines = _check(cohort)
    assert len(lines) == 2
    assert "11 of 12 slides of" in lines[0]
    assert "cdas.cancer.gov" in lines[1]
    _edit(cohort / "table.csv", "\n10", "\nTCGA-A1-10")
    lines = _check(cohort)
    assert "portal.gdc.cancer.gov" in lines[1]
    assert not any("cdas" in line for line in lines)


def test_folders_and_settings(cohort):
    assert any("path_patch" in line for line in _check(cohort, path_patch=str(cohort / "none")))
    assert any("path_cluster is not set" in line for line in _check(cohort, bcb_mode="cluster"))
    (cohort / "clusters").mkdir()
    for k in range(12):
        np.save(cohort / "clusters" / f"P{k}.npy", np.zeros(16 if k else 9, dtype=np.int32))
    lines = _check(cohort, bcb_mode="cluster", path_cluster=str(cohort / "clusters"))
    assert len(lines) == 1
    assert "P0.npy has 9 cluster numbers but the slides have 16 patches" in lines[0]


def test_a_part_without_events_is_a_warning(cohort, caplog):
    write_split(cohort / "fold0.npz", [f"P{k}" for k in range(6)], ["P6", "P8"], ["P7", "P9"])
    assert _check(cohort) == []
    assert "val: all 2 patients are censored" in caplog.text


def test_the_command_checks_all_folds_and_reads_each_file_once(cohort, caplog, monkeypatch):
    from advmil.data.bags import BagSource

    read = []
    check = BagSource.check
    monkeypatch.setattr(BagSource, "check", lambda self, ids: read.extend(ids) or check(self, ids))
    path = cohort / "c.yaml"
    path.write_text(dump_yaml(_keys(cohort, data_split_seed=[0, 1])))
    with caplog.at_level(logging.INFO):
        assert cli.main(["check", "--config", str(path)]) == 0
    assert "0 problems" in caplog.text
    assert sorted(read) == sorted(f"P{k}" for k in range(12))
    shutil.rmtree(cohort / "features")
    assert cli.main(["check", "--config", str(path)]) == 1
