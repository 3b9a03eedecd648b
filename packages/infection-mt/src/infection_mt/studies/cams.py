"""``visualize_cam.py``: Grad-CAM pictures of a checkpoint, with the configuration given beside it."""

from __future__ import annotations

import argparse
import logging

from infection_mt.cam_pictures import draw_cams
from infection_mt.data.prepare import prepare_data
from infection_mt.models.checkpoint import load_model
from infection_mt.studies.fold_inference import folds_config
from infection_mt.studies.run_folders import Fold

logger = logging.getLogger(__name__)


def draw(arguments: argparse.Namespace) -> int:
    """Draw frames of one side of a fold, with maps of every output that the checkpoint's network has."""
    if not arguments.checkpoint.is_file():
        raise FileNotFoundError(f"{arguments.checkpoint}: no such checkpoint")
    k, index = arguments.num_folds, arguments.fold_index
    if not 0 <= index < max(k, 1):
        raise ValueError(f"--fold-index {index}: expected 0 to {max(k, 1) - 1} with --num-folds {k}")
    config = folds_config([Fold(0, arguments.checkpoint)], arguments.config, k)
    data = prepare_data(config, fold_index=index if k > 1 else None)
    model, _ = load_model(arguments.checkpoint)
    written = draw_cams(
        model,
        data.tables[arguments.split],
        data.store,
        config,
        arguments.output_dir / arguments.checkpoint.stem / f"{arguments.split}_fold{index}",
        num_samples=arguments.num_samples,
        seed=arguments.seed,
        colour_map=arguments.cmap,
        device=arguments.device,
    )
    logger.info("%d pictures in %s", len(written), written[0].parent if written else arguments.output_dir)
    return 0
