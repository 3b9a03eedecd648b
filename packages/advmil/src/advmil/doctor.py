"""What this machine and installation can do for survival analysis on slides."""

from __future__ import annotations

import logging
from pathlib import Path

from medshared.doctor import describe_machine, describe_slides

logger = logging.getLogger(__name__)

PACKAGES = (
    "advmil",
    "medshared",
    "torch",
    "torchvision",
    "timm",
    "h5py",
    "scikit-learn",
    "lifelines",
    "openslide-python",
    "pyvips",
    "opencv-python-headless",
    "tifffile",
)
EXTRAS = {
    "lightning_fabric": "advmil[distributed]",
    "torch_geometric": "advmil[geometric]",
    "tensorboard": "advmil[tensorboard]",
    "wandb": "advmil[wandb]",
    "imagecodecs": "medshared[images]",
}


def diagnose() -> int:
    """Log what this machine and installation can do.

    Returns:
        Exit code: 1 when slides cannot be read, which everything but training on finished features needs.
    """
    weights = {"ImageNet weights of resnet50_trunc (or give --weights)": encoder_weights_file()}
    lines, works = describe_slides()
    for line in [*describe_machine(PACKAGES, EXTRAS, weights), *lines]:
        logger.info(line)
    return 0 if works else 1


def encoder_weights_file() -> Path:
    """Return where torch's cache keeps the ImageNet weights of the default encoder."""
    import torch
    from torchvision.models import ResNet50_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
