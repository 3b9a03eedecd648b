"""Configuration files: YAML or JSON in, a checked pydantic model out, every problem named at once."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medshared.configuration_problems import describe, problem_line, without_unknown

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be used.

    Attributes:
        problems: one line for each problem, each with the file (or override) and the key it is about.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load_yaml_or_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration file.

    YAML is read by the rules of version 1.2: ``1e-4`` is a number, ``yes`` and ``2024-01-31`` are text, and
    ``010`` is ten. An empty file is an empty mapping.

    Args:
        path: a file ending in ``.yml``, ``.yaml`` or ``.json``.

    Returns:
        The top-level mapping.

    Raises:
        FileNotFoundError: when there is no such file.
        ConfigError: (a ``ValueError``) for another suffix, broken syntax, keys given twice, or a file that
            holds something else than keys with values; with file and line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".yml", ".yaml", ".json"):
        raise ConfigError(
            [f"{path}: expected a file ending in .yml, .yaml or .json, found {suffix or 'no suffix'!r}"]
        )
    if path.is_dir():
        raise ConfigError([f"{path}: this is a folder; give the configuration file in it"])
    if not path.exists():
        raise FileNotFoundError(2, _missing_hint(path), str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8"]) from error
    value = _parse_json(text, str(path)) if suffix == ".json" else parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError([f"{path}: expected keys with values at the top level, found {describe(value)}"])
    return value


def _missing_hint(path: Path) -> str:
    hint = "no such configuration file"
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            hint += f" (did you mean {close[0]!r}?)"
    return hint


def _parse_json(text: str, label: str) -> Any:
    import json

    if not text.strip():
        return None
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in set(keys) if keys.count(key) > 1)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=build)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{label}: line {error.lineno}, column {error.colno}: {error.msg}"]) from error
    if repeated:
        # JSON is YAML too, and the YAML reader knows the lines; tabs can only be layout in valid JSON.
        parse_yaml(text.replace("\t", " "), label)
        raise ConfigError([f"{label}: key {key!r} is given twice" for key in repeated])
    return value


def parse_yaml(text: str, label: str = "YAML") -> Any:
    """Parse one YAML 1.2 document.

    Args:
        text: the document.
        label: what error messages call it, normally the file name.

    Returns:
        The value; ``None`` for an empty document.

    Raises:
        ConfigError: naming line and column of broken syntax, and every key that is given twice.
    """
    import yaml

    from medshared.yaml_dialect import Loader

    try:
        loader = Loader(text)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError([f"{label}: {_yaml_message(error, text)}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{label}: the file is nested too deeply"]) from error
    if loader.problems:
        raise ConfigError([f"{label}: {problem}" for problem in loader.problems])
    return value


def _yaml_message(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        return f"not valid YAML: {problem}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = "; indent with spaces, YAML allows no tabs" if "\t" in line[: mark.column + 1] else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {problem}{hint}"


def dump_yaml(value: Any) -> str:
    """Return YAML that [`parse_yaml`][medshared.configuration.parse_yaml] reads back to the same plain value.

    Args:
        value: as for `medshared.files.to_plain`: paths, tuples, NumPy scalars and models become plain values.

    Returns:
        Block-style YAML with the keys in the order given; text that YAML 1.1 or 1.2 would take for something
        else is quoted.
    """
    import yaml

    from medshared.files import to_plain
    from medshared.yaml_dialect import Dumper

    return yaml.dump(
        to_plain(value, finite=False), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100
    )


def merge_mappings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings laid over each other; where both have a value that is no mapping, ``changes`` win.

    Example:
        >>> merge_mappings({"data": {"batch_size": 4, "seed": 1}}, {"data": {"batch_size": 8}})
        {'data': {'batch_size': 8, 'seed': 1}}
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge_mappings(old, value)
        merged[key] = value
    return merged


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the mapping in which dotted keys have new values.

    Args:
        mapping: the configuration; it is not changed.
        overrides: ``"section.key=value"`` each; the value is read as YAML, so ``null``, ``1e-4`` and
            ``[1, 2]`` mean what they mean in a file. Missing sections are created.

    Returns:
        The new mapping.

    Raises:
        ConfigError: naming every override that cannot be applied.
    """
    result = copy.deepcopy(dict(mapping))
    problems: list[str] = []
    for override in overrides:
        try:
            _apply(result, override)
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return result


def _apply(result: dict[str, Any], override: str) -> None:
    label = f"override {override!r}"
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError([f"{label}: expected key=value, such as training.epochs=5"])
    value = parse_yaml(text, label)
    section = result
    for depth, part in enumerate(parts[:-1]):
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            name = ".".join(parts[: depth + 1])
            raise ConfigError([f"{label}: {name!r} is {describe(inner)}, not a section; set {name!r} itself"])
        section = inner
    section[parts[-1]] = value


def load_config(
    model_class: type[Model],
    source: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    label: str | None = None,
) -> Model:
    """Read, override and check a configuration.

    Args:
        model_class: a pydantic model whose sections forbid unknown keys (``extra="forbid"``).
        source: a file as for `load_yaml_or_json`, or a mapping.
        overrides: as for `apply_overrides`; they win over the file.
        label: what problems are said to lie in; by default the file, or "configuration" for a mapping.

    Returns:
        The checked model.

    Raises:
        FileNotFoundError: when the file is missing.
        ConfigError: with one line for each problem of the whole configuration: unknown keys with the key that
            was probably meant or the section it belongs to, wrong types with what was expected and found.
    """
    from pydantic import ValidationError

    if isinstance(source, Mapping):
        label, mapping = label or "configuration", dict(source)
    else:
        label, mapping = label or os.fspath(source), load_yaml_or_json(source)
    mapping = apply_overrides(mapping, overrides)
    problems: list[str] = []
    error: Exception | None = None
    # Unknown keys keep pydantic from checking sections as a whole: a round without them finds the rest.
    for _ in range(2):
        try:
            model = model_class.model_validate(mapping)
        except ValidationError as caught:
            error = error or caught
            found = caught.errors(include_url=False)
        else:
            if error is None:
                return model
            break
        for item in found:
            line = problem_line(item, model_class, mapping, label, overrides)
            if line not in problems:
                problems.append(line)
        mapping = without_unknown(mapping, found)
    raise ConfigError(problems) from error
