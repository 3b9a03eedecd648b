"""Frames as tensors: the network's evaluation input, and random flips, rotations and jitter of whole batches.

The original augments with Pillow, one image at a time, before stacking. Here the same operations run on uint8
batches on any device. Flips and nearest-neighbour rotation give Pillow's result bit for bit, because they repeat
its 16.16 fixed-point arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from infection_mt.config import TransformsConfig
from infection_mt.data.pages import (
    PageError as PageError,
)
from infection_mt.data.pages import (
    page_to_image as page_to_image,
)
from infection_mt.data.pages import (
    prepare_image as prepare_image,
)
from medshared.gpu import derive_seed

MAX_ROTATION_DEGREES = 15.0
JITTER = 0.2  # factors are uniform in [1 − 0.2, 1 + 0.2]
_ORDERS = np.array(list(permutations(range(3))))  # of brightness, contrast, saturation
_CHUNK_PIXELS = 1 << 23  # bounds the index arrays of a rotation


def eval_tensor(frames: Tensor | NDArray[np.uint8], transforms: TransformsConfig) -> Tensor:
    """Normalise prepared frames: ``(x / 255 − mean) / std`` with three channels.

    Args:
        frames: uint8, [..., C, S, S] with C 1 or 3.
        transforms: ``mean`` and ``std``.

    Returns:
        float32 [..., 3, S, S].
    """
    x = torch.as_tensor(frames)
    if x.dtype != torch.uint8 or x.ndim < 3 or x.shape[-3] not in (1, 3):
        raise ValueError(f"expected uint8 frames [..., 1 or 3, S, S], found {x.dtype} {list(x.shape)}")
    constants = (transforms.mean, transforms.std)
    mean, std = (torch.tensor(v, dtype=torch.float32, device=x.device).view(3, 1, 1) for v in constants)
    return x.to(torch.float32).div_(255.0).sub(mean).div_(std)


@dataclass(frozen=True)
class AugmentationDraws:
    """What happens to each of N samples in one epoch; arrays of length N.

    Attributes:
        hflip: Mirror left and right.
        vflip: Mirror top and bottom.
        angle: Degrees, counter-clockwise.
        factors: [N, 3] brightness, contrast, saturation.
        order: [N, 3] order of these three.
    """

    hflip: NDArray[np.bool_]
    vflip: NDArray[np.bool_]
    angle: NDArray[np.float64]
    factors: NDArray[np.float64]
    order: NDArray[np.int64]


class Augmentation:
    """Random flips, rotation and colour jitter of uint8 batches, in the original's order.

    The draws are a pure function of seed, epoch and sample number: they do not depend on batch composition,
    workers, device or on where a resumed run starts.

    Example:
        >>> import torch
        >>> augmentation = Augmentation(TransformsConfig(image_size=8))
        >>> draws = augmentation.draw(100, seed=1, epoch=1)
        >>> augmentation.apply(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), draws, [17, 3]).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, transforms: TransformsConfig) -> None:
        self.transforms = transforms

    def draw(self, n: int, *, seed: int, epoch: int) -> AugmentationDraws:
        """Draw for samples 0 … n − 1 of one epoch; a larger n does not change the first draws."""
        generator = np.random.Generator(np.random.Philox(derive_seed(seed, "augmentation", epoch)))
        u = generator.random((n, 7))
        flip, rotate, jitter = (
            self.transforms.random_flip,
            self.transforms.random_rotation,
            self.transforms.color_jitter,
        )
        return AugmentationDraws(
            hflip=(u[:, 0] < 0.5) & flip,
            vflip=(u[:, 1] < 0.5) & flip,
            angle=(2 * u[:, 2] - 1) * MAX_ROTATION_DEGREES * rotate,
            factors=1 + (2 * u[:, 3:6] - 1) * JITTER * jitter,
            order=_ORDERS[np.minimum((u[:, 6] * len(_ORDERS)).astype(np.int64), len(_ORDERS) - 1)],
        )

    def apply(self, frames: Tensor, draws: AugmentationDraws, indices: ArrayLike) -> Tensor:
        """Augment a batch.

        Args:
            frames: [B, C, H, W] uint8 on any device, C 1 or 3.
            draws: Of the epoch.
            indices: [B] sample numbers of the batch.

        Returns:
            A new tensor of the same shape; the input is not changed.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if frames.dtype != torch.uint8 or frames.ndim != 4 or len(rows) != len(frames):
            raise ValueError(
                f"expected uint8 frames [{len(rows)}, C, H, W] for {len(rows)} samples, "
                f"found {frames.dtype} {list(frames.shape)}"
            )
        t = self.transforms
        if t.random_flip or t.random_rotation:
            moves = (draws.hflip[rows], draws.vflip[rows], draws.angle[rows])
            reflect = t.rotation_fill == "reflect"
            on_cpu = frames.device.type == "cpu" and not reflect
            frames = (
                _pillow_flip_rotate(frames, *moves)
                if on_cpu
                else flip_rotate(frames, *moves, reflect=reflect)
            )
        if t.color_jitter:
            frames = color_jitter(frames, draws.factors[rows], draws.order[rows])
        return frames


def flip_rotate(
    frames: Tensor,
    hflip: ArrayLike,
    vflip: ArrayLike,
    angles: Sequence[float] | NDArray[np.float64],
    *,
    reflect: bool = False,
) -> Tensor:
    """Flip, then rotate about the centre by nearest neighbour, each image by its own angle, in one gather.

    Args:
        frames: [B, C, H, W] uint8.
        hflip: [B] bool.
        vflip: [B] bool.
        angles: [B] degrees counter-clockwise.
        reflect: Fill corners by mirroring at the border instead of with zeros.

    Returns:
        [B, C, H, W] uint8, equal to Pillow's ``transpose`` and ``rotate(angle, NEAREST)``.
    """
    _, _, height, width = frames.shape
    if max(height, width) >= 1 << 15:
        raise ValueError(f"16.16 fixed-point rotation holds up to 32767 pixels, found {height} x {width}")
    device = frames.device
    kind = torch.int32 if height + width < 1 << 14 else torch.int64  # 32 bits hold the sums of small images
    affine = torch.tensor([_fixed_point(float(a), width, height) for a in angles], dtype=kind).to(device)
    h, v = (torch.as_tensor(np.asarray(f, dtype=bool)).to(device).view(-1, 1, 1) for f in (hflip, vflip))
    ys = torch.arange(height, dtype=kind, device=device).view(1, -1, 1)
    xs = torch.arange(width, dtype=kind, device=device).view(1, 1, -1)
    chunk = max(1, _CHUNK_PIXELS // (height * width))
    result = torch.empty_like(frames)
    for start in range(0, len(frames), chunk):
        part = slice(start, start + chunk)
        a0, a1, a2, a3, a4, a5 = affine[part].view(-1, 6, 1, 1).unbind(1)
        x = (a2 + a1 * ys + a0 * xs) >> 16
        y = (a5 + a4 * ys + a3 * xs) >> 16
        inside = None
        if reflect:
            x, y = _mirror(x, width), _mirror(y, height)
        else:
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y = x.clamp_(0, width - 1), y.clamp_(0, height - 1)
        x = torch.where(h[part], width - 1 - x, x)
        y = torch.where(v[part], height - 1 - y, y)
        source = (y * width + x).long().flatten(1).unsqueeze(1).expand(-1, frames.shape[1], -1)
        taken = frames[part].flatten(2).gather(2, source).view_as(frames[part])
        result[part] = taken if inside is None else taken * inside.unsqueeze(1)
    return result


def _pillow_flip_rotate(
    frames: Tensor, hflip: NDArray[np.bool_], vflip: NDArray[np.bool_], angles: NDArray[np.float64]
) -> Tensor:
    """What :func:`flip_rotate` does, by Pillow itself: some 20 times faster than a gather on the processor."""
    result = np.empty(frames.shape, np.uint8)
    for image, target, h, v, angle in zip(frames.numpy(), result, hflip, vflip, angles, strict=True):
        flipped = image[:, :: -1 if v else 1, :: -1 if h else 1]
        for channel, plane in zip(flipped, target, strict=True):
            picture = Image.fromarray(np.ascontiguousarray(channel))
            plane[:] = np.asarray(picture.rotate(angle, Image.Resampling.NEAREST))
    return torch.from_numpy(result)


def color_jitter(frames: Tensor, factors: NDArray[np.float64], order: NDArray[np.int64]) -> Tensor:
    """Brightness, contrast and saturation, each image with its own factors and order, as Pillow's ImageEnhance.

    Saturation does nothing to gray frames (the original's jitter on gray images neither).

    Args:
        frames: [B, C, H, W] uint8.
        factors: [B, 3] factors of brightness, contrast, saturation.
        order: [B, 3] permutations of (0, 1, 2).
    """
    result = frames
    for step in range(3):
        for operation in range(3):
            rows = np.flatnonzero(order[:, step] == operation)
            if len(rows) == 0 or (operation == 2 and frames.shape[1] == 1):
                continue
            index = torch.from_numpy(rows).to(frames.device)
            part = result[index]
            alpha = torch.as_tensor(factors[rows, operation], dtype=torch.float32, device=frames.device)
            blended = _blend(_degenerate(part, operation), part.float(), alpha.view(-1, 1, 1, 1))
            result = result.index_copy(0, index, blended)
    return result


def _fixed_point(angle: float, width: int, height: int) -> tuple[int, int, int, int, int, int]:
    """Pillow's inverse matrix of a rotation about the centre in 16.16 fixed point, from pixel centres."""
    radians = -math.radians(angle % 360.0)
    a, b = round(math.cos(radians), 15), round(math.sin(radians), 15)
    d, e = round(-math.sin(radians), 15), round(math.cos(radians), 15)
    cx, cy = width / 2.0, height / 2.0
    c = a * -cx + b * -cy + 0.0
    f = d * -cx + e * -cy + 0.0
    c += cx
    f += cy
    return (
        _fix(a),
        _fix(b),
        _fix(c + a * 0.5 + b * 0.5),
        _fix(d),
        _fix(e),
        _fix(f + d * 0.5 + e * 0.5),
    )


def _fix(value: float) -> int:
    return math.floor(value * 65536.0 + 0.5)


def _mirror(index: Tensor, n: int) -> Tensor:
    """Reflect indices at the first and last pixel, which are not repeated."""
    if n == 1:
        return torch.zeros_like(index)
    period = 2 * (n - 1)
    folded = index.remainder(period)
    return torch.where(folded < n, folded, period - folded)


def _degenerate(frames: Tensor, operation: int) -> Tensor:
    """What a factor of 0 gives: black, the mean gray level, or the gray image."""
    if operation == 0:
        return torch.zeros_like(frames, dtype=torch.float32)
    if frames.shape[1] == 1:
        gray = frames.to(torch.int64)
    else:
        weights = torch.tensor([19595, 38470, 7471], device=frames.device).view(1, 3, 1, 1)
        gray = ((frames.to(torch.int64) * weights).sum(1, keepdim=True) + 0x8000) >> 16
    if operation == 2:
        return gray.float().expand_as(frames)
    n = gray[0].numel()
    return ((2 * gray.sum((1, 2, 3), keepdim=True) + n) // (2 * n)).float()  # the mean, rounded half up


def _blend(base: Tensor, frames: Tensor, alpha: Tensor) -> Tensor:
    return (base + alpha * (frames - base)).clamp_(0.0, 255.0).to(torch.uint8)
