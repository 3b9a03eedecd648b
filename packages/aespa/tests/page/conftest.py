"""A predictor whose answers are known beforehand, and a page over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from aespa.errors import DataError
from aespa.input_image import as_input_image
from aespa.predictor import Choice, Click, Prediction, Proposal

REACH = 2  # a click paints the square of 5 x 5 pixels around it


class SquarePredictor:
    """Stands in for `AespaPredictor`: bright pixels are the object, and a click paints a square."""

    def __init__(self) -> None:
        self.image = None
        self.steps, self.undone = [], []

    def set_image(self, image) -> None:
        self.image = as_input_image(image)
        self.reset()

    def click(self, x, y, label) -> None:
        height, width = self.image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise DataError(f"the click ({x}, {y}) lies outside of the image of {width} x {height} pixels")
        self._add(Click(x, y, label))

    def choose(self, number, k=4) -> None:
        if not 0 <= number < k:
            raise DataError(f"there are {k} proposals, found {number}")
        self._add(Choice(number, k))

    def _add(self, step) -> None:
        self.steps.append(step)
        self.undone = []

    def undo(self) -> bool:
        if self.steps:
            self.undone.append(self.steps.pop())
        return bool(self.undone)

    def redo(self) -> bool:
        possible = bool(self.undone)
        if possible:
            self.steps.append(self.undone.pop())
        return possible

    def reset(self) -> None:
        self.steps, self.undone = [], []

    @property
    def interactions(self):
        return list(self.steps)

    @property
    def clicks(self):
        return [step for step in self.steps if isinstance(step, Click)]

    @property
    def can_undo(self) -> bool:
        return bool(self.steps)

    @property
    def can_redo(self) -> bool:
        return bool(self.undone)

    def _mask(self):
        mask = self.image.mean(axis=2) > 127
        for step in self.steps:
            if isinstance(step, Choice):
                mask = self._ways(mask)[step.number]
                continue
            rows, columns = (slice(max(0, at - REACH), at + REACH + 1) for at in (step.y, step.x))
            mask = mask.copy()
            mask[rows, columns] = step.label == 1
        return mask

    def _ways(self, mask):
        half = np.arange(mask.shape[1]) < mask.shape[1] // 2
        return [mask, mask & half, mask | half, ~mask]

    def predict(self) -> Prediction:
        mask = self._mask()
        probability = np.where(mask, 0.9, 0.1).astype(np.float32)
        return Prediction(
            mask, probability, np.full(mask.shape, 0.25, np.float32), np.zeros((4, 4), np.float32)
        )

    def proposals(self, k=4):
        shares = (0.4, 0.3, 0.2, 0.1)
        return [Proposal(mask, share) for mask, share in zip(self._ways(self._mask()), shares, strict=True)]


@dataclass
class SquareModel:
    """Stands in for `PageModel`."""

    name: str = "squares"
    note: str = ""

    def predictor(self):
        return SquarePredictor()


@pytest.fixture
def square_predictor():
    return SquarePredictor()


@pytest.fixture(scope="session")
def square_model():
    return SquareModel(note="A network for tests.")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    """What `small_model` makes, from fewer and smaller images and fewer rounds: seconds instead of a minute."""
    from aespa.page import small_model

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AESPA_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, value in {"IMAGES": 240, "VALIDATION_IMAGES": 2, "SIZE_PX": 32, "ROUNDS": 2}.items():
            patched.setattr(small_model, name, value)
        return small_model.small_model()
