"""Small patch folders for the tests of the data side."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_patch() -> Callable[..., None]:
    """Write one pair: image of random colours, mask of random labels of the task."""

    def write(folder: Path, name: str, *, size: int = 16, labels=(0, 1, 2), kinds=("img", "mask"), prefix=""):
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        arrays = {
            "img": generator.integers(0, 256, (size, size, 3)).astype(np.uint8),
            "mask": generator.choice(np.array(labels, np.uint8), (size, size)),
        }
        for kind in kinds:
            path = folder / f"{prefix}{kind}" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(arrays[kind]).save(path)

    return write


@pytest.fixture
def patch_root(tmp_path, write_patch) -> Path:
    """A data root with 6 training and 2 validation patches of each task, 3 patches a slide."""
    for task, labels in (("segmentation", (0, 1, 2)), ("detection", (0, 1))):
        for k in range(8):
            split = "train" if k < 6 else "val"
            name = f"slide{k // 3 if k < 6 else 9}_0-0-16-16_{k}-0"
            write_patch(tmp_path / task / split, name, labels=labels)
    return tmp_path
