"""Which device a run uses, by the original's flags or by ``device``."""

from __future__ import annotations

import logging

import torch

from medshared.gpu import select_device
from medshared.processes import started_processes
from til_mtl.config import Config
from til_mtl.errors import TrainingError

logger = logging.getLogger(__name__)


def choose_device(config: Config) -> torch.device:
    """Return the device that ``device``, ``gpus``, ``accelerator`` and ``devices`` ask for.

    Raises:
        TrainingError: Several devices are asked for.
        medshared.gpu.DeviceError: The device is not there.
    """
    if config.device is not None:
        return select_device(config.device)
    accelerator = (config.accelerator or "auto").lower()
    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise TrainingError(
            f"accelerator {config.accelerator!r}: expected auto, cpu, gpu, cuda or mps; --device names one device"
        )
    if config.gpus == 0 or accelerator == "cpu":
        return select_device("cpu")
    asked = config.gpus if config.gpus is not None else config.devices
    started = started_processes()
    together = started.count > 1 and str(asked) == str(started.local_count)  # each gets one device
    if together or asked in (None, "auto", 1, "1", -1, "-1"):
        name = {"gpu": "cuda", "cuda": "cuda", "mps": "mps"}.get(accelerator, "auto")
        if config.gpus is not None and not torch.cuda.is_available():
            logger.warning("gpus: %s: there is no CUDA device, the CPU is used", config.gpus)
        return select_device(name)
    parts = [part for part in str(asked).strip("[]").split(",") if part.strip()]
    if isinstance(asked, str) and len(parts) == 1 and parts[0].strip().isdigit():
        return select_device(f"cuda:{int(parts[0])}")
    raise TrainingError(
        f"devices {asked!r}: a process uses one device; give --device cuda:N, and start several folds side by side, "
        "or start a process for each device with torchrun or srun"
    )
