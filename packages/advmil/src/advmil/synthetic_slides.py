"""Slides with known truth, and the encoder that reads them back into the feature space of the synthetic cohort.

A slide is a patch of tissue made of square regions on a white ground. Tumour regions are strewn with dark nuclei,
irrelevant regions have a bluish tint, and a coarse random texture stands for everything else. The encoder measures
darkness and tint and projects the texture onto all directions, so that its features follow the recipe of
:mod:`advmil.synthetic`: unit noise, plus a shift along one direction for tumour and along another for the rest.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advmil.synthetic import CohortSettings, Floats, SlidePlan, SyntheticCohort
from medshared.files import write_bytes

PATCH_PX = (
    64  # edge of a patch at its level: big patches at level 2, small ones at level 1 of a 1/4/16 pyramid
)
REGION_PX = PATCH_PX * 16  # level-0 edge of a region
CELL_PX = 16  # level-0 edge of a texture cell
MARGIN_PX = 512
COLUMNS = 4
SPACING_UM = 0.25
TISSUE = np.array([205, 150, 190], dtype=np.float32)
TINT = np.array([-22, 4, 22], dtype=np.float32)  # added to TISSUE in irrelevant regions
NUCLEUS = np.array([70, 40, 110], dtype=np.uint8)
TEXTURE_SD = 9.0  # of a texture cell, in grey levels
NUCLEI_PER_REGION = 260
NUCLEUS_RADIUS_PX = (14, 20)
CELLS = PATCH_PX * 4 // CELL_PX  # texture cells along a small patch
DARK = 130 / 255  # grey below which a pixel is nucleus


def draw_slide(plan: SlidePlan, rng: np.random.RandomState) -> NDArray[np.uint8]:
    """Draw a slide at full resolution.

    Args:
        plan: What its regions hold.
        rng: Source of randomness.

    Returns:
        [H, W, 3] uint8; regions of ``REGION_PX`` lie in rows of four, ``MARGIN_PX`` from the edges.
    """
    import cv2

    n = len(plan.tumour)
    rows = math.ceil(n / COLUMNS)
    image = np.full((rows * REGION_PX + 2 * MARGIN_PX, COLUMNS * REGION_PX + 2 * MARGIN_PX, 3), 255, np.uint8)
    cells = REGION_PX // CELL_PX
    for index in range(n):
        colour = TISSUE + (TINT if plan.irrelevant[index] else 0)
        texture = colour + rng.standard_normal((cells, cells, 3)).astype(np.float32) * TEXTURE_SD
        region = np.repeat(np.repeat(np.clip(texture, 0, 255).astype(np.uint8), CELL_PX, 0), CELL_PX, 1)
        if plan.tumour[index]:
            centres = rng.randint(0, REGION_PX, size=(NUCLEI_PER_REGION, 2))
            radii = rng.randint(*NUCLEUS_RADIUS_PX, size=NUCLEI_PER_REGION)
            for (x, y), radius in zip(centres.tolist(), radii.tolist(), strict=True):
                cv2.circle(region, (x, y), radius, NUCLEUS.tolist(), thickness=-1)
        y = MARGIN_PX + index // COLUMNS * REGION_PX
        x = MARGIN_PX + index % COLUMNS * REGION_PX
        image[y : y + REGION_PX, x : x + REGION_PX] = region
    return image


class SyntheticEncoder(nn.Module):
    """Features of the synthetic cohort from its slides: darkness, tint and projected texture.

    Args:
        width: Width of the features.

    The buffers are filled by :func:`make_encoder` or from a file.
    """

    directions: Tensor
    projection: Tensor
    calibration: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(2, width))
        self.register_buffer("projection", torch.zeros(3 * CELLS * CELLS, width))
        # Tumour share of dark pixels, shift of the tint, both in measured units for a full shift of the features.
        self.register_buffer("calibration", torch.ones(3))

    def measure(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return darkness [B], tint [B] and texture cells [B, 3 * CELLS²] of patches.

        Args:
            images: [B, 3, 64, 64] in [0, 1].
        """
        dark = (images.mean(dim=1, keepdim=True) < DARK).to(images.dtype)
        light = 1 - dark
        mean = (images * light).sum(dim=(2, 3)) / light.sum(dim=(2, 3)).clamp(min=1)
        tint = mean[:, 2] - mean[:, 0]
        cells = nn.functional.adaptive_avg_pool2d((images - mean[:, :, None, None]) * light, CELLS)
        return dark.mean(dim=(1, 2, 3)), tint, cells.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode patches.

        Args:
            images: [B, 3, 64, 64] in [0, 1].

        Returns:
            [B, width].
        """
        dark, tint, cells = self.measure(images)
        full_dark, plain_tint, full_tint = self.calibration
        shift = torch.stack([dark / full_dark, (tint - plain_tint) / full_tint], dim=1)
        return cells @ self.projection + 2.0 * shift @ self.directions


def make_encoder(
    cohort: SyntheticCohort, seed: int, signal: float = CohortSettings.signal
) -> SyntheticEncoder:
    """Build the encoder of a cohort: its directions, a random projection, and the scales of drawn regions.

    Args:
        cohort: Gives the two directions.
        seed: Of the projection.
        signal: Shift of the features for a fully tumorous or tinted patch, as in the cohort's settings.
    """
    rng = np.random.RandomState(seed)
    width = cohort.directions.shape[1]
    encoder = SyntheticEncoder(width)
    encoder.directions.copy_(torch.from_numpy(cohort.directions * signal / 2.0))
    # A patch has 3 CELLS² independent cells of standard deviation TEXTURE_SD: scaled to unit noise in each direction.
    scale = 255 / (TEXTURE_SD * math.sqrt(3 * CELLS * CELLS))
    encoder.projection.copy_(torch.from_numpy(rng.standard_normal((3 * CELLS * CELLS, width)) * scale))
    coverage = NUCLEI_PER_REGION * math.pi * np.mean(np.square(np.arange(*NUCLEUS_RADIUS_PX))) / REGION_PX**2
    plain, tinted = (float(c[2] - c[0]) / 255 for c in (TISSUE, TISSUE + TINT))
    encoder.calibration.copy_(torch.tensor([1 - math.exp(-coverage), plain, tinted - plain]))
    return encoder


def save_encoder(path: Path, encoder: SyntheticEncoder) -> Path:
    """Write the encoder's buffers, for ``--encoder synthetic --weights FILE``."""
    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    return write_bytes(path, buffer.getvalue())


