"""Exit codes and messages of the command lines."""

from __future__ import annotations

import argparse

import pytest

from medshared.command_line import RunInterruptedError, guarded


def raising(error: BaseException):
    def handler(_: argparse.Namespace) -> int:
        raise error

    return handler


def test_the_handler_decides_the_exit_code():
    assert guarded(lambda arguments: arguments.code, argparse.Namespace(code=3)) == 3


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("table.csv: row 3"), 1, "error: table.csv: row 3\n"),
        (FileNotFoundError("no.csv"), 1, "error: no.csv\n"),
        (RunInterruptedError("stopped by SIGTERM"), 75, "stopped by SIGTERM\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_expected_errors_are_one_line(error, code, text, capsys):
    assert guarded(raising(error), argparse.Namespace()) == code
    assert capsys.readouterr().err == text


def test_mistakes_of_the_program_keep_their_traceback():
    with pytest.raises(TypeError):
        guarded(raising(TypeError("a bug")), argparse.Namespace())


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="bad"):
        guarded(raising(ValueError("bad")), argparse.Namespace(debug=True))
