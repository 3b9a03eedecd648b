"""Flags: one for each configuration key, and those that every script and training verb has.

``python -m spars.flags`` prints the tables of keys that the README holds, ``python -m spars.flags classifier`` and
``python -m spars.flags game`` the keys as ``config/*.yaml`` have them.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medshared.config_flags import NULL, field_types, key_comments, parse_bool, parse_value
from spars.config import ClassifierConfig, GameConfig, _Keys

Stage = Literal["classifier", "game"]
MODELS: dict[Stage, type[_Keys]] = {"classifier": ClassifierConfig, "game": GameConfig}
# Names that the original's code has for values, and what they are here.
_OTHER_NAMES = {"policy": {"MlpPolicy": "mlp", "CnnPolicy": "cnn"}}


def parse_nullable_bool(text: str) -> bool | None:
    """Read true or false as `medshared.config_flags.parse_bool`; none or null is null."""
    return None if text.lower() in NULL else parse_bool(text)


def parse_pair(text: str) -> tuple[int, int]:
    """Read one entry of ``--label_map``, such as ``3=2``.

    Raises:
        argparse.ArgumentTypeError: For any other text.
    """
    left, _, right = text.partition("=")
    try:
        return int(left), int(right)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected VALUE=CLASS such as 3=2 (0 background, 1 liver, 2 tumour), found {text!r}"
        ) from None


class _Unwrap(argparse.Action):
    """Stores one value as it is and several as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values[0] if len(values) == 1 else tuple(values))


class StorePairs(argparse.Action):
    """Stores pairs as a mapping."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Store what argparse read."""
        setattr(namespace, self.dest, dict(values))


