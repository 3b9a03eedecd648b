"""What is wrong with a configuration, in the words of its user instead of pydantic's."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel

Location = tuple[int | str, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a section (keys with values)",
    "model_type": "a section (keys with values)",
    "model_attributes_type": "a section (keys with values)",
    "dataclass_type": "a section (keys with values)",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


def problem_line(
    item: Any, model_class: type[BaseModel], mapping: Any, label: str, overrides: Sequence[str]
) -> str:
    """Return one pydantic error as ``where: key 'a.b': what``.

    Args:
        item: one entry of ``ValidationError.errors()``.
        model_class: the model that was checked, for suggestions.
        mapping: the configuration that was checked.
        label: the file name, or whatever else the configuration is called.
        overrides: ``key=value`` each; a problem of an overridden key names the override instead of the file.

    Returns:
        One line.
    """
    location = _data_location(item["loc"], mapping, item["type"])
    dotted = _dotted(location)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key and (dotted == key or dotted.startswith((f"{key}.", f"{key}["))):
            label = f"override {override!r}"
    if item["type"] == "extra_forbidden":
        return f"{label}: key {dotted!r}: {_unknown(location, model_class)}"
    message = _mistake(item, location, mapping)
    return f"{label}: key {dotted!r}: {message}" if dotted else f"{label}: {message}"


def _data_location(loc: Location, mapping: Any, kind: str) -> Location:
    """Drop the parts of a pydantic location that name alternatives of a union instead of keys."""
    kept: list[int | str] = []
    value: Any = mapping
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if _holds(value, part):
            value = value[part]
        elif last and kind in ("missing", "extra_forbidden"):
            value = None
        else:
            continue
        kept.append(part)
    return tuple(kept)


def _holds(value: Any, part: int | str) -> bool:
    if isinstance(value, (list, tuple)):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _mistake(item: Any, location: Location, mapping: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    found = describe(item["input"])
    if kind == "missing":
        if location and isinstance(location[-1], int):
            return f"entry {location[-1] + 1} is missing: expected a longer list"
        return "required, but not given"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {found}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"expected a value {words} {context[name]:g}, found {found}"
    if kind in ("literal_error", "enum"):
        expected = context.get("expected", "")
        close = difflib.get_close_matches(str(item["input"]), re.findall(r"'([^']*)'", expected), n=1)
        return f"expected {expected}, found {found}" + (f"; did you mean {close[0]!r}?" if close else "")
    if kind in ("too_long", "too_short"):
        bound = "at most" if kind == "too_long" else "at least"
        number = context.get("max_length" if kind == "too_long" else "min_length")
        return f"expected {bound} {number} entries, found {context.get('actual_length')}"
    if kind in ("value_error", "assertion_error") and "error" in context:
        return str(context["error"])
    suffix = "" if isinstance(item["input"], Mapping) else f"; found {found}"
    return f"{item['msg']}{suffix}"


def describe(value: Any) -> str:
    """Return a value with its kind in the user's words, such as ``'abc' (text)``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a section (keys with values)"
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if isinstance(value, str):
        return f"{shown} (text)"
    if isinstance(value, (list, tuple)):
        return f"{shown} (a list)"
    return f"{shown} (a number)" if isinstance(value, (int, float)) else f"{shown} ({type(value).__name__})"


def _unknown(location: Location, model_class: type[BaseModel]) -> str:
    """Say what an unknown key probably means."""
    if not isinstance(location[-1], str):
        return "unknown key"
    key, here = location[-1], tuple(part for part in location[:-1] if isinstance(part, str))
    sections = dict(_sections(model_class))
    known = sections.get(here, [])
    homes = [".".join(section) for section, keys in sections.items() if key in keys and section != here]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if homes:
        places = " or ".join(repr(home) if home else "the top level" for home in homes[:3])
        text = f"unknown key here; {key!r} belongs under {places}"
        return text + (f", or did you mean {close[0]!r}?" if close else "")
    if close:
        return f"unknown key; did you mean {close[0]!r}?"
    paths = {".".join((*section, name)): name for section, keys in sections.items() for name in keys}
    far = difflib.get_close_matches(key, sorted(set(paths.values())), n=1, cutoff=0.8)
    if far:
        return f"unknown key; did you mean {next(path for path, name in paths.items() if name == far[0])!r}?"
    return f"unknown key; known keys here: {', '.join(sorted(known))}" if known else "unknown key"


def _sections(
    model_class: type[BaseModel], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield every section of a model as (path, keys); a model nested in itself is entered once."""
    keys: list[str] = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model_class.model_fields.items():
        key = field.alias or name
        keys.append(key)
        inner.extend((key, nested) for nested in _models_in(field.annotation))
    yield at, keys
    for key, nested in inner:
        if len(at) < 8 and nested is not model_class:
            yield from _sections(nested, (*at, key))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def without_unknown(mapping: Mapping[str, Any], errors: Sequence[Any]) -> dict[str, Any]:
    """Return a copy of the mapping without the keys that pydantic reported as unknown.

    Args:
        mapping: the configuration that was checked.
        errors: ``ValidationError.errors()`` of the check.

    Returns:
        The copy.
    """
    result = copy.deepcopy(dict(mapping))
    for item in errors:
        if item["type"] == "extra_forbidden":
            location = _data_location(item["loc"], mapping, item["type"])
            value: Any = result
            for part in location[:-1]:
                value = value[part]
            value.pop(location[-1], None)
    return result
