"""Tiny slides and an encoder for the tests of the preparation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advmil.prepare.plan import Preparation

EDGE, TISSUE = 1024, 768  # level-0 pixels of a slide and of the square of tissue in its corner


def tissue_picture(seed: int = 0, edge: int = EDGE, tissue: int = TISSUE) -> np.ndarray:
    """White ground with a square of stained, textured tissue at (128, 128)."""
    rng = np.random.default_rng(seed)
    picture = np.full((edge, edge, 3), 255, np.uint8)
    cells = rng.integers(-20, 21, (tissue // 16, tissue // 16, 3)).repeat(16, 0).repeat(16, 1)
    picture[128 : 128 + tissue, 128 : 128 + tissue] = np.clip(np.array([190, 110, 170]) + cells, 0, 255)
    return picture


@pytest.fixture(scope="session")
def slide_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A slide with tissue, one without, and one that does not tell its spacing, each as the bytes of its file."""
    from medshared.slides import write_pyramid

    folder = tmp_path_factory.mktemp("drawn")
    blank = np.full((EDGE, EDGE, 3), 255, np.uint8)
    kinds = {
        "tissue": (tissue_picture(), 0.5),
        "other": (tissue_picture(1), 0.5),
        "blank": (blank, 0.5),
        "unspaced": (tissue_picture(2), None),
    }
    return {
        kind: write_pyramid(folder / f"{kind}.svs", picture, spacing, tile_px=64).read_bytes()
        for kind, (picture, spacing) in kinds.items()
    }


@pytest.fixture
def put(tmp_path: Path, slide_bytes: dict[str, bytes]) -> Callable[..., Path]:
    """Put slides of the given kinds into ``slides/``: ``put(a="tissue", b="blank")``; returns the folder."""

    def place(suffix: str = ".svs", **kinds: str) -> Path:
        folder = tmp_path / "slides"
        folder.mkdir(exist_ok=True)
        for name, kind in kinds.items():
            (folder / f"{name}{suffix}").write_bytes(slide_bytes[kind])
        return folder

    return place


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the synthetic encoder with 8 features."""
    from advmil.synthetic_slides import SyntheticEncoder, save_encoder

    encoder = SyntheticEncoder(8)
    with torch.no_grad():
        encoder.projection.copy_(
            torch.randn(encoder.projection.shape, generator=torch.Generator().manual_seed(0))
        )
        encoder.directions.copy_(torch.eye(2, 8))
        encoder.calibration.copy_(torch.tensor([0.3, 0.0, 0.1]))
    return save_encoder(tmp_path_factory.mktemp("encoder") / "encoder.pt", encoder)


@pytest.fixture
def plan(tmp_path: Path, encoder_file: Path) -> Callable[..., Preparation]:
    """A preparation of ``slides/`` into ``out/`` at the size of the tiny slides, on the CPU."""

    def make(**changes: Any) -> Preparation:
        base: dict[str, Any] = {
            "slides": tmp_path / "slides",
            "output": tmp_path / "out",
            "patch_size": 16,
            "encoder": "synthetic",
            "weights": encoder_file,
            "device": "cpu",
        }
        return Preparation(**(base | changes))

    return make


@pytest.fixture
def damage() -> Callable[[Path, list[tuple[int, int]], int], None]:
    """Overwrite tiles (column, row) of a level of a slide with zeros, so that they cannot be decoded."""

    def clear(path: Path, tiles: list[tuple[int, int]], level: int = 0) -> None:
        import tifffile

        with tifffile.TiffFile(path) as file:
            pages = sorted((p for p in file.pages if p.is_tiled), key=lambda p: -p.imagewidth)
            page = pages[level]
            across = -(-page.imagewidth // page.tilewidth)
            extents = [
                (page.dataoffsets[y * across + x], page.databytecounts[y * across + x]) for x, y in tiles
            ]
        with path.open("r+b") as handle:
            for offset, size in extents:
                handle.seek(offset)
                handle.write(b"\0" * size)

    return clear


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
