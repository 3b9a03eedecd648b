"""The page over all demonstrations."""

from __future__ import annotations

import pytest

from medshared.demo import build_index, main
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
