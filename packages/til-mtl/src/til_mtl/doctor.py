"""What this machine and installation can do for whole-slide TIL scores."""

from __future__ import annotations

import logging
from pathlib import Path

from medshared.doctor import describe_machine, describe_slides

logger = logging.getLogger(__name__)

PACKAGES = (
    *(
        "til-mtl",
        "medshared",
        "torch",
        "torchvision",
        "lightning-fabric",
        "timm",
        "scikit-learn",
        "openslide-python",
    ),
    *("pyvips", "opencv-python-headless", "tifffile", "imagecodecs", "safetensors"),
)
EXTRAS = {"tensorboard": "til-mtl[tensorboard]", "wandb": "til-mtl[wandb]"}


def diagnose() -> int:
    """Log what this machine and installation can do.

    Returns:
        Exit code: 1 when slides cannot be read, which prediction needs.
    """
    weights = {"ImageNet weights of resnet50 (--pretrained imagenet)": imagenet_file()}
    lines, works = describe_slides()
    for line in [*describe_machine(PACKAGES, EXTRAS, weights), *lines]:
        logger.info(line)
    return 0 if works else 1


def imagenet_file() -> Path:
    """Return where torch's cache keeps the ImageNet weights of the encoder."""
    import torch
    from torchvision.models import ResNet50_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / ResNet50_Weights.IMAGENET1K_V2.url.rsplit("/", 1)[-1]