class _SetMode(argparse.Action):
    """``--faithful`` is ``--mode faithful``."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.mode = "faithful"


def shown_default(value: Any) -> str:
    """Return a default as a YAML file would have it.

    Args:
        value: Of a key.
    """
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flag_options(name: str, kinds: tuple[Any, ...], nullable: bool) -> dict[str, Any]:
    """Return what argparse needs to know of a key."""
    origins = [typing.get_origin(kind) for kind in kinds]
    if kinds == (bool,):
        return {"nargs": "?", "const": True, "type": parse_nullable_bool, "metavar": "BOOL"}
    if dict in origins:
        return {"nargs": "+", "type": parse_pair, "action": StorePairs, "metavar": "VALUE=CLASS"}
    if tuple in origins:
        return {"nargs": "+", "type": parse_value, "action": _Unwrap, "metavar": "N"}
    if all(origin is Literal for origin in origins):
        values = [value for kind in kinds for value in typing.get_args(kind)]
        other = _OTHER_NAMES.get(name, {})

        def read(text: str) -> Any:
            found = other.get(text, parse_value(text))
            return found if found in values or (nullable and found is None) else text

        return {"type": read, "choices": [*values, *([None] if nullable else [])], "metavar": _braces(values)}
    if kinds in ((str,), (Path,)):
        return {"type": str, "metavar": name.upper()}
    return {"type": parse_value, "metavar": name.upper()}


def _braces(values: Sequence[Any]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def add_config_flags(
    parser: argparse.ArgumentParser, stage: Stage, preset_keys: Mapping[str, Any] | None = None
) -> None:
    """Add one flag for each configuration key; a flag that is not given leaves the configuration as it is.

    Args:
        parser: Gets the flags.
        stage: classifier or game.
        preset_keys: Values of a script that take the place of the defaults in ``--help``.
    """
    model = MODELS[stage]
    comments, preset_keys = key_comments(model), preset_keys or {}
    for name, field in model.model_fields.items():
        default = shown_default(preset_keys.get(name, field.default))
        text = f"{comments.get(name, '')} (default: {default})".replace("%", "%%")
        kinds = field_types(field.annotation)
        nullable = type(None) in typing.get_args(field.annotation)
        options = {"default": argparse.SUPPRESS, "help": text, **_flag_options(name, kinds, nullable)}
        parser.add_argument(f"--{name}", **options)


def add_run_options(
    parser: argparse.ArgumentParser, stage: Stage, preset: str | None = None, output: str | None = None
) -> None:
    """Add all flags of a training script or verb.

    Args:
        parser: Gets the flags.
        stage: classifier or game.
        preset: Of the script; null for a verb, which has the defaults.
        output: Default of ``--output``; null = ``runs/<preset or stage>``.
    """
    from spars.presets import PRESETS, classifier_keys, game_keys

    names = [name for name in PRESETS if stage == "classifier" or PRESETS[name].stage == "game"]
    parser.add_argument("--config", type=Path, help="YAML file with the same keys; flags win over it")
    parser.add_argument(
        "--preset", choices=names, default=preset, metavar="NAME",
        help=f"constants of a script: {', '.join(names)} (default: {preset or 'none'})",
    )  # fmt: skip
    parser.add_argument(
        "--output", "--output_dir", type=Path, default=Path(output or f"runs/{preset or stage}"),
        help="run directory (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="make synthetic data and run on it, at demo size")
    parser.add_argument("--resume", action="store_true", help="continue the stopped run in --output")
    parser.add_argument(
        "--faithful", nargs=0, action=_SetMode, default=argparse.SUPPRESS,
        help="same as --mode faithful: the original's behaviour (see the README)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["32", "auto"], default="32", help="of the networks; 32 is the only one here"
    )
    if stage == "game":
        parser.add_argument(
            "--evaluate", action=argparse.BooleanOptionalAction, default=preset is not None,
            help="mode standard: score the agent and all baselines on the test part afterwards",
        )  # fmt: skip
    keys = (
        {}
        if preset is None
        else (classifier_keys if stage == "classifier" else game_keys)(preset, "standard")
    )
    add_config_flags(parser, stage, keys)


def given_keys(arguments: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """Return the configuration keys that flags set.

    Args:
        arguments: Of a parser with `add_config_flags`.
        stage: classifier or game.
    """
    return {name: value for name, value in vars(arguments).items() if name in MODELS[stage].model_fields}


def key_table(stage: Stage) -> str:
    """Return the README's table of the keys of a stage: a row for each, with default and meaning.

    Args:
        stage: classifier or game.
    """
    model = MODELS[stage]
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, comment in key_comments(model).items():
        meaning = comment.replace("|", "/").replace("<", "&lt;").replace(">", "&gt;")
        rows.append(f"| `{name}` | `{shown_default(model.model_fields[name].default)}` | {meaning} |")
    return "\n".join(rows) + "\n"


def key_yaml(stage: Stage, changes: Mapping[str, Any] | None = None) -> str:
    """Return all keys of a stage as YAML, in sections, each with its value and meaning.

    Args:
        stage: classifier or game.
        changes: Values that take the place of the defaults.
    """
    model = MODELS[stage]
    comments, lines = key_comments(model), []
    values = {name: field.default for name, field in model.model_fields.items()} | dict(changes or {})
    for kind in (_Keys, model):
        for line in inspect.getsource(kind).splitlines():
            name = line.strip().partition(":")[0]
            if line.strip().startswith("# --- ") and f"\n{line.strip()}" not in lines:
                lines.append(f"\n{line.strip()}")
            elif name in comments and name in kind.__annotations__ and line.startswith(f"    {name}:"):
                lines.append(f"{f'{name}: {shown_default(values[name])}':<42}  # {comments[name]}")
    return "\n".join(lines).lstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of both stages, or the keys of one as YAML.

    Args:
        argv: Nothing, ``classifier`` or ``game``; null = those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?", choices=list(MODELS), help="print its keys as YAML")
    chosen: Stage | None = parser.parse_args(argv).stage
    if chosen is not None:
        sys.stdout.write(key_yaml(chosen))
        return 0
    for stage in MODELS:
        sys.stdout.write(f"### {MODELS[stage].__name__}\n\n{key_table(stage)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
