"""Interactive segmentation of one image at a time, in the image's own pixels.

The image is embedded once; every click then costs only the prompt encoder, the mixture and the mask decoder. What one
user has told lives in the predictor alone, so that any number of predictors may share a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from aespa.config import Mode
from aespa.dialogue import Dialogue
from aespa.errors import DataError
from aespa.input_image import as_input_image
from aespa.models.network import AespaNetwork
from medshared.gpu import select_device

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
SAMPLES = 48
CLUSTERS = 4


class Click(NamedTuple):
    """A click in the image's own pixels.

    Attributes:
        x: Column, from 0.
        y: Row, from 0.
        label: 1 inside, 0 outside the wanted mask.
    """

    x: int
    y: int
    label: int


class Box(NamedTuple):
    """A box in the image's own pixels: two opposite corners, both inside it."""

    x0: int
    y0: int
    x1: int
    y1: int


class Choice(NamedTuple):
    """A proposal that was followed: which one, from 0, of the list of ``k``."""

    number: int
    k: int


class Start(NamedTuple):
    """A mask of another image that was taken as the start: how many pixels of its low-resolution logits it covers."""

    pixels: int


@dataclass(frozen=True)
class Prediction:
    """What the network recommends now, at the image's own resolution.

    Attributes:
        mask: bool ``[H, W]``, probability above 0.5.
        probability: float32 ``[H, W]`` in [0, 1]; in SPA the sigmoid of the samples' mean logits.
        entropy: float32 ``[H, W]`` in bits, in [0, 1]: of the samples' mean probability in SPA, else of
            ``probability``.
        logits: float32 ``[4g, 4g]``, the recommended mask as the decoder gives it.
    """

    mask: Bools
    probability: Floats
    entropy: Floats
    logits: Floats


@dataclass(frozen=True)
class Proposal:
    """One way in which the image may be outlined.

    Attributes:
        mask: bool ``[H, W]``, at the image's own resolution.
        share: Part of the samples that say so, in (0, 1]; those of all proposals sum to 1.
    """

    mask: Bools
    share: float


