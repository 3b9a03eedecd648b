"""``results.json``, also when writing it was cut short."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[-+]?[A-Za-z0-9.+-]+')
_WHITE = re.compile(r"\s*")


@dataclass(frozen=True)
class Results:
    """Content of a results file.

    Attributes:
        content: All values that were written completely.
        complete: Whether the file was whole.
        problem: What was wrong, for the log; empty when complete.
    """

    content: dict[str, Any]
    complete: bool = True
    problem: str = ""


class _CutError(Exception):
    """The text ends inside a value; `partial` holds the complete part of a container."""

    def __init__(self, partial: Any = None, *, has_partial: bool = False) -> None:
        super().__init__("the text ends early")
        self.partial = partial
        self.has_partial = has_partial


def read_results(path: Path | str) -> Results:
    """Read a JSON object and recover every complete value of a cut file.

    Args:
        path: The file; NaN and Infinity are accepted.

    Returns:
        The content; a number at the very end of a cut file is dropped, since digits may be missing.

    Raises:
        FileNotFoundError: When the file is not there.
        ValueError: When the file does not start with a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no results there; did the run finish?")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        recovered = recover_json(text)
        if not isinstance(recovered, dict):
            raise ValueError(f"{path}: not a JSON object ({error.msg}, line {error.lineno})") from error
        problem = f"{path}: cut at line {error.lineno} ({error.msg}); the values before it were recovered"
        return Results(recovered, False, problem)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return Results(content)


def recover_json(text: str) -> Any:
    """Return the complete values of a JSON text that breaks off.

    Args:
        text: JSON, possibly cut anywhere or damaged from some place on.

    Returns:
        The value; containers hold what was complete. None when nothing was.

    Example:
        >>> recover_json('{"a": 1, "b": {"c": [1, 2, 3], "d": 4.')
        {'a': 1, 'b': {'c': [1, 2, 3]}}
    """
    try:
        return _value(text, 0)[0]
    except _CutError as cut:
        return cut.partial


def _skip(text: str, at: int) -> int:
    match = _WHITE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[Any, int]:
    """Parse one value; raise `_CutError` with the complete part when the text ends or breaks inside it."""
    at = _skip(text, at)
    if at >= len(text):
        raise _CutError
    if text[at] in "{[":
        return _container(text, at)
    match = _SCALAR.match(text, at)
    # A number or word that touches the end may lack characters; a closed string cannot.
    if match is None or (match.end() >= len(text) and text[at] != '"'):
        raise _CutError
    try:
        return json.loads(match.group()), match.end()
    except json.JSONDecodeError:
        raise _CutError from None


def _container(text: str, at: int) -> tuple[Any, int]:
    """Parse an object or array from its opening bracket."""
    is_object = text[at] == "{"
    closing = "}" if is_object else "]"
    content: Any = {} if is_object else []
    at = _skip(text, at + 1)
    if at < len(text) and text[at] == closing:
        return content, at + 1
    while True:
        key: Any = None
        try:
            if is_object:
                key, at = _value(text, at)
                at = _expect(text, at, ":")
            value, at = _value(text, at)
        except _CutError as cut:
            if cut.has_partial:
                _add(content, key, cut.partial)
            raise _CutError(content, has_partial=True) from None
        _add(content, key, value)
        at = _skip(text, at)
        if at < len(text) and text[at] == closing:
            return content, at + 1
        if at >= len(text) or text[at] != ",":
            raise _CutError(content, has_partial=True)
        at += 1


def _expect(text: str, at: int, character: str) -> int:
    at = _skip(text, at)
    if at >= len(text) or text[at] != character:
        raise _CutError
    return at + 1


def _add(content: Any, key: Any, value: Any) -> None:
    if isinstance(content, dict):
        content[key] = value
    else:
        content.append(value)
