"""YAML 1.2 core types on top of PyYAML's safe loader and dumper.

PyYAML follows YAML 1.1, in which ``1e-4`` is text, ``no`` is false, ``010`` is eight, ``12:30`` is 750 and
``20250101_120000`` is a number: each a trap in a table of hyper-parameters and run names.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_NULL = (r"~|null|Null|NULL|", ["~", "n", "N", ""])
_BOOL = (r"true|True|TRUE|false|False|FALSE", list("tTfF"))
_INT = (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789"))
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    list("-+0123456789."),
)
_MERGE = (r"<<", ["<"])


class Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 types that notes keys given twice and keys that are not text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol: one table for each class)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose one mapping and check its keys before merge keys (``<<``) are expanded."""
        node = super().compose_mapping_node(anchor)
        first_line: dict[str, int] = {}
        for key, _ in node.value if node is not None else ():
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"line {line}: a key must be text, found a list or section")
            elif key.tag == "tag:yaml.org,2002:merge":
                continue
            elif key.tag != "tag:yaml.org,2002:str":
                self.problems.append(f"line {line}: key {key.value!r} must be text; write it in quotes")
            elif key.value in first_line:
                self.problems.append(
                    f"line {line}: key {key.value!r} is given twice (first on line {first_line[key.value]})"
                )
            else:
                first_line[key.value] = line
        return node  # type: ignore[return-value]


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


class Dumper(yaml.SafeDumper):
    """Safe dumper that quotes text which YAML 1.1 or 1.2 readers would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal objects out in full: anchors surprise the readers of a configuration."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line separators as they are and reads them back as spaces, unless they are escaped.
    style = '"' if any(letter in text for letter in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


# The order matters: what looks like both an int and a float is an int.
for _tag, (_pattern, _first) in {
    "null": _NULL,
    "bool": _BOOL,
    "int": _INT,
    "float": _FLOAT,
    "merge": _MERGE,
}.items():
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
Dumper.add_representer(str, _represent_text)
