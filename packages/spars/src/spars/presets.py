"""The constants of the original's scripts: one preset for each script, under the script's name.

The original has no flags: its experiments are copies of one file with other constants. A preset holds what differs from
the defaults of :mod:`spars.config`; everything else that a script fixes is a default there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spars.errors import DataError

Stage = Literal["classifier", "game"]
Size = tuple[int, int, int]

# The one validation range of the standard and the paper mode; the original moves it with the training range.
VALIDATION = (24, 40)


@dataclass(frozen=True)
class Preset:
    """One script of the original.

    Attributes:
        name: Of ``--preset``.
        script: Path of the script in the repository.
        stage: Whether it trains the classifier or plays the game.
        text: What it is, one line.
        keys: Configuration keys that differ from the defaults.
        faithful_keys: Keys of mode faithful besides; they win.
        n_train: Training volumes, where their number is what the experiment is about.
    """

    name: str
    script: str
    stage: Stage
    text: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    faithful_keys: Mapping[str, Any] = field(default_factory=dict)
    n_train: int | None = None

    def keys_of(self, mode: str) -> dict[str, Any]:
        """Return the configuration keys in a mode.

        Args:
            mode: standard, paper or faithful.
        """
        return {**self.keys, **(self.faithful_keys if mode == "faithful" else {})}

    @property
    def validation(self) -> tuple[int, int] | None:
        """Range of the validation cases in mode faithful, for a script of stage A."""
        if self.stage != "classifier":
            return None
        return self.faithful_keys.get("val_start", VALIDATION[0]), self.faithful_keys.get(
            "val_end", VALIDATION[1]
        )


def _window_text(window: Size) -> str:
    return "_".join(map(str, window))


def _classifier(name: str, number: int, weights: str) -> Preset:
    """Return one of the experiments on the number of training volumes ("in" means input volumes)."""
    return Preset(
        name,
        f"classifier_experiments/{name}.py",
        "classifier",
        f"the classifier trained on {number} volumes",
        {
            "train_start": 0,
            "train_end": number,
            "train_batches": number // 4,
            "val_start": VALIDATION[0],
            "val_end": VALIDATION[1],
            "weights_out": weights,
        },
        {"val_start": number, "val_end": number + 16},
        number,
    )


def _threshold(value: float) -> Preset:
    return Preset(
        f"threshold-{value}",
        f"RL_threshold_experiments/{value}_threshold.py",
        "game",
        f"the game with an episode's end above score {value}",
        # Scores end no episode in mode standard unless asked to, and then all thresholds would be one.
        {"window_size": (64, 64, 32), "termination_threshold": value, "termination": True},
        {"verbose": 2},
    )


def _window(window: Size) -> Preset:
    return Preset(
        f"window-{_window_text(window)}",
        f"RL_window_size_experiments/{_window_text(window)}.py",
        "game",
        f"the game with windows of {'×'.join(map(str, window))} voxels",
        {"window_size": window, "termination_threshold": 0.3},
        {"verbose": 2},
    )


_ALL = (
    Preset(
        "best_RL",
        "best_RL.py",
        "game",
        "the game with the setting of the published result",
        {"window_size": (48, 48, 24), "termination_threshold": 0.3},
        {"verbose": 2},
    ),
    Preset(
        "net_global",
        "net_global.py",
        "classifier",
        "the classifier that the game scripts load",
        {"weights_out": "ex4_24in_weights.pth"},
        {"train_batches": 6},
    ),
    # Three of the five files of weights are not called as their scripts; the names are the original's.
    _classifier("ex1_8in", 8, "ex1_8in_weights.pth"),
    _classifier("ex2_12in", 12, "ex2_12in_weights.pth"),
    _classifier("ex3_16in", 16, "model_weights.pth"),
    _classifier("ex4_20in", 20, "ex3_20in_weights.pth"),
    _classifier("ex5_24in", 24, "ex4_24in_weights.pth"),
    *(_threshold(value) for value in (0.2, 0.3, 0.4, 0.5, 0.6)),
    *(_window(size) for size in ((8, 8, 8), (16, 16, 8), (32, 32, 16), (48, 48, 24), (64, 64, 32))),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
FAMILIES: dict[str, tuple[str, ...]] = {
    "classifier": tuple(name for name in PRESETS if PRESETS[name].n_train is not None),
    "threshold": tuple(name for name in PRESETS if name.startswith("threshold-")),
    "window": tuple(name for name in PRESETS if name.startswith("window-")),
}


def find_preset(name: str) -> Preset:
    """Return a preset.

    Args:
        name: Of `PRESETS`.

    Raises:
        DataError: Naming those that there are.
    """
    if name not in PRESETS:
        raise DataError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def classifier_keys(name: str, mode: str) -> dict[str, Any]:
    """Return the keys with which to train the classifier of a preset.

    Args:
        name: Of `PRESETS`. For a preset of the game: the classifier that can score its windows, which in mode standard
            is one trained on windows of that size.
        mode: standard, paper or faithful.
    """
    preset = find_preset(name)
    if preset.stage == "classifier":
        return preset.keys_of(mode)
    keys = PRESETS["net_global"].keys_of(mode)
    return keys | ({"crop_size": preset.keys["window_size"]} if mode == "standard" else {})


def game_keys(name: str, mode: str) -> dict[str, Any]:
    """Return the keys with which to play the game of a preset.

    Args:
        name: Of a preset of the game.
        mode: standard, paper or faithful.

    Raises:
        DataError: It is a preset of the classifier.
    """
    preset = find_preset(name)
    if preset.stage != "game":
        games = ", ".join(each.name for each in _ALL if each.stage == "game")
        raise DataError(f"preset {name!r} trains a classifier and plays no game; those that do are {games}")
    keys = preset.keys_of(mode)
    if mode != "standard":
        keys.pop("termination", None)
    return keys


def faithful_validation_warning(name: str) -> str | None:
    """Return what is to be said of an experiment whose validation cases are not those of the others.

    Args:
        name: Of `PRESETS`.
    """
    if name not in FAMILIES["classifier"]:
        return None
    ranges = ", ".join(
        f"{each} {low}–{high}"
        for each in FAMILIES["classifier"]
        for low, high in [PRESETS[each].validation or (0, 0)]
    )
    return (
        f"faithful: each of the experiments has validation cases of its own ({ranges}, half-open), so that their "
        f"metrics cannot be compared; mode standard validates all of them on {VALIDATION[0]}–{VALIDATION[1]}"
    )
