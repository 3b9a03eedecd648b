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
    there = (
        "on disk"
        if MEDSAM.is_file()
        else "absent: put medsam_vit_b.pth there, or give another place to -sam_ckpt"
    )
    for line in [*describe_machine(PACKAGES, EXTRAS), f"weights of MedSAM ({MEDSAM}): {there}"]:
        logger.info(line)
    return 0
