"""Log lines, signals and the progress bar."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from medshared.process import StopSignal, progress, run_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_log_line_format_file_and_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "log.txt"
    with run_logging("apack", path) as logger:
        logger.info("héllo")
        logging.getLogger("apack.part").warning("from %s", "part")
        logging.getLogger("medshared.gpu").warning("from medshared")
        logger.debug("hidden")
    lines = path.read_text(encoding="utf-8").splitlines()
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \| "
    assert [re.sub(pattern, "", line) for line in lines] == [
        "INFO | héllo",
        "WARNING | from part",
        "WARNING | from medshared",
    ]
    assert all(re.match(pattern, line) for line in lines)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines
    assert captured.out == ""


def test_runs_in_one_process_have_their_own_files(tmp_path: Path) -> None:
    logger = logging.getLogger("apack")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with run_logging("apack", tmp_path / "outer.txt") as outer:
        outer.info("one")
        with run_logging("apack", tmp_path / "inner.txt", "DEBUG") as inner:
            inner.debug("two")
        outer.debug("hidden")
        outer.info("three")
    with run_logging("apack", tmp_path / "outer.txt") as again:
        again.info("four")
    outer_text = (tmp_path / "outer.txt").read_text()
    assert [line.split(" | ")[2] for line in outer_text.splitlines()] == ["one", "three", "four"]
    assert (tmp_path / "inner.txt").read_text().count("\n") == 1
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_log_file_is_closed_after_an_error(tmp_path: Path) -> None:
    streams: list[io.TextIOWrapper] = []

    def run() -> None:
        with run_logging("apack", tmp_path / "log.txt") as logger:
            streams.extend(each.stream for each in logger.handlers if isinstance(each, logging.FileHandler))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert [stream.closed for stream in streams] == [True]


def test_log_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    message = r"the log file could not be written: .*\(a file lies where"
    with pytest.raises(OSError, match=message), run_logging("apack", tmp_path / "plain" / "log.txt"):
        pass


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_set_a_flag(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.name) == (True, name)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == name
    assert signal.getsignal(number) is before


def test_second_interrupt_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopSignal()

    def twice() -> None:
        with stop:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_gets_no_handlers() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_forked_workers_still_end_on_sigterm() -> None:
    with StopSignal() as stop:
        worker = os.fork()
        if worker == 0:
            os.kill(os.getpid(), signal.SIGINT)  # is for the parent
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert not stop.requested


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), description="x")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_at_most_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    pairs = [(a, b) for a in progress(range(2), description="outer") for b in progress("xy", 2, "inner")]
    assert pairs == [(0, "x"), (0, "y"), (1, "x"), (1, "y")]
    assert "outer" in screen.getvalue()
    assert "inner" not in screen.getvalue()
    assert list(progress(iter("ab"), description="next")) == ["a", "b"]
    assert "next" in screen.getvalue()


def test_a_broken_off_loop_frees_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress(range(5), description="first")
    next(bar)
    bar.close()  # type: ignore[attr-defined]
    list(progress(range(2), description="second"))
    assert "second" in screen.getvalue()
