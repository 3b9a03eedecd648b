"""Which pages of a stack become samples (``data.frames``): windows in hours and strides for each split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel

SPLIT_ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "validation"),
    "test": ("test", "eval", "evaluation"),
}
SPECIAL_KEYS = ("train", "val", "validation", "test", "eval", "evaluation", "default")
Window = tuple[float, float]


@dataclass(frozen=True)
class FramePolicy:
    """The frame selection of one split.

    Attributes:
        frames_per_hour: Sampling rate of the recording.
        infected_window_hours: Closed interval of hours since the first frame, or None for all pages.
        uninfected_window_hours: The same for uninfected stacks; None: see ``uninfected_use_all``.
        infected_stride: Step between pages; values below 1 count as 1.
        uninfected_stride: The same for uninfected stacks.
        uninfected_use_all: Without a window: all pages, otherwise only the first.
    """

    frames_per_hour: float = 2.0
    infected_window_hours: Window | None = (16.0, 30.0)
    uninfected_window_hours: Window | None = None
    infected_stride: int = 1
    uninfected_stride: int = 1
    uninfected_use_all: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping with windows as lists."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def summary(self) -> str:
        """One line for the log."""
        uninfected = "all" if self.uninfected_use_all else "first-only"
        return (
            f"frames_per_hour={self.frames_per_hour:.2f}"
            f" | infected={_window_text(self.infected_window_hours, 'all')} stride={self.infected_stride}"
            f" | uninfected={_window_text(self.uninfected_window_hours, uninfected)}"
            f" stride={self.uninfected_stride}"
        )

    def window(self, condition: str) -> Window | None:
        """The window that applies to ``infected`` or ``uninfected`` stacks."""
        return self.infected_window_hours if condition == "infected" else self.uninfected_window_hours

    def hours(self, frame_index: int) -> float:
        """Hours since the first frame."""
        return frame_index / max(self.frames_per_hour, 1e-6)

    def window_problem(self, condition: str, n_frames: int) -> str | None:
        """Why the window selects no page of a recording of ``n_frames`` pages; None when it selects some."""
        window = self.window(condition)
        if window is None:
            return None
        name = _window_text(window, "")
        if window[1] < window[0]:
            return f"window {name} h is reversed (its end lies before its start)"
        start, end = self._bounds(window)
        if start > n_frames - 1:
            last = self.hours(n_frames - 1)
            return f"window {name} h begins after the last of {n_frames} frames, which is at {last:g} h"
        if end < 0:
            return f"window {name} h ends before the recording begins"
        return None

    def indices(self, condition: str, n_frames: int, *, faithful: bool = False) -> list[int]:
        """Pages of a stack that become samples.

        Both ends of a window are inclusive. A window that lies outside the recording or is reversed selects
        nothing; the original then takes one frame (usually the last one).

        Args:
            condition: ``infected`` or ``uninfected`` (the folder, not the label).
            n_frames: Pages of the stack, at least 1.
            faithful: Return the original's single frame where the window selects none.

        Returns:
            Increasing page indices in [0, n_frames).
        """
        if n_frames < 1:
            raise ValueError(f"a stack has at least one page, found {n_frames}")
        infected = condition == "infected"
        stride = max(1, self.infected_stride if infected else self.uninfected_stride)
        window = self.window(condition)
        if window is None:
            everything = infected or self.uninfected_use_all
            return list(range(0, n_frames, stride)) if everything else [0]
        if not faithful and self.window_problem(condition, n_frames) is not None:
            return []
        first, last = self._bounds(window)
        start = max(0, first)
        end = min(max(start, last), n_frames - 1)
        return list(range(start, end + 1, stride)) or [min(start, n_frames - 1)]

    def _bounds(self, window: Window) -> tuple[int, int]:
        return math.floor(window[0] * self.frames_per_hour), math.floor(window[1] * self.frames_per_hour)


def resolve_policy(frames: Mapping[str, Any] | BaseModel | None, split: str) -> FramePolicy:
    """The policy of one split.

    Without any of the keys train, val/validation, test/eval/evaluation and default, the mapping holds for
    every split. Otherwise the plain keys are the base, and the first mapping of the split's names overrides
    them; val and test without one of their own take ``train``, then ``default``. A null counts as absent.

    Args:
        frames: ``data.frames`` as a mapping or as the configuration model (only keys that were set count).
        split: ``train``, ``val`` or ``test``.

    Returns:
        The resolved policy; unknown keys are ignored here (the configuration model refuses them).
    """
    if split not in SPLIT_ALIASES:
        raise ValueError(f"split must be one of {', '.join(SPLIT_ALIASES)}, found {split!r}")
    settings: Mapping[str, Any]
    settings = frames.model_dump(exclude_unset=True) if isinstance(frames, BaseModel) else (frames or {})
    merged = {key: value for key, value in settings.items() if key not in SPECIAL_KEYS}
    names = SPLIT_ALIASES[split] + (() if split == "train" else ("train",)) + ("default",)
    override = next((settings[n] for n in names if isinstance(settings.get(n), Mapping)), {})
    return _policy({**merged, **override})


def interval_override(
    frames: Mapping[str, Any] | None,
    start: float,
    end: float,
    mode: Literal["train-test", "test-only"] = "train-test",
    match_uninfected: bool = False,
) -> dict[str, Any]:
    """``data.frames`` with the infected window replaced, for sweeps over intervals.

    Args:
        frames: The configuration's mapping; it is not changed.
        start: First hour.
        end: Last hour.
        mode: ``train-test`` replaces the window of every split, ``test-only`` that of the test split.
        match_uninfected: Use the window for uninfected stacks too.

    Returns:
        A new mapping.
    """
    if mode not in ("train-test", "test-only"):
        raise ValueError(f"mode must be train-test or test-only, found {mode!r}")
    result: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in (frames or {}).items()
    }
    window: dict[str, Any] = {"infected_window_hours": [start, end]}
    if match_uninfected:
        window["uninfected_window_hours"] = [start, end]
    targets = ["test"]
    if mode == "train-test":
        # The old name would win over the new window.
        result.pop("window_hours", None)
        result.update({key: list(value) for key, value in window.items()})
        targets = ["train", "val", "test"] + [key for key in SPECIAL_KEYS if key in result]
    for target in dict.fromkeys(targets):
        section = dict(result[target]) if isinstance(result.get(target), Mapping) else {}
        section.pop("window_hours", None)
        result[target] = {**section, **{key: list(value) for key, value in window.items()}}
    return result


def sliding_override(
    frames: Mapping[str, Any] | None, start: float, end: float, match_uninfected: bool = False
) -> dict[str, Any]:
    """``data.frames`` for one sliding window: every split sees [start, end] only."""
    return interval_override(frames, start, end, "train-test", match_uninfected)


def _policy(settings: Mapping[str, Any]) -> FramePolicy:
    default = FramePolicy()
    infected = settings.get("window_hours")
    if infected is None:
        infected = settings.get("infected_window_hours", default.infected_window_hours)
    return FramePolicy(
        frames_per_hour=float(settings.get("frames_per_hour", default.frames_per_hour)),
        infected_window_hours=_window(infected, "infected_window_hours"),
        uninfected_window_hours=_window(settings.get("uninfected_window_hours"), "uninfected_window_hours"),
        infected_stride=int(settings.get("infected_stride", default.infected_stride)),
        uninfected_stride=int(settings.get("uninfected_stride", default.uninfected_stride)),
        uninfected_use_all=bool(settings.get("uninfected_use_all", default.uninfected_use_all)),
    )


def _window(value: Any, key: str) -> Window | None:
    if value is None:
        return None
    try:
        start, end = (float(hour) for hour in value)
    except (TypeError, ValueError):
        raise ValueError(
            f"data.frames.{key}: expected two hours [start, end] or null, found {value!r}"
        ) from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"data.frames.{key}: hours must be finite, found [{start}, {end}]")
    return start, end


def _window_text(window: Window | None, otherwise: str) -> str:
    return otherwise if window is None else f"[{window[0]:.1f},{window[1]:.1f}]"
