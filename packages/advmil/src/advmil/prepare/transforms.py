"""What may be done to patches before the encoder: Macenko colour normalisation, and the robustness transforms.

Blur and colour variation are drawn for each patch from a seeded generator, so that a slide's features do not depend on
how its patches were batched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advmil.errors import DataError

PatchTransform = Callable[[Tensor], Tensor]
BLUR_SIGMAS = {"lighter": (0.1, 1.1), "light": (1.2, 2.2), "strong": (2.3, 3.0)}
HED_THETA = {"hed_lighter": 0.03, "hed_light": 0.1, "hed_strong": 1.0}
TRANSFORMS = (*BLUR_SIGMAS, *HED_THETA)
# Stain vectors of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001), as in scikit-image.
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_LIMITS = (0.05, 0.95)  # mean intensity outside of which patches stay untouched
# Macenko 2009: transmitted light, smallest optical density of tissue, percentile of the extreme angles.
LIGHT, DENSITY_FLOOR, ANGLE_PERCENTILE = 240.0, 0.15, 1.0
DARKEST = 1e-6  # intensity that counts as black, whose logarithm is the unit of optical density
GROUP = 32  # patches whose colours are varied at a time, for memory


def blur(kind: str, seed: int) -> PatchTransform:
    """Return a Gaussian blur with a strength drawn for each patch in steps of 0.1.

    Args:
        kind: ``lighter``, ``light`` or ``strong``.
        seed: Of the draws.
    """
    low, high = BLUR_SIGMAS[kind]
    rng = np.random.default_rng(seed)
    choices = np.round(np.arange(low, high + 0.05, 0.1), 1)

    def apply(patches: Tensor) -> Tensor:
        sigmas = rng.choice(choices, size=len(patches)).tolist()
        return torch.cat(
            [blur_patch(patch[None], sigma) for patch, sigma in zip(patches, sigmas, strict=True)]
        )

    return apply


def blur_patch(patches: Tensor, sigma: float) -> Tensor:
    """Return patches convolved with a Gaussian, mirrored at their edges.

    Args:
        patches: uint8 [B, S, S, 3], S above 3 ⌈sigma⌉.
        sigma: Strength in pixels; the kernel has 6 ⌈sigma⌉ + 1 of them.

    Returns:
        uint8 [B, S, S, 3].
    """
    reach = 3 * math.ceil(sigma)
    at = torch.arange(-reach, reach + 1, dtype=torch.float32, device=patches.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = patches.permute(0, 3, 1, 2).float()
    x = torch.nn.functional.pad(x, (reach,) * 4, mode="reflect")
    # A Gaussian is a row times a column: two passes of 2r + 1 products in place of one of their square.
    x = torch.nn.functional.conv2d(x, kernel, groups=3)
    x = torch.nn.functional.conv2d(x, kernel.transpose(2, 3), groups=3)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def hed_variation(kind: str, seed: int) -> PatchTransform:
    """Return a colour variation: each stain channel times ``1 + s`` plus ``b``, both U(-θ, θ), for each patch.

    Args:
        kind: ``hed_lighter``, ``hed_light`` or ``hed_strong``.
        seed: Of the draws.
    """
    theta = HED_THETA[kind]
    rng = np.random.default_rng(seed)

    def apply(patches: Tensor) -> Tensor:
        draws = torch.from_numpy(rng.uniform(-theta, theta, size=(len(patches), 2, 3))).float()
        pairs = zip(patches.split(GROUP), draws.split(GROUP), strict=True)
        return torch.cat([vary_stains(part, own[:, 0], own[:, 1]) for part, own in pairs])

    return apply


def vary_stains(patches: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """Return patches whose stain channels are multiplied by ``1 + factors`` and moved by ``shifts``.

    Negative amounts of a stain are kept, unlike in scikit-image: without variation every colour comes back as it was.
    Patches whose mean intensity lies outside of :data:`HED_LIMITS` are returned unchanged.

    Args:
        patches: uint8 [B, S, S, 3].
        factors: [B, 3].
        shifts: [B, 3], in units of the density of black.

    Returns:
        uint8 [B, S, S, 3].
    """
    to_rgb = torch.from_numpy(RGB_FROM_HED).float().to(patches.device)
    unit = -float(np.log(DARKEST))
    rgb = patches.float() / 255
    mean = rgb.mean(dim=(1, 2, 3))
    hed = -torch.log(rgb.clamp(min=DARKEST)) / unit @ torch.linalg.inv(to_rgb)
    factors, shifts = (each.to(patches.device)[:, None, None] for each in (factors, shifts))
    varied = torch.exp(-(hed * (1 + factors) + shifts) @ to_rgb * unit)
    result = (varied.clamp(0, 1) * 255).round().to(torch.uint8)
    untouched = (mean < HED_LIMITS[0]) | (mean > HED_LIMITS[1])
    result[untouched] = patches[untouched]
    return result


def stain_basis(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate haematoxylin and eosin of an image (Macenko et al. 2009).

    Args:
        pixels: [..., 3] uint8.

    Returns:
        Stain vectors [3, 2] of optical density and the 99th percentile of each stain's concentration [2].

    Raises:
        DataError: Too little tissue, or a single stain.
    """
    density = -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1) / LIGHT)
    tissue = density[(density > DENSITY_FLOOR).all(axis=1)]
    if len(tissue) < 100:
        raise DataError(
            f"{len(tissue)} pixels of tissue are too few to estimate stains; expected at least 100"
        )
    _, vectors = np.linalg.eigh(np.cov(tissue.T))
    plane = vectors[:, [2, 1]] * np.where(vectors[0, [2, 1]] < 0, -1, 1)
    angle = np.arctan2(*(tissue @ plane).T[::-1])
    low, high = np.percentile(angle, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
    ends = plane @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    basis = ends if ends[0, 0] > ends[0, 1] else ends[:, ::-1]  # haematoxylin absorbs more red
    strongest = np.percentile(np.linalg.lstsq(basis, density.T, rcond=None)[0], 99, axis=1)
    if not (strongest > 0.01).all():
        raise DataError("only one stain can be told in the image; two are needed")
    return basis, strongest


def macenko(template: Path) -> PatchTransform:
    """Return colour normalisation to a template image; patches without enough tissue stay as they are.

    Args:
        template: RGB image file.

    Raises:
        DataError: The template is no image or holds too little tissue.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(template) as image:
            target, strongest = stain_basis(np.asarray(image.convert("RGB")))
    except (DataError, UnidentifiedImageError) as error:
        raise DataError(f"{template}: cannot serve as a template of colours: {error}") from error

    def one(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            basis, own = stain_basis(patch)
        except DataError:
            return patch
        density = -np.log((patch.reshape(-1, 3).astype(np.float64) + 1) / LIGHT)
        amounts = np.linalg.lstsq(basis, density.T, rcond=None)[0] * (strongest / own)[:, None]
        pixels = np.rint(LIGHT * np.exp(-target @ amounts) - 1)  # one was added before the logarithm
        return np.clip(pixels, 0, 255).T.reshape(patch.shape).astype(np.uint8)

    def apply(patches: Tensor) -> Tensor:
        arrays = patches.cpu().numpy()
        return torch.from_numpy(np.stack([one(patch) for patch in arrays])).to(patches.device)

    return apply


def build_transform(name: str | None, template: Path | None, seed: int) -> PatchTransform | None:
    """Return the transforms that were asked for, colour normalisation first; null when there are none.

    Args:
        name: One of :data:`TRANSFORMS`, or null.
        template: Template of the colour normalisation, or null.
        seed: Of the draws.
    """
    steps: list[PatchTransform] = [macenko(template)] if template else []
    if name in BLUR_SIGMAS:
        steps.append(blur(name, seed))
    elif name in HED_THETA:
        steps.append(hed_variation(name, seed))
    elif name is not None:
        raise DataError(f"transform {name!r}: expected one of {', '.join(TRANSFORMS)}")
    if not steps:
        return None

    def apply(patches: Tensor) -> Tensor:
        for step in steps:
            patches = step(patches)
        return patches

    return apply