class AespaPredictor:
    """Segments an image while a user clicks.

    A click, a box or a choice is one interaction. As in training, the logits and the responsibilities of the mask that
    was shown are carried to the next interaction.

    Args:
        network: May be shared with other predictors, which never write to it; it is put in evaluation mode.
        device: Where the network computes, such as ``"cpu"`` or ``"auto"``; the network is moved there. None = where
            it is.
        mode: What the network was trained for: ``"AESPA"`` shows the mask of the mixture's mean, ``"SPA"`` the mean
            of many samples. A network without preferences is a plain SAM in any mode.
        n_samples: Samples of the latent: all of SPA's predictions, and the proposals of both.
        seed: Of the samples. The same interactions give the same masks.

    Example:
        >>> predictor = AespaPredictor(network)  # doctest: +SKIP
        >>> predictor.set_image(image)  # doctest: +SKIP
        >>> predictor.click(120, 80, 1)  # doctest: +SKIP
        >>> predictor.predict().mask.sum()  # doctest: +SKIP
    """

    def __init__(
        self,
        network: AespaNetwork,
        *,
        device: str | None = None,
        mode: Mode = "AESPA",
        n_samples: int = SAMPLES,
        seed: int = 0,
    ) -> None:
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, found {n_samples}")
        self.network = (network if device is None else network.to(select_device(device))).eval()
        self.mode: Mode = mode if network.architecture.preferences else "SAM"
        self.n_samples = n_samples
        self.seed = seed
        self._dialogue: Dialogue | None = None
        self._shape = (0, 0)

    # --- the image

    @torch.no_grad()
    def set_image(self, image: ArrayLike) -> None:
        """Embed an image and forget all interactions.

        Args:
            image: uint8 ``[H, W]`` or ``[H, W, 3]``, any size below 50 megapixels; ``[H, W, 4]`` if it is opaque.

        Raises:
            DataError: For deeper, transparent, empty and too large images, saying what to do.
        """
        from aespa.data.reading import resize_image_uint8

        pixels = as_input_image(image)
        resized = resize_image_uint8(pixels, self.network.architecture.image_size)
        batch = torch.from_numpy(resized.astype(np.float32) / 255).permute(2, 0, 1)[None]
        features = self.network.encode(batch.to(self.network.initial_responsibilities.device))
        self._dialogue = Dialogue(self.network, features, self.mode, self.n_samples, self.seed)
        self._shape = pixels.shape[0], pixels.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        self._started()
        return self._shape

    # --- interactions

    def click(self, x: int, y: int, label: int) -> None:
        """Say that a pixel lies inside (1) or outside (0) of the wanted mask.

        Args:
            x: Column in the image's own pixels, from 0.
            y: Row.
            label: 1 or 0.

        Raises:
            DataError: For a pixel outside of the image, naming its size, and for another label.
        """
        dialogue = self._started()
        if label not in (0, 1):
            raise DataError(f"a click's label is 1 (inside) or 0 (outside), found {label!r}")
        self._check_inside("the click", x, y)
        dialogue.click(*self._to_network(x, y), int(label), Click(int(x), int(y), int(label)))

    def box(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Say that the wanted mask lies in a box; it replaces an earlier box. SAM was trained with boxes, AESPA not.

        Args:
            x0: Column of a corner, in the image's own pixels.
            y0: Row of that corner.
            x1: Column of the opposite corner, inside the box, too.
            y1: Row of the opposite corner.

        Raises:
            DataError: For corners outside of the image, naming its size.
        """
        dialogue = self._started()
        for x, y in ((x0, y0), (x1, y1)):
            self._check_inside("the box's corner", x, y)
        low = self._to_network(min(x0, x1), min(y0, y1))
        high = self._to_network(max(x0, x1), max(y0, y1))
        dialogue.draw_box((*low, *high), Box(int(x0), int(y0), int(x1), int(y1)))

    def choose(self, number: int, k: int = CLUSTERS) -> None:
        """Follow a proposal: its mask is the prompt from which the next prediction starts.

        Args:
            number: Place in the list of ``proposals(k)``, from 0.
            k: As given to ``proposals``.

        Raises:
            DataError: For a place that the list does not have.
        """
        dialogue = self._started()
        groups = dialogue.groups(k)
        if not 0 <= number < len(groups):
            raise DataError(f"there are {len(groups)} proposals, 0 to {len(groups) - 1}; found {number}")
        dialogue.choose(groups[number], Choice(number, k))

    def start_from(self, logits: Floats) -> None:
        """Start from the mask of another image, such as the slice beside this one, as from a proposal.

        Args:
            logits: ``[4g, 4g]`` of that image's prediction.

        Raises:
            DataError: For another shape.
        """
        dialogue = self._started()
        side = self.network.architecture.low_res
        if logits.shape != (side, side):
            raise DataError(
                f"expected the logits of a prediction, {[side, side]}, found {list(logits.shape)}"
            )
        given = torch.as_tensor(logits, dtype=torch.float32, device=dialogue.features.device)[None, None]
        dialogue.start_from(given, Start(int((logits > 0).sum())))

    def undo(self) -> bool:
        """Take back the last interaction; return whether there was one."""
        return self._started().undo()

    def redo(self) -> bool:
        """Repeat what was taken back last; return whether there was anything."""
        return self._started().redo()

    def reset(self) -> None:
        """Forget all interactions; the image stays."""
        self._started().reset()

    @property
    def interactions(self) -> list[Click | Box | Choice | Start]:
        """What the user has told, in order, without what was taken back."""
        return [] if self._dialogue is None else self._dialogue.actions

    @property
    def clicks(self) -> list[Click]:
        """The clicks among the interactions."""
        return [each for each in self.interactions if isinstance(each, Click)]

    @property
    def can_undo(self) -> bool:
        """Whether there is an interaction to take back."""
        return self._dialogue is not None and self._dialogue.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether something was taken back."""
        return self._dialogue is not None and self._dialogue.can_redo

    # --- answers

    @torch.no_grad()
    def predict(self) -> Prediction:
        """Return the recommended mask.

        Raises:
            DataError: Before `set_image`.
        """
        said = self._started().said()
        probability = torch.sigmoid(self._native(said.mean[0, 0]))
        mean = probability
        if len(said.logits) > 1:
            each = torch.sigmoid(self.network.upsample(said.logits[:, 0, 0].float()))
            mean = self._resized(each.mean(dim=0))
        return Prediction(
            (probability > 0.5).cpu().numpy(),
            probability.cpu().numpy(),
            _entropy(mean).cpu().numpy(),
            said.mean[0, 0].float().cpu().numpy(),
        )

    @torch.no_grad()
    def proposals(self, k: int = CLUSTERS) -> list[Proposal]:
        """Return different ways to outline the image, the most frequent first.

        Samples of the latent are drawn from the mixture as it is now, decoded, and grouped by K-means. AESPA was
        trained with the mixture's mean only, so that its samples may hardly differ. A plain SAM has one proposal.

        Args:
            k: Groups, from 1 to the number of samples; fewer are returned when samples are equal.

        Raises:
            DataError: For more groups than samples, and before `set_image`.
        """
        return [
            Proposal((self._native(group.logits[0, 0]) > 0).cpu().numpy(), group.share)
            for group in self._started().groups(k)
        ]

    # --- inside

    def _started(self) -> Dialogue:
        """Return the interactions with the image."""
        if self._dialogue is None:
            raise DataError("there is no image yet: call set_image first")
        return self._dialogue

    def _check_inside(self, what: str, x: int, y: int) -> None:
        height, width = self._shape
        if x != int(x) or y != int(y):
            raise DataError(f"{what} ({x}, {y}) must name a whole pixel")
        if not (0 <= x < width and 0 <= y < height):
            raise DataError(
                f"{what} ({x}, {y}) lies outside of the image of {width} x {height} pixels "
                f"(x from 0 to {width - 1}, y from 0 to {height - 1})"
            )

    def _to_network(self, x: int, y: int) -> tuple[float, float]:
        """Return the place of a pixel's centre as an index of the network's input; the encoder adds one half."""
        height, width = self._shape
        side = self.network.architecture.image_size
        return (x + 0.5) * side / width - 0.5, (y + 0.5) * side / height - 0.5

    def _native(self, logits: Tensor) -> Tensor:
        """Bring logits ``[4g, 4g]`` to the image's own resolution."""
        return self._resized(self.network.upsample(logits.float()))

    def _resized(self, maps: Tensor) -> Tensor:
        """Resize a map ``[S, S]`` to ``[H, W]``."""
        if tuple(maps.shape) == self._shape:
            return maps
        return functional.interpolate(maps[None, None], self._shape, mode="bilinear", align_corners=False)[
            0, 0
        ]


def _entropy(p: Tensor) -> Tensor:
    """Return the entropy of probabilities in bits."""
    tiny, q = torch.finfo(p.dtype).tiny, 1 - p  # 0 · log 0 is 0
    nats = p.clamp_min(tiny).log_().mul_(p).addcmul_(q, q.clamp_min(tiny).log_())
    return nats.mul_(-1 / math.log(2)).clamp_(0, 1)
