"""Random changes of training patches: flips and quarter turns, and the strength of the two stains.

A patch's change depends on seed, epoch and position only, not on the batch it comes in: a resumed run repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Kind = Literal["none", "d4", "d4+stain"]
# Absorption of haematoxylin, eosin and DAB in red, green and blue light (Ruifrok & Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAIN_JITTER = 0.15  # largest relative change of a stain's amount
STAIN_OFFSET = 0.02  # largest amount of stain that is added or taken everywhere, in optical density
_FLIPS_TURNS = 8  # symmetries of the square
_FLIPS = (0, 2, 4, 6)  # those that keep the shape of a rectangle


class Augmentation:
    """What happens to training patches.

    Attributes:
        kind: ``none``; ``d4`` flips and turns by quarters; ``d4+stain`` also varies haematoxylin and eosin.
    """

    def __init__(self, kind: Kind = "none") -> None:
        self.kind = kind

    def apply(
        self,
        images: np.ndarray,
        masks: np.ndarray,
        seed: int,
        epoch: int,
        indices: Sequence[int] | np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change patches and their masks alike.

        Args:
            images: uint8 [n, H, W, 3].
            masks: uint8 [n, H, W].
            seed: Of the run.
            epoch: From 0.
            indices: Position of each patch in its set.

        Returns:
            New arrays of the same shapes and types; with ``none`` the given ones.
        """
        if self.kind == "none" or not len(images):
            return images, masks
        changed, labels = np.empty_like(images), np.empty_like(masks)
        factors = np.empty((len(images), 2, 2))
        for k, index in enumerate(indices):
            symmetry, factors[k] = _draw(images.shape[1:3], seed, epoch, int(index))
            changed[k], labels[k] = _turned(images[k], symmetry), _turned(masks[k], symmetry)
        if self.kind == "d4+stain":
            changed = jitter_stains(changed, factors[:, 0], factors[:, 1])
        return changed, labels

    def apply_to_points(
        self, points: np.ndarray, size: tuple[int, int], seed: int, epoch: int, index: int
    ) -> np.ndarray:
        """Move cell centres as `apply` moves the pixels of their patch.

        Args:
            points: float64 [m, 2], (x, y).
            size: (width, height) of the patch.
            seed: Of the run.
            epoch: From 0.
            index: Position of the patch in its set.

        Returns:
            float64 [m, 2].
        """
        if self.kind == "none":
            return points
        symmetry, _ = _draw((size[1], size[0]), seed, epoch, index)
        width, height = size
        x, y = points[:, 0], points[:, 1]
        if symmetry >= 4:
            x = width - x
        for _ in range(symmetry % 4):  # np.rot90 turns counter-clockwise
            x, y, width, height = y, width - x, height, width
        return np.stack([x, y], axis=1)


def _draw(shape: Sequence[int], seed: int, epoch: int, index: int) -> tuple[int, np.ndarray]:
    """Return a symmetry from 0 to 7, and for haematoxylin and eosin a factor and an offset each: [2, 2]."""
    generator = np.random.default_rng([seed, epoch, index])
    choice = int(generator.integers(_FLIPS_TURNS))
    symmetry = choice if shape[0] == shape[1] else _FLIPS[choice % len(_FLIPS)]
    factor = generator.uniform(1 - STAIN_JITTER, 1 + STAIN_JITTER, 2)
    return symmetry, np.stack([factor, generator.uniform(-STAIN_OFFSET, STAIN_OFFSET, 2)])


def _turned(array: np.ndarray, symmetry: int) -> np.ndarray:
    mirrored = array[:, ::-1] if symmetry >= 4 else array
    return np.rot90(mirrored, symmetry % 4)


def jitter_stains(images: np.ndarray, factors: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Change the amounts of haematoxylin and eosin: colour deconvolution, scaling, and back.

    Optical density is ``−log((I + 1) / 256)``; the amounts are its coordinates in the stains' absorption vectors.

    Args:
        images: uint8 [n, H, W, 3].
        factors: float [n, 2], multiply the amounts of haematoxylin and eosin.
        offsets: float [n, 2], added to them, in optical density.

    Returns:
        uint8 [n, H, W, 3]; with factors 1 and offsets 0 the same images.
    """
    vectors = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    inverse = np.linalg.inv(vectors)
    density = -np.log((np.arange(256) + 1) / 256).astype(np.float32)
    result = np.empty_like(images)
    for k, image in enumerate(images):
        # Deconvolution, scaling and composition are one 3 x 3 matrix.
        scale = np.diag([*factors[k], 1.0])
        matrix = (inverse @ scale @ vectors).astype(np.float32)
        shift = (np.array([*offsets[k], 0.0]) @ vectors).astype(np.float32)
        changed = density[image].reshape(-1, 3) @ matrix + shift
        result[k] = np.clip(np.rint(256 * np.exp(-changed) - 1), 0, 255).reshape(image.shape)
    return result
