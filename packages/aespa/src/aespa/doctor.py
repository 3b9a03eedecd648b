"""What this machine and installation can do for interactive segmentation."""

from __future__ import annotations

import logging
from pathlib import Path

from medshared.doctor import describe_machine

logger = logging.getLogger(__name__)

PACKAGES = (
    "aespa",
    "medshared",
    "torch",
    "lightning-fabric",
    "gradio",
    "nibabel",
    "numpy",
    "scipy",
    "pillow",
)
EXTRAS = {"tensorboard": "aespa[tensorboard]", "wandb": "aespa[wandb]"}
MEDSAM = Path("checkpoint") / "medsam_vit_b.pth"


def diagnose() -> int:
    """Log what this machine and installation can do, and return the exit code."""
    for line in describe_machine(PACKAGES, EXTRAS, {}):
        logger.info(line)
    state = "found" if MEDSAM.is_file() else "absent; download it by hand, its source is in the README"
    logger.info("weights of MedSAM, %s: %s", MEDSAM, state)
    return 0