def draw_slides(cohort: SyntheticCohort, folder: Path, seed: int) -> list[Path]:
    """Draw the cohort's planned slides as pyramids: Aperio and generic flavour in turn.

    Args:
        cohort: With plans in ``to_draw``.
        folder: Where the slides go.
        seed: Of the pictures.

    Returns:
        The files, in the order of the plans.
    """
    from medshared.slides import write_pyramid

    files = []
    for index, plan in enumerate(cohort.to_draw):
        aperio = index % 2 == 0
        path = folder / f"{plan.slide}{'.svs' if aperio else '.tif'}"
        image = draw_slide(plan, np.random.RandomState((seed * 1009 + index) % 2**32))
        flavour = "aperio" if aperio else "generic"
        write_pyramid(path, image, SPACING_UM, flavour=flavour, downsamples=(1, 4, 16))
        files.append(path)
    return files


def region_truth(plan: SlidePlan) -> Floats:
    """Return x, y (level-0 corner) and the tumour flag of each region, [R, 3]."""
    index = np.arange(len(plan.tumour))
    x = MARGIN_PX + index % COLUMNS * REGION_PX
    y = MARGIN_PX + index // COLUMNS * REGION_PX
    return np.stack([x, y, plan.tumour], axis=1).astype(np.float64)
