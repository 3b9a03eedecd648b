"""Measure a checkpoint on a split: tables, summary and a page in one folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aespa.config import Config
from aespa.data.arrays import RaterArrays, load_arrays
from aespa.devices import choose_devices
from aespa.errors import CheckpointError
from aespa.evaluation import evaluate, write_tables
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import load_network
from aespa.models.network import AespaNetwork
from aespa.models.sam_weights import load_sam_weights
from aespa.reporting import try_report
from aespa.round_scores import scores_of
from aespa.training import validate
from medshared.files import to_plain
from medshared.process import run_logging
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)


def evaluate_run(
    config: Config,
    folder: Path,
    *,
    plain: Path | None = None,
    arrays: RaterArrays | None = None,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure ``config.weights`` on the test split into ``folder`` and return what its ``results.json`` holds.

    The network is the one that the checkpoint says, not the one that the flags say; ``image_size`` resizes its
    position tables. With ``config.sam_ckpt``, a plain SAM of those weights is measured beside it with the same clicks.

    Args:
        config: Configuration; switches that are null are resolved here.
        folder: Run directory, created.
        plain: A checkpoint of a plain SAM (``mode: SAM``) to compare with, instead of ``config.sam_ckpt``.
        arrays: The images, when the caller has them.
        command: The command line, for the record.

    Raises:
        CheckpointError: There is no checkpoint, or it cannot be used.
        DataError: The split is empty or a file cannot be used.
    """
    if config.weights is None:
        raise CheckpointError(
            "-weights: give the checkpoint to evaluate, such as Model/checkpoint_best.pth of a run"
        )
    weights, config = config.weights, config.resolved()
    started = time.perf_counter()
    device = choose_devices(config).first
    network, extra = load_network(weights, device=device, image_size=config.image_size)
    _check_use(config, network, extra)
    arrays = arrays or load_arrays(config, "test")
    run = RunDirectory(folder)
    run.create(to_plain(config.model_dump()), command=command, seed=config.seed)
    with run_logging("aespa", run.path / "log.txt"):
        logger.info("%d images, %s", len(arrays), network.architecture)
        results: dict[str, Any] = {
            "mode": config.mode,
            "dataset": config.dataset,
            "weights": str(config.weights),
            "images": len(arrays),
        }
        original = config.update == "alternating" and config.mode != "SAM"  # which the original does not have
        if original:
            results["original"] = validate(network, arrays, config, 0)
        tables = evaluate(network, arrays, config, plain=_plain_sam(config, plain, device))
        summary = write_tables(run.path, tables, config)
        if not original:
            scores_of(tables).log(0)
        results |= {"metrics": {key: each["mean"] for key, each in summary.items()}}
        results["seconds"] = time.perf_counter() - started
        try_report(run.path, results)
        run.write_results(results)
    return results


def _check_use(config: Config, network: AespaNetwork, extra: Mapping[str, Any]) -> None:
    """Compare what a checkpoint was trained for with what it is asked to do.

    Raises:
        CheckpointError: A plain SAM shall be measured as a network with preferences, or the other way round.
    """
    keys = extra.get("config")
    trained = keys.get("mode") if isinstance(keys, Mapping) else None
    if network.architecture.preferences == (config.mode == "SAM"):
        kind = "a network with preferences" if network.architecture.preferences else "a plain SAM"
        mend = trained or ("AESPA or SPA" if network.architecture.preferences else "SAM")
        raise CheckpointError(
            f"-weights {config.weights}: {kind}, but -mode is {config.mode}; give -mode {mend}"
        )
    if trained not in (None, config.mode):
        logger.warning(
            "-weights %s was trained as %s and is measured as %s", config.weights, trained, config.mode
        )
    size = (extra.get("architecture") or {}).get("image_size", config.image_size)
    if size != config.image_size:
        logger.warning(
            "-weights %s was trained at -image_size %d and is measured at %d: its tables of places are resized",
            config.weights, size, config.image_size,
        )  # fmt: skip


def _plain_sam(config: Config, checkpoint: Path | None, device: torch.device) -> AespaNetwork | None:
    """Return the plain SAM to compare with, or null where no weights are given."""
    if checkpoint is not None:
        network, _ = load_network(checkpoint, device=device, image_size=config.image_size)
        return network.eval()
    if config.sam_ckpt is None:
        return None
    plain = config.model_copy(update={"mode": "SAM", "decoder": "sam", "click_order": "xy"})
    network = build_network(Architecture.from_config(plain))
    report = load_sam_weights(network, config.sam_ckpt)
    logger.info("plain SAM: %s", report.lines()[0])
    return network.to(device).eval()
