"""Small pyramids shared by the tests of slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medshared.slides import write_pyramid


def tissue_like(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return smooth colours with some noise, uint8 [height, width, 3]."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 255, (height // 128 + 2, width // 128 + 2, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(smooth.astype(int) + rng.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return tissue_like(1024, 768)


@pytest.fixture(scope="session")
def aperio(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    return write_pyramid(path, picture, 0.25, "aperio", tile_px=64)


@pytest.fixture(scope="session")
def generic(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("slides") / "g.tiff"
    return write_pyramid(path, picture, 0.5, "generic", tile_px=64, subsampling=(2, 1))


@pytest.fixture
def damaged(tmp_path: Path, aperio: Path):
    """Return a function that copies a slide and clears some of its level-0 tiles: all of them, or the last fifth,
    which libvips paints grey without an error."""
    import tifffile

    def damage(tiles: list[tuple[int, int]], how: str = "zeros", source: Path = aperio) -> Path:
        path = tmp_path / f"{how}-{source.name}"
        path.write_bytes(source.read_bytes())
        with tifffile.TiffFile(source) as file:
            page = file.pages[0]
            across = -(-page.imagewidth // page.tilewidth)
            extents = [
                (page.dataoffsets[y * across + x], page.databytecounts[y * across + x]) for x, y in tiles
            ]
        with path.open("r+b") as handle:
            for offset, size in extents:
                start = offset if how == "zeros" else offset + size * 4 // 5
                handle.seek(start)
                handle.write(b"\0" * (offset + size - start))
        return path

    return damage
