"""Files of many items, and the one model they share."""

from __future__ import annotations

import threading

import pytest

from medshared.batch import NotYetError
from til_mtl.slides.job_state import ModelOnce, file_stamp, find_files, reported, write_until_settled

from .conftest import colour_rule


def test_links_that_lead_nowhere_are_found_so_that_they_are_recorded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.PNG").symlink_to(tmp_path / "gone.png")
    (tmp_path / ".c.png").write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    assert [file.name for file in find_files(tmp_path, (".png",), "picture", tmp_path)] == ["a.png", "b.PNG"]


def test_the_model_is_made_once_for_all_threads(options):
    made = []

    def factory():
        made.append(1)
        return colour_rule

    model = ModelOnce(options(), factory)
    found = []
    threads = [threading.Thread(target=lambda: found.append(model())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == [colour_rule] * 8


def test_a_model_that_cannot_be_made_is_tried_once(options):
    def factory():
        raise OSError("no space")

    model = ModelOnce(options(), factory)
    with pytest.raises(OSError, match="no space"):
        model()
    with pytest.raises(NotYetError):
        model()
    assert isinstance(model.error, OSError)


def test_tables_are_written_again_when_something_was_finished_meanwhile():
    done, tables = {"a"}, []

    def write(state):
        tables.append(state)
        done.add("b")  # by another job, while this one wrote

    write_until_settled(lambda: set(done), write)
    assert tables == [{"a"}, {"a", "b"}]


def test_another_file_has_another_stamp(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"1")
    before = file_stamp(file)
    file.write_bytes(b"12")
    assert file_stamp(file) != before


def test_reports_that_cannot_be_read_are_passed_over(tmp_path, caplog):
    (tmp_path / "predict-report.json").write_text('{"outcomes": [{"a": 1}]}')
    assert reported(tmp_path) == {}
    assert "predict-report.json: cannot be read" in caplog.text
