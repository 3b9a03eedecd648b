"""Predictions of a set of frames with their truth; two sets are joined by frame, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infection_mt.probabilities import infected_logit, sigmoid
from infection_mt.sample_keys import group_name, hours_of, number_names, number_stacks, sample_key

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Outputs of a model on N frames, with the truth.

    Attributes:
        probability: P(infected), shape ``[N]``; NaN for a model that does not classify.
        logit: Log-odds of infected (difference of the two logits), shape ``[N]``; NaN like `probability`.
        time: Predicted hours, shape ``[N]``; NaN for a model without a time output.
        time_target: True hours, shape ``[N]``.
        label: 1 infected, 0 uninfected, shape ``[N]``.
        hours: Hours since the first frame, shape ``[N]``; NaN when unknown.
        stack_index: Stack of every frame, counted in order of first appearance, shape ``[N]``.
        keys: ``well/position/frame``, unique.
        metadata: One mapping per frame with the keys of the original's ``test_metadata.jsonl``.
    """

    probability: Floats
    logit: Floats
    time: Floats
    time_target: Floats
    label: Integers
    hours: Floats
    stack_index: Integers
    keys: list[str]
    metadata: list[dict[str, Any]] = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self.keys)
        for entry in fields(self):
            length = len(getattr(self, entry.name))
            if length != n:
                raise ValueError(
                    f"{entry.name} has {length} entries for {n} keys: give one of each per frame"
                )
        if not np.isin(self.label, (0, 1)).all():
            raise ValueError(f"label must hold only 0 and 1, found {np.unique(self.label).tolist()}")
        if len(set(self.keys)) != n:
            doubled = sorted({key for key in self.keys if self.keys.count(key) > 1})[:3]
            raise ValueError(
                f"frames occur more than once, for example {doubled}: sample keys must be unique"
            )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.keys)

    @classmethod
    def from_outputs(
        cls,
        logits: ArrayLike | None,
        time: ArrayLike | None,
        label: ArrayLike,
        time_target: ArrayLike,
        *,
        metadata: Sequence[Mapping[str, Any]],
        keys: Sequence[str] | None = None,
        hours: ArrayLike | None = None,
        stack_index: ArrayLike | None = None,
    ) -> Predictions:
        """Collect a network's outputs.

        Args:
            logits: Shape ``[N, C]`` with C ≥ 2 (column 1 is infected), or one logit per frame, ``[N]`` or
                ``[N, 1]``; None for a model that does not classify.
            time: Hours, shape ``[N]`` or ``[N, 1]``; None for a model without a time output.
            label: 0 or 1, shape ``[N]``.
            time_target: Hours, shape ``[N]`` or ``[N, 1]``.
            metadata: One mapping per frame.
            keys: Sample keys; None builds them from the metadata.
            hours: Hours since the first frame; None takes ``hours_since_start`` of the metadata.
            stack_index: Stack of every frame; None numbers the paths of the metadata.

        Returns:
            The predictions, in float64.
        """
        truth = np.asarray(label).reshape(-1).astype(np.int64)
        missing = np.full(truth.size, np.nan)
        logit = missing if logits is None else infected_logit(logits)
        rows = [dict(row) for row in metadata]
        if hours is None:
            hours = hours_of(rows)
        return cls(
            probability=sigmoid(logit),
            logit=logit,
            time=missing if time is None else np.asarray(time, dtype=np.float64).reshape(-1),
            time_target=np.asarray(time_target, dtype=np.float64).reshape(-1),
            label=truth,
            hours=np.asarray(hours, dtype=np.float64),
            stack_index=number_stacks(rows)
            if stack_index is None
            else np.asarray(stack_index, dtype=np.int64),
            keys=[sample_key(row) for row in rows] if keys is None else list(keys),
            metadata=rows,
        )

    @property
    def has_classes(self) -> bool:
        """Whether the model classifies."""
        return bool(len(self) and not np.isnan(self.probability).all())

    @property
    def has_time(self) -> bool:
        """Whether the model estimates a time."""
        return bool(len(self) and not np.isnan(self.time).all())

    def subset(self, selection: ArrayLike) -> Predictions:
        """Return the frames of a boolean mask or a list of indices, in that order.

        Args:
            selection: Mask, shape ``[N]``, or indices, shape ``[M]``.

        Returns:
            The chosen frames.
        """
        chosen = np.asarray(selection)
        indices = np.nonzero(chosen)[0] if chosen.dtype == bool else chosen.astype(np.int64)
        arrays = {
            name: getattr(self, name)[indices]
            for name in ("probability", "logit", "time", "time_target", "label", "hours", "stack_index")
        }
        return replace(
            self, **arrays, keys=[self.keys[i] for i in indices], metadata=[self.metadata[i] for i in indices]
        )

    def groups(self, kind: Literal["stack", "position", "well"] = "stack") -> Integers:
        """Return the group of every frame, numbered in order of first appearance.

        Args:
            kind: ``stack`` (a file), ``position`` (equal numbers of different wells differ) or ``well``;
                where the file names tell no well the folder's condition stands for it.

        Returns:
            Group numbers, shape ``[N]``.
        """
        if kind == "stack":
            return self.stack_index
        names = [group_name(row, kind) for row in self.metadata]
        return number_names(names)

    def join(self, other: Predictions) -> tuple[Predictions, Predictions]:
        """Return the frames that both have, in this object's order.

        Args:
            other: Predictions of another model.

        Returns:
            Two tables of equal length whose rows belong to the same frames.

        Raises:
            ValueError: Without common frames, or when both disagree on a frame's label.
        """
        row_of = {key: row for row, key in enumerate(other.keys)}
        pairs = [(i, row_of[key]) for i, key in enumerate(self.keys) if key in row_of]
        if not pairs:
            raise ValueError(
                "the two sets of predictions share no frame: "
                f"keys look like {self.keys[:1]} and {other.keys[:1]}"
            )
        mine = self.subset([row for row, _ in pairs])
        theirs = other.subset([row for _, row in pairs])
        differing = np.nonzero(mine.label != theirs.label)[0]
        if differing.size:
            raise ValueError(
                f"labels differ for {differing.size} common frames, first {mine.keys[differing[0]]}"
            )
        return mine, theirs

    def save(self, folder: Path | str) -> list[Path]:
        """Write ``test_predictions.npz`` and ``test_metadata.jsonl``, atomically.

        Args:
            folder: Created if needed.

        Returns:
            The two paths.
        """
        from infection_mt.prediction_files import write_predictions

        return write_predictions(folder, self)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        onset_hour: float | None = None,
        clamp_range: tuple[float | None, float | None] = (0.0, 48.0),
    ) -> Predictions:
        """Read predictions of this package or of the original, either layout.

        Args:
            path: The npz file or its folder; the metadata are read from ``test_metadata.jsonl`` beside it.
            onset_hour: Infection onset; needed for the second layout, which stores hours since the first
                frame in place of the time targets.
            clamp_range: Bounds of the time targets, used like `onset_hour`.

        Returns:
            The predictions.

        Raises:
            FileNotFoundError: Without the npz file.
            PredictionFileError: For a file that is cut, of unknown layout, or at odds with its metadata.
        """
        from infection_mt.prediction_files import read_predictions

        return read_predictions(path, onset_hour=onset_hour, clamp_range=clamp_range)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Put predictions of disjoint frames one after the other, for example the test sides of rotating folds.

    Args:
        parts: At least one; no frame may occur twice.

    Raises:
        ValueError: When parts share frames.
    """
    names = ("probability", "logit", "time", "time_target", "label", "hours")
    keys = [key for part in parts for key in part.keys]
    if len(set(keys)) != len(keys):
        raise ValueError(
            f"{len(keys) - len(set(keys))} frames occur in more than one part; average them instead"
        )
    metadata = [row for part in parts for row in part.metadata]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Predictions(**arrays, stack_index=number_stacks(metadata), keys=keys, metadata=metadata)
