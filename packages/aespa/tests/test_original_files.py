"""The names that the original gives its results."""

from __future__ import annotations

import logging
import os
from datetime import datetime

import aespa.original_files as files

NOW = datetime(2026, 3, 4, 5, 6, 7)


def test_a_run_folder_is_named_by_time_and_never_twice(tmp_path):
    first = files.run_folder(tmp_path, "try", NOW)
    assert first == tmp_path / "try_2026_03_04_05_06_07"
    first.mkdir()
    second = files.run_folder(tmp_path, "try", NOW)
    assert second == tmp_path / "try_2026_03_04_05_06_07_2"
    second.mkdir()
    assert files.run_folder(tmp_path, "try", NOW).name.endswith("_3")


def test_the_log_has_the_originals_name_and_lines(tmp_path):
    logger = logging.getLogger("aespa.somewhere")
    level = logging.getLogger("aespa").level
    logging.getLogger("aespa").setLevel(logging.INFO)
    try:
        with files.original_log(tmp_path, NOW) as path:
            logger.info("Train loss: 0.5 || @ epoch 1.")
        logger.info("after the run")
    finally:
        logging.getLogger("aespa").setLevel(level)
    assert path == tmp_path / "Log" / "2026-03-04-05-06_train.log"
    (line,) = path.read_text().splitlines()
    stamp, message = line.split(" Train", 1)
    assert datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f")
    assert message == " loss: 0.5 || @ epoch 1."


def test_the_best_checkpoint_gets_its_second_name(tmp_path, monkeypatch):
    best = tmp_path / "best.pt"
    best.write_bytes(b"one")
    linked = files.link_best(best, tmp_path)
    assert linked == tmp_path / "Model" / "checkpoint_best.pth"
    assert linked.read_bytes() == b"one"
    best.unlink()  # a new file, as atomic writes make it
    best.write_bytes(b"two")

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert files.link_best(best, tmp_path).read_bytes() == b"two"
    assert sorted(path.name for path in linked.parent.iterdir()) == ["checkpoint_best.pth"]
