"""Fixtures of the til-mtl suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quick_runs(quick_runs):
    """Every test of this suite trains small networks in small runs."""


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the goldens of this suite lie."""
    return GOLDEN


class ToyNetwork(nn.Module):
    """A network of a few hundred parameters with the interface of the real ones."""

    def __init__(self, task: str = "mtl") -> None:
        super().__init__()
        self.task = task
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.seg = nn.Conv2d(8, 3, 1)
        self.det = nn.Conv2d(8, 2, 1)

    def maps(self, x: torch.Tensor):
        from til_mtl.models.deeplab import Maps

        z = self.body(x)
        return Maps(None if self.task == "det" else self.seg(z), None if self.task == "seg" else self.det(z))

    def encode(self, x: torch.Tensor):
        raise NotImplementedError

    def decode(self, features, size):
        raise NotImplementedError


@pytest.fixture
def toy_network(monkeypatch: pytest.MonkeyPatch):
    """Let the trainer build toy networks."""
    from til_mtl import trainer

    monkeypatch.setattr(
        trainer, "build_network", lambda config, allow_download=False: ToyNetwork(config.task)
    )
    return ToyNetwork


PATCH_PX = 16


def write_patches(
    root: Path, counts: dict[str, tuple[int, int]], seed: int = 0, layout: str = "{task}/{split}"
) -> Path:
    """Write patch folders whose colours tell the classes; counts by split: tissue, cells."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    colours = np.array([[235, 230, 235], [170, 105, 165], [225, 160, 190]])
    for split, (n_tissue, n_cells) in counts.items():
        for task, n in (("segmentation", n_tissue), ("detection", n_cells)):
            folder = root / layout.format(task=task, split=split)
            parts = ("img", "mask") if layout.endswith("{split}") else (f"{split}_img", f"{split}_mask")
            for part in parts:
                (folder / part).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                classes = rng.integers(0, 3, (2, 2)).repeat(PATCH_PX // 2, 0).repeat(PATCH_PX // 2, 1)
                image = np.clip(colours[classes] + rng.normal(0, 4, (PATCH_PX, PATCH_PX, 3)), 0, 255)
                mask = classes
                if task == "detection":
                    mask = np.zeros((PATCH_PX, PATCH_PX), int)
                    x, y = rng.integers(3, PATCH_PX - 3, 2)
                    mask[y - 2 : y + 3, x - 2 : x + 3] = 1
                    image[mask == 1] = (62, 38, 105)
                name = f"S{split}{i:02d}_{task[:3]}_[0, 0, 16, 16]_0_0.png"
                Image.fromarray(image.astype(np.uint8)).save(folder / parts[0] / name)
                Image.fromarray(mask.astype(np.uint8)).save(folder / parts[1] / name)
    return root


@pytest.fixture
def patch_root(tmp_path: Path) -> Path:
    """Patch folders of both tasks: 6 + 6 for training, 3 + 3 for validation, 2 + 2 for testing."""
    return write_patches(tmp_path / "patches", {"train": (6, 6), "val": (3, 3), "test": (2, 2)})


@pytest.fixture
def toy_keys(patch_root: Path) -> dict[str, Any]:
    """Configuration keys of a run of seconds."""
    return {
        "data_dir": str(patch_root),
        "img_size": (PATCH_PX, PATCH_PX),
        "batch_size": 4,
        "max_epochs": 3,
        "device": "cpu",
        "num_workers": 0,
        "nms": 3.0,
    }


def _make_scores(seed: int = 0, n: int = 12, names: str = "p"):
    from til_mtl.patch_scores import PatchScores

    rng = np.random.default_rng(seed)
    tasks = np.arange(n) % 2
    truth = [rng.uniform(0, 64, (rng.integers(0, 5), 2)) if task else np.zeros((0, 2)) for task in tasks]
    found = []
    for task, points in zip(tasks, truth, strict=True):
        near = points + rng.normal(0, 3, points.shape)
        noise = rng.uniform(0, 64, (3, 2))
        places = np.concatenate([near, noise]) if task else np.zeros((0, 2))
        found.append(np.column_stack([places, rng.uniform(0.1, 1, len(places))]))
    confusion = np.where((tasks == 0)[:, None, None], rng.integers(0, 50, (n, 3, 3)), 0)
    return PatchScores(
        names=tuple(f"{names}{i}" for i in range(n)),
        slides=tuple(f"slide{i // 4}" for i in range(n)),
        tasks=tasks,
        confusion=confusion,
        detections=tuple(found),
        truth=tuple(truth),
        area_mm2=0.001024,
        radius_px=8.0,
    )


@pytest.fixture
def make_scores():
    """Make results of patches that no network saw: 12 patches of 3 slides, tissue and cells in turn."""
    return _make_scores


@pytest.fixture
def make_patches():
    """Write patch folders; see ``write_patches``."""
    return write_patches
