"""What one visitor does with one image: clicks, choices, and what there is to see. Nothing here knows of a browser."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aespa.clicks import suggest
from aespa.errors import DataError
from aespa.original.demo import dice_iou
from aespa.page.samples import Sample
from aespa.predictor import AespaPredictor, Click, Prediction, Proposal

K = 4
View = Literal["mask", "probability", "entropy", "agreement"]
VIEWS: tuple[View, ...] = ("mask", "probability", "entropy", "agreement")
Floats = NDArray[np.floating]


class MakePredictor(Protocol):
    """Makes the predictor of a new visitor over the shared network."""

    def __call__(self) -> AespaPredictor: ...  # noqa: D102


class Overlap(NamedTuple):
    """How well the mask fits a rater's.

    Attributes:
        name: Of the rater.
        dice: In [0, 1]; 1 for two empty masks.
        iou: Likewise.
    """

    name: str
    dice: float
    iou: float


@dataclass(frozen=True)
class Timing:
    """Seconds that the last steps took.

    Attributes:
        encoding: Of the image, once.
        answer: Of the last click, choice or step back, until the mask was there; None before the first.
    """

    encoding: float = 0.0
    answer: float | None = None


class Session:
    """One visitor's image and everything told about it.

    Args:
        predictor: Of this visitor alone; its network may be shared.
        k: Proposals to choose from.

    Attributes:
        lock: Held by whoever works with the session; two clicks at a time come one after the other.
        revision: Changes with everything that may change the proposals.
        answers: How often the page was drawn for this visitor; the page carries it.
        suggestion: A click that was suggested and not yet made.
        view: What the visitor looks at.
        timing: How long things took.
    """

    def __init__(self, predictor: AespaPredictor, k: int = K) -> None:
        self.lock = threading.RLock()
        self.revision = 0
        self.answers = 0
        self.suggestion: Click | None = None
        self.view: View = "mask"
        self.timing = Timing()
        self._predictor = predictor
        self._k = k
        self._sample: Sample | None = None
        self._prediction: Prediction | None = None
        self._proposals: list[Proposal] | None = None

    # --- the image

    def open(self, sample: Sample) -> None:
        """Show another image: it is encoded and segmented at once.

        Raises:
            DataError: The image cannot be used; then the one before stays as it was.
        """
        started = time.perf_counter()
        self._predictor.set_image(sample.image)
        self._sample = sample
        self.timing = Timing(time.perf_counter() - started)
        self._changed()
        self.prediction()

    @property
    def sample(self) -> Sample:
        """The image that is shown.

        Raises:
            DataError: There is none yet.
        """
        if self._sample is None:
            raise DataError("there is no image yet: pick an example or upload one")
        return self._sample

    @property
    def has_image(self) -> bool:
        """Whether there is an image."""
        return self._sample is not None

    # --- interactions

    def click(self, x: int, y: int, label: int) -> None:
        """Click at a pixel of the image: label 1 inside, 0 outside.

        Raises:
            DataError: Outside of the image, or there is none.
        """
        started = time.perf_counter()
        self._predictor.click(x, y, label)
        self._answered(started)

    def choose(self, number: int, revision: int) -> None:
        """Follow a proposal.

        Args:
            number: Place among `proposals`, from 0.
            revision: Of the proposals that the visitor saw.

        Raises:
            DataError: They have changed since, or there is no such proposal.
        """
        if revision != self.revision:
            raise DataError("the proposals have changed in the meantime: choose again")
        started = time.perf_counter()
        self._predictor.choose(number, self._k)
        self._answered(started)

    def undo(self) -> None:
        """Take back the last click or choice, if there is one."""
        started = time.perf_counter()
        if self._predictor.undo():
            self._answered(started)

    def redo(self) -> None:
        """Repeat what was taken back last, if anything."""
        started = time.perf_counter()
        if self._predictor.redo():
            self._answered(started)

    def reset(self) -> None:
        """Forget all clicks; the image stays."""
        started = time.perf_counter()
        self._predictor.reset()
        self._answered(started)

    def suggest(self) -> str:
        """Suggest the click that brings the mask nearer to the best rater; asked again, make it.

        Returns:
            A sentence for the visitor.

        Raises:
            DataError: Nobody outlined the image.
        """
        if self.suggestion is not None:
            x, y, label = self.suggestion
            self.click(x, y, label)
            return f"Clicked at ({x}, {y}), {'inside' if label else 'outside'}."
        best = self.best_rater()
        if best is None:
            raise DataError("no rater outlined this image, so there is nobody to suggest a click for")
        wanted = self.sample.raters[self.sample.rater_names.index(best.name)]
        found = suggest(self.prediction().mask, wanted)
        if found is None:
            return f"The mask is exactly that of {best.name}: there is nothing to suggest."
        self.suggestion = Click(*found)
        x, y, label = found
        return f"Suggested for {best.name}: ({x}, {y}), {'inside' if label else 'outside'}. Press again to take it."

    @property
    def clicks(self) -> list[Click]:
        """The clicks so far."""
        return self._predictor.clicks

    @property
    def n_interactions(self) -> int:
        """Clicks and choices so far."""
        return len(self._predictor.interactions)

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return self._predictor.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether something was taken back."""
        return self._predictor.can_redo

    # --- what there is to see

    def prediction(self) -> Prediction:
        """Return the mask and its maps, computed once a step.

        Raises:
            DataError: There is no image.
        """
        if self._prediction is None:
            self._prediction = self._predictor.predict()
        return self._prediction

    def proposals(self) -> list[Proposal]:
        """Return the ways in which the image may be outlined, computed once a step.

        Raises:
            DataError: There is no image.
        """
        if self._proposals is None:
            self._proposals = self._predictor.proposals(self._k)
        return self._proposals

    def agreement(self) -> Floats:
        """Return for every pixel the share of raters who marked it; without raters, of samples, by proposal.

        Returns:
            float ``[H, W]`` in [0, 1].
        """
        sample = self.sample
        if sample.n_raters:
            return sample.raters.mean(axis=0)
        share = np.zeros(sample.image.shape[:2], np.float32)
        for proposal in self.proposals():
            share += np.float32(proposal.share) * proposal.mask
        return share

    def heat(self) -> Floats | None:
        """Return the map that the visitor looks at, ``[H, W]`` in [0, 1]; None for the mask."""
        if self.view == "mask":
            return None
        if self.view == "agreement":
            return self.agreement()
        found = self.prediction()
        return found.probability if self.view == "probability" else found.entropy

    def overlaps(self) -> list[Overlap]:
        """Return how well the mask fits every rater; empty where nobody outlined the image."""
        if not self.has_image or not self.sample.n_raters:
            return []
        mask = self.prediction().mask
        pairs = zip(self.sample.rater_names, self.sample.raters, strict=True)
        return [Overlap(name, *dice_iou(mask, rater)) for name, rater in pairs]

    def best_rater(self) -> Overlap | None:
        """Return the rater whom the mask fits best, the first of equals; those with empty masks do not count."""
        valid = [
            each for each, rater in zip(self.overlaps(), self.sample.raters, strict=False) if rater.any()
        ]
        return max(valid, key=lambda each: each.dice, default=None)

    # --- inside

    def _changed(self) -> None:
        self.revision += 1
        self._prediction = self._proposals = self.suggestion = None

    def _answered(self, started: float) -> None:
        """Note how long the answer took, which is computed here."""
        self._changed()
        self.prediction()
        self.timing = Timing(self.timing.encoding, time.perf_counter() - started)
