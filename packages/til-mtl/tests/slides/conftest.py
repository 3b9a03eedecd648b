"""A small slide with known colours, and a model that reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from medshared.slides import open_slide, write_label_pyramid, write_pyramid
from til_mtl.slides.options import SlideOptions

WIDTH, HEIGHT = 700, 520
OTHER, TUMOR, STROMA, GLASS = (120, 140, 200), (170, 105, 165), (226, 130, 170), (250, 250, 250)
CELL, STROMA_CELL = (50, 30, 90), (90, 30, 50)


def colour_rule(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and cell probabilities that depend on 3 × 3 pixels only."""
    smooth = uniform_filter(tiles.astype(np.float32), (0, 3, 3, 0), mode="nearest")
    colours = np.array([OTHER, TUMOR, STROMA], np.float32)
    logits = -((smooth[:, None] - colours[None, :, None, None]) ** 2).sum(axis=-1)
    dark = smooth.sum(axis=-1) < 270
    logits[:, 2] += 1e6 * (dark & (smooth[..., 0] > smooth[..., 2]))
    darkness = 1 - smooth.mean(axis=-1) / 255
    return logits, np.clip(3 * (darkness - 0.45), 0, 1).astype(np.float32)


def draw(width: int = WIDTH, height: int = HEIGHT, n_cells: int = 150, seed: int = 0) -> np.ndarray:
    """Return glass to the right, above it stripes of the three tissues with dark discs."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = GLASS
    tissue_width = width * 6 // 7
    for k, colour in enumerate((TUMOR, STROMA, OTHER)):
        image[:, k * tissue_width // 3 : (k + 1) * tissue_width // 3] = colour
    rows, columns = np.mgrid[:height, :width]
    for x, y in zip(rng.integers(0, tissue_width, n_cells), rng.integers(0, height, n_cells), strict=True):
        colour = STROMA_CELL if 1 <= 3 * x / tissue_width < 2 else CELL
        image[(columns - x) ** 2 + (rows - y) ** 2 <= rng.integers(9, 30)] = colour
    return image


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    return write_pyramid(path, draw(), 0.5, "generic", tile_px=64, downsamples=(1, 4), subsampling=(1, 1))


@pytest.fixture(scope="session")
def pixels(slide: Path) -> np.ndarray:
    """The slide as it is read."""
    with open_slide(slide) as opened:
        return np.array(opened.read_level((0, 0), 0, (WIDTH, HEIGHT)))


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : WIDTH * 6 // 7] = 1
    write_label_pyramid(folder / "a_tissue.tif", mask, 0.5, tile_px=64)
    return folder


@pytest.fixture
def options(slide: Path, masks: Path, tmp_path: Path) -> Callable[..., SlideOptions]:
    """Options for small tiles."""

    def make(**changes: Any) -> SlideOptions:
        values: dict[str, Any] = {
            "slides": slide,
            "masks": masks,
            "out": tmp_path / "out",
            "patch": 96,
            "margin": 8,
            "batch": 7,
            "conf": 0.3,
            "nms": 6.0,
        }
        return SlideOptions(**(values | changes))

    return make
