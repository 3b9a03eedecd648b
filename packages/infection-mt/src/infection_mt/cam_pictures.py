"""Grad-CAM pictures of a run's frames: raw, input, heat map and overlay of each, for class and time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from infection_mt.config import Config
from infection_mt.data.dataset import FrameStore
from infection_mt.data.loading import normalise
from infection_mt.data.table import FrameTable
from infection_mt.explain import Score, denormalise, grad_cam, heatmap, overlay
from infection_mt.inference import infected_columns
from infection_mt.models.base import ResNetBase
from infection_mt.models.checkpoint import load_model
from infection_mt.rescoring import Side, load_run, side_of_run
from medshared.files import atomic_open, write_json
from medshared.gpu import select_device

logger = logging.getLogger(__name__)


def write_cam_pictures(
    run: Path,
    output: Path,
    *,
    split: Side = "val",
    num_samples: int = 8,
    seed: int = 42,
    colour_map: str = "jet",
    device: str = "auto",
) -> list[Path]:
    """Draw ``num_samples`` frames of one side and write their pictures and ``metadata.json``.

    The folder is ``<output>/<checkpoint>/<split>_fold<i>``, the files ``cam_001_<label>_prob0.97_raw.png`` and so
    on; the maps of the time output carry ``time_`` before the picture's kind.

    Args:
        run: Finished run directory.
        output: Folder of the pictures.
        split: Side that the frames come from.
        num_samples: Frames, half of each class where possible.
        seed: Of the draw.
        colour_map: Matplotlib colour map of the heat.
        device: As in :func:`medshared.gpu.select_device`.
    """
    config, results = load_run(run)
    config = config.resolved()
    fold = results.get("fold_index")
    table, store, _ = side_of_run(config, split, fold)
    model, _ = load_model(run / "checkpoints" / "best.pt")
    return draw_cams(
        model,
        table,
        store,
        config,
        output / "best" / f"{split}_fold{fold or 0}",
        num_samples=num_samples,
        seed=seed,
        colour_map=colour_map,
        device=device,
    )


def draw_cams(
    model: ResNetBase,
    table: FrameTable,
    store: FrameStore,
    config: Config,
    folder: Path,
    *,
    num_samples: int = 8,
    seed: int = 42,
    colour_map: str = "jet",
    device: str = "auto",
) -> list[Path]:
    """Draw frames of a table with the maps of every output that the network has.

    Args:
        model: Any network of this package.
        table: Frames to draw from.
        store: Holds them.
        config: Gives transforms and the infected class.
        folder: Receives the pictures and ``metadata.json``.
        num_samples: Frames, half of each class where possible.
        seed: Of the draw.
        colour_map: Matplotlib colour map of the heat.
        device: As in :func:`medshared.gpu.select_device`.
    """
    chosen = select_device(device)
    model.to(chosen)
    rows = draw_rows(table.infected(), num_samples, seed)
    frames = store.batch(table, rows)
    x = normalise(frames.to(chosen), config.data.transforms)
    with torch.no_grad():
        outputs = model.outputs(x)
    scores: dict[str, Score] = {}
    probability = np.full(len(rows), np.nan)
    if outputs.logits is not None:
        scores[""] = "infected"
        z = infected_columns(outputs.logits.float().cpu().numpy(), config)
        probability = 1 / (1 + np.exp(-(z[:, -1] - (z[:, 0] if z.shape[1] > 1 else 0))))
    if outputs.time is not None:
        scores["time_"] = "time"
    maps = {
        prefix: grad_cam(model, x, score, config.data.infected_label).cpu().numpy()
        for prefix, score in scores.items()
    }
    written: list[Path] = []
    notes: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        about = table.metadata(int(row))
        stem = f"cam_{i + 1:03d}_{about['label']}_prob{probability[i]:.2f}"
        pictures = _pictures(
            frames[i].numpy(), x[i].cpu().numpy(), config.data.transforms, maps, i, colour_map
        )
        for kind, picture in pictures.items():
            path = folder / f"{stem}_{kind}.png"
            save_png(path, picture)
            written.append(path)
        hours = None if outputs.time is None else float(outputs.time[i, 0])
        notes.append({**about, "probability": float(probability[i]), "time_hours": hours, "files": stem})
    write_json(folder / "metadata.json", notes)
    logger.info("%d pictures in %s", len(written), folder)
    return written


def draw_rows(infected: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return ``n`` row numbers, half infected and half not as far as there are any, sorted."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.permutation(np.flatnonzero(infected)), rng.permutation(np.flatnonzero(~infected))
    half = min(len(positive), max(n - len(negative), (n + 1) // 2))
    return np.sort(np.concatenate([positive[:half], negative[: n - half]]))


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write an 8-bit picture atomically."""
    with atomic_open(path) as file:
        Image.fromarray(picture).save(file, format="PNG")


def _pictures(
    frame: np.ndarray, x: np.ndarray, transforms: Any, maps: dict[str, np.ndarray], i: int, colour_map: str
) -> dict[str, np.ndarray]:
    raw = np.repeat(frame.transpose(1, 2, 0), 3, axis=2) if frame.shape[0] == 1 else frame.transpose(1, 2, 0)
    shown = denormalise(np.broadcast_to(x, (3, *x.shape[1:])), transforms.mean, transforms.std)
    pictures = {"raw": raw, "input": shown}
    for prefix, cams in maps.items():
        heat = heatmap(cams[i], colour_map)
        pictures[f"{prefix}heatmap"] = heat
        pictures[f"{prefix}overlay"] = overlay(shown, heat)
    return pictures
