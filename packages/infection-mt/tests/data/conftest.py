"""Fixtures of the data tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import settings

from infection_mt.config import DataConfig
from infection_mt.data.stacks import Stack

# The machine may be busy: an example is never judged by its run time.
settings.register_profile("data", deadline=None)
settings.load_profile("data")
REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of real published tables, which is no part of the repository."""
    folder = Path(os.environ.get("MEDPAPERS_REFERENCE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "infection-mt" / "splits.csv").is_file():
        pytest.skip(f"left out: published splits.csv not found under {folder} (set MEDPAPERS_REFERENCE_DATA)")
    return folder


@pytest.fixture
def stack_files(tmp_path: Path) -> Callable[..., DataConfig]:
    """Write two folders of small random stacks and return their configuration."""

    def write(
        infected: dict[str, tuple[int, ...]],
        uninfected: dict[str, tuple[int, ...]],
        dtype: Any = np.uint16,
        **keys: Any,
    ) -> DataConfig:
        rng = np.random.default_rng(0)
        for folder, files in (("inf", infected), ("uni", uninfected)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name, shape in files.items():
                pages = rng.integers(0, 256 if dtype == np.uint8 else 4000, shape).astype(dtype)
                tifffile.imwrite(tmp_path / folder / name, pages, photometric="minisblack")
        return DataConfig(infected_dir=tmp_path / "inf", uninfected_dir=tmp_path / "uni", **keys)

    return write


@pytest.fixture
def make_stacks() -> Callable[..., list[Stack]]:
    """Stacks without files: ``{("b2", 1): 3}`` gives three positions of well b2 with label 1."""

    def make(wells: dict[tuple[str, int], int], plate: str | None = None, **keys: Any) -> list[Stack]:
        return [
            Stack(
                Path(f"{plate or 'x'}_s5_{well}_p{k}_t0-9_ec.tiff"),
                label,
                "infected" if label == 1 else "uninfected",
                str(k),
                10,
                well,
                plate,
                **keys,
            )
            for (well, label), n in wells.items()
            for k in range(1, n + 1)
        ]

    return make
