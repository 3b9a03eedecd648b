"""The page over all demonstrations."""

from __future__ import annotations

import pytest

from medshared.demo import build_index, clear_demo, main
from medshared.files import write_json


def test_index_lists_every_finished_demonstration(tmp_path):
    for name, auc in (("one", 0.9), ("two", 0.8)):
        write_json(
            tmp_path / name / "results.json",
            {"metrics": {"auc": auc}, "baseline": {"auc": 0.5}, "seconds": 3.0},
        )
        (tmp_path / name / "report.html").write_text("<p>report</p>")
    (tmp_path / "unfinished").mkdir()
    page = build_index(tmp_path).read_text()
    assert "one/report.html" in page
    assert "two/report.html" in page
    assert "unfinished" not in page
    assert "0.9" in page


def test_nothing_finished_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no demonstration has finished"):
        build_index(tmp_path)
    assert main([str(tmp_path)]) == 1


def test_only_a_demonstration_is_cleared_and_nothing_beside_it(tmp_path):
    output = tmp_path / "out"
    assert clear_demo(output, "cohort")
    (output / "demo" / "cohort").mkdir()
    for name in ("results.json", "report.html", "notes.txt"):
        (output / name).write_text("{}")
    (output / "figures").mkdir()
    assert clear_demo(output, "cohort")
    assert {path.name for path in output.iterdir()} == {"demo", "notes.txt"}
    assert not any((output / "demo").iterdir())
    assert clear_demo(output, "cohort")  # one that was stopped before anything was drawn


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "demo" / "takes").mkdir(parents=True)
    (tmp_path / "demo" / "takes" / "one.wav").write_text("mine")
    assert not clear_demo(tmp_path, "cohort")
    assert (tmp_path / "demo" / "takes" / "one.wav").exists()
