"""Flags made from a configuration: what a command line's text means, and what each key is for.

A package gives its pydantic model one flag a key; the trailing comment of a key in the model's source is its help.
"""

from __future__ import annotations

import argparse
import inspect
import types
import typing
from typing import Any

from pydantic import BaseModel

YES, NO = frozenset({"1", "true", "t", "yes", "y", "on"}), frozenset({"0", "false", "f", "no", "n", "off"})
NULL = frozenset({"none", "null"})


def parse_bool(text: str) -> bool:
    """Read yes, true, on, 1, y, t or no, false, off, 0, n, f, in any case.

    Args:
        text: One value of a flag.

    Raises:
        argparse.ArgumentTypeError: For any other text.
    """
    if text.lower() not in YES | NO:
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return text.lower() in YES


def parse_value(text: str) -> Any:
    """Read a number as a number, ``none`` or ``null`` as null, and leave any other text alone.

    Args:
        text: One value of a flag. ``1`` is a whole number, ``1.0`` is not.
    """
    if text.lower() in NULL:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def key_comments(model: type[BaseModel]) -> dict[str, str]:
    """Return what the source of a configuration says of its keys, in the order of the keys.

    Args:
        model: The configuration; keys of the classes that it is derived from count, too.
    """
    comments: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind is BaseModel or not issubclass(kind, BaseModel):
            continue
        for line in inspect.getsource(kind).splitlines():
            head, _, comment = line.partition("  # ")
            name, colon, _ = head.strip().partition(":")
            if colon and comment and name in model.model_fields:
                comments[name] = comment.strip()
    return {name: comments[name] for name in model.model_fields if name in comments}


def field_types(annotation: Any) -> tuple[Any, ...]:
    """Return the types of an annotation without ``Annotated``, null and unions.

    Args:
        annotation: Of a field of a model.

    Example:
        >>> field_types(int | None), field_types(float | str)
        ((<class 'int'>,), (<class 'float'>, <class 'str'>))
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return field_types(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(part for item in typing.get_args(annotation) for part in field_types(item))
    return () if annotation is type(None) else (annotation,)
