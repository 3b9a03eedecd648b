"""The samples of one side: which page of which stack, with its hour, label and onset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.data.policy import FramePolicy
from infection_mt.data.stacks import GroupKind, Stack

logger = logging.getLogger(__name__)
PreOnset = Literal["exclude", "uninfected", "keep"]


@dataclass(frozen=True, eq=False)
class FrameTable:
    """N frames of some stacks, in stack order and increasing time.

    Attributes:
        stacks: The stacks that ``stack_index`` points into.
        stack_index: [N] int64.
        frame_index: [N] int64, page numbers from 0.
        hours: [N] float64, hours since the first frame.
        label: [N] int64 class indices.
        onset: [N] float64, hour of infection of the stack (also given, and unused, for uninfected stacks).
        infected_frame: [N] bool, whether the frame counts as infected (folder, and ``pre_onset: uninfected``).
        frames_per_hour: Sampling rate, which turns channel offsets in hours into pages.
    """

    stacks: tuple[Stack, ...]
    stack_index: NDArray[np.int64]
    frame_index: NDArray[np.int64]
    hours: NDArray[np.float64]
    label: NDArray[np.int64]
    onset: NDArray[np.float64]
    infected_frame: NDArray[np.bool_]
    frames_per_hour: float = 2.0

    def __post_init__(self) -> None:
        for name in ("frame_index", "hours", "label", "onset", "infected_frame"):
            if getattr(self, name).shape != self.stack_index.shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, expected {self.stack_index.shape}"
                )

    def __len__(self) -> int:
        return len(self.stack_index)

    def infected(self) -> NDArray[np.bool_]:
        """[N] whether a frame counts as infected, whatever number its class has."""
        return self.infected_frame

    def metadata(self, i: int) -> dict[str, Any]:
        """The original's description of a sample, with its label."""
        stack = self.stacks[self.stack_index[i]]
        return {
            "path": str(stack.path),
            "condition": stack.condition,
            "position": stack.position,
            "frame_index": int(self.frame_index[i]),
            "hours_since_start": float(self.hours[i]),
            "label": int(self.label[i]),
        }

    def keys(self) -> list[str]:
        """Names of the samples, ``[run/][plate/]well/position/frame``: unique, and equal in every run."""
        names = [stack.key for stack in self.stacks]
        return [f"{names[s]}/{f}" for s, f in zip(self.stack_index, self.frame_index, strict=True)]

    def groups(self, kind: GroupKind) -> NDArray[np.int64]:
        """[N] number of the sample's stack, position, well, plate or run, counted in order of appearance."""
        numbers: dict[str, int] = {}
        of_stack = [numbers.setdefault(stack.group(kind), len(numbers)) for stack in self.stacks]
        return np.asarray(of_stack, dtype=np.int64)[self.stack_index]

    def subset(self, rows: ArrayLike) -> FrameTable:
        """The table of some rows.

        Args:
            rows: Boolean mask [N], or row numbers in the wanted order.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"the mask has shape {chosen.shape}, expected ({len(self)},)")
        else:
            chosen = chosen.astype(np.int64)
        return FrameTable(
            self.stacks,
            self.stack_index[chosen],
            self.frame_index[chosen],
            self.hours[chosen],
            self.label[chosen],
            self.onset[chosen],
            self.infected_frame[chosen],
            self.frames_per_hour,
        )


def build_table(
    stacks: Sequence[Stack],
    policy: FramePolicy,
    *,
    pre_onset: PreOnset = "exclude",
    onset_hour: float = 0.0,
    faithful: bool = False,
    uninfected_label: int | None = None,
) -> FrameTable:
    """Expand stacks to frames.

    Args:
        stacks: The stacks of one side.
        policy: Their frame selection.
        pre_onset: Frames of infected stacks before the onset are left out, counted as uninfected, or kept as
            infected frames (the original).
        onset_hour: Hour of infection of stacks that do not state their own.
        faithful: Windows outside the recording give the original's single frame instead of none.
        uninfected_label: Class of ``pre_onset: uninfected``; null: the label of the uninfected stacks, else 0.

    Raises:
        ValueError: The stacks of a condition give no frame at all, or two stacks have the same key.
    """
    shared = [key for key, n in Counter(stack.key for stack in stacks).items() if n > 1]
    if shared:
        raise ValueError(f"two stacks have the key {shared[0]}: samples could not be told apart")
    if uninfected_label is None:
        uninfected_label = next((s.label for s in stacks if s.condition != "infected"), 0)
    chosen = [_frames(stack, policy, pre_onset, onset_hour, faithful) for stack in stacks]
    _report(stacks, policy, chosen, faithful)
    counts = [len(frames) for frames in chosen]
    stack_index = np.repeat(np.arange(len(stacks), dtype=np.int64), counts)
    frame_index = np.concatenate(
        [np.asarray(frames, np.int64) for frames in chosen] or [np.empty(0, np.int64)]
    )
    hours = frame_index / max(policy.frames_per_hour, 1e-6)
    onset = np.asarray([_onset(stack, onset_hour) for stack in stacks], np.float64)[stack_index]
    infected = np.asarray([stack.condition == "infected" for stack in stacks], bool)[stack_index]
    label = np.asarray([stack.label for stack in stacks], np.int64)[stack_index]
    if pre_onset == "uninfected":
        before = infected & (hours < onset)
        label = np.where(before, np.int64(uninfected_label), label)
        infected = infected & ~before
    return FrameTable(
        tuple(stacks), stack_index, frame_index, hours, label, onset, infected, policy.frames_per_hour
    )


def _onset(stack: Stack, default: float) -> float:
    return default if stack.onset_hour is None else stack.onset_hour


def _frames(
    stack: Stack, policy: FramePolicy, pre_onset: PreOnset, onset_hour: float, faithful: bool
) -> list[int]:
    frames = policy.indices(stack.condition, stack.n_frames, faithful=faithful)
    if pre_onset == "exclude" and stack.condition == "infected":
        onset = _onset(stack, onset_hour)
        frames = [frame for frame in frames if policy.hours(frame) >= onset]
    return frames


def _report(stacks: Sequence[Stack], policy: FramePolicy, chosen: list[list[int]], faithful: bool) -> None:
    for condition in ("infected", "uninfected"):
        members = [(s, frames) for s, frames in zip(stacks, chosen, strict=True) if s.condition == condition]
        problems = [
            f"{stack.path.name}: {problem}"
            for stack, frames in members
            if (problem := _problem(stack, policy, frames)) is not None
        ]
        if not problems:
            continue
        if members and not any(frames for _, frames in members):
            raise ValueError(
                f"data.frames: none of the {len(members)} {condition} stacks gives a frame; for example {problems[0]}. "
                f"The policy is {policy.summary()}"
            )
        what = "the original takes one frame of each" if faithful else "they give no frame"
        logger.warning(
            "%d of %d %s stacks: %s: %s", len(problems), len(members), condition, what, "; ".join(problems)
        )


def _problem(stack: Stack, policy: FramePolicy, frames: list[int]) -> str | None:
    problem = policy.window_problem(stack.condition, stack.n_frames)
    if problem is None and not frames:
        problem = "all frames of the window lie before the onset"
    return problem
