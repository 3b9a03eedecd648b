"""``advmil prepare``, killed at any moment, ends with the files of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def slides(tmp_path_factory, slide_bytes) -> Path:
    """Two slides of a patient each, and a blank one."""
    folder = tmp_path_factory.mktemp("killed") / "slides"
    folder.mkdir()
    for name, kind in {"a": "tissue", "b": "other", "c": "blank"}.items():
        (folder / f"{name}.svs").write_bytes(slide_bytes[kind])
    rows = [("a", "p", 1, 100.0), ("b", "q", 1, 200.0)]
    columns = ["pathology_id", "patient_id", "e", "t"]
    pd.DataFrame(rows, columns=columns).to_csv(folder.parent / "table.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def preparing(crashes, slides: Path, encoder_file: Path):
    from crash_testing import Job

    def arguments(output: Path) -> list[str]:
        base = ["prepare", str(slides), "--output", str(output), "--patch-size", "16", "--device", "cpu"]
        base += ["--encoder", "synthetic", "--weights", str(encoder_file), "--steps", "all"]
        return [*base, "--table", str(slides.parent / "table.csv"), "--clusters", "2"]

    return crashes.reference(
        Job("advmil.cli:main", arguments, unlike=("prepare-report.json",)), "advmil-prepare"
    )


def test_killed_again_and_again(crashes, preparing):
    crashes.kill_loop(preparing)


def test_killed_beside_another_one(crashes, preparing):
    crashes.kill_one_of_two(preparing, kills=max(1, crashes.kills // 5))


def test_full_disk(crashes, preparing):
    for share in (0.3, 0.8):
        crashes.full_disk(preparing, share)


def test_read_only_folder(crashes, preparing):
    crashes.read_only(preparing)


def test_full_disk_at_any_change(crashes, preparing):
    crashes.faults(preparing, preparing.spread(crashes.kills))
