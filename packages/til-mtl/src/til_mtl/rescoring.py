"""A trained network scored again on a set of patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medshared.configuration import load_config
from medshared.files import write_json
from medshared.tables import write_table
from til_mtl.batches import evaluation_batches
from til_mtl.config import Config
from til_mtl.devices import choose_device
from til_mtl.errors import DataError
from til_mtl.limits import batches_left
from til_mtl.models.checkpoint import load_network
from til_mtl.patch_scores import PatchScorer, PatchScores
from til_mtl.run_data import find_store

logger = logging.getLogger(__name__)

# Keys that a checkpoint's own configuration decides, whatever the command line says.
_OF_THE_NETWORK = (
    *("task", "encoder", "num_classes_seg", "num_classes_det", "aspp_rates", "img_size", "normalize"),
    *("faithful", "mask_resample", "conf", "nms", "radius_px", "mpp"),
)


def rescore(
    checkpoint: Path,
    output: Path,
    *,
    set_name: str = "test",
    config: Config | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a checkpoint and write ``metrics.json``, ``predictions.csv`` and ``predictions_<set>.npz``.

    Args:
        checkpoint: ``best.pt``, a checkpoint of the original, or plain weights.
        output: Folder.
        set_name: ``train``, ``val`` or ``test``.
        config: Settings of the data; null takes those of the checkpoint.
        changes: Keys that win over either.

    Returns:
        The metrics.

    Raises:
        CheckpointError: The file is no network, or one of another task than ``config.task``.
        DataError: The set is empty.
    """
    network, meta = load_network(checkpoint, task=config.task if config is not None else None)
    saved = dict(meta.get("config") or {})
    mapping = saved if config is None else config.model_dump(mode="json")
    if config is not None:
        mapping |= {key: saved[key] for key in _OF_THE_NETWORK if key in saved}
    mapping = mapping | {"task": network.task} | dict(changes or {})
    settings = load_config(Config, mapping, label=str(checkpoint)).resolved()
    store = find_store(settings, set_name)
    if store is None:
        raise DataError(
            f"{settings.data_dir or Path.cwd()}: no patches in the set {set_name}; `evaluate run` has --set-name"
        )
    device = choose_device(settings)
    # The limits of the run that made the checkpoint are not those of this set.
    n = math.ceil(len(store) / settings.batch_size)
    limit = None if config is None else batches_left(settings, set_name, n)
    scores = score_network(network.to(device), settings, store, device, limit)
    metrics = scores.metrics()
    output.mkdir(parents=True, exist_ok=True)
    scores.write(output / f"predictions_{set_name}.npz")
    write_table(output / "predictions.csv", [{"set": set_name, **row} for row in scores.table()])
    write_json(output / "metrics.json", {"checkpoint": str(checkpoint), "set": set_name, "metrics": metrics})
    logger.info("%s: %s", set_name, ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()))
    return metrics


def score_network(
    network: Any, config: Config, store: Any, device: torch.device, limit: int | None = None
) -> PatchScores:
    """Run a network over a store of patches.

    Args:
        network: A :class:`til_mtl.models.deeplab.TilNetwork` on ``device``.
        config: Resolved configuration.
        store: The patches.
        device: Where to compute.
        limit: Batches; null takes all.
    """
    scorer = PatchScorer(config)
    network.eval()
    with torch.no_grad():
        for batch in evaluation_batches(config, store, device=device, limit=limit):
            scorer.add(network.maps(batch.images), batch, store)
    return scorer.scores(store)
