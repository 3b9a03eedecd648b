"""Which devices a run uses, by the original's flags or by ``device``."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from aespa.config import Config
from aespa.errors import TrainingError
from medshared.gpu import select_device
from medshared.processes import started_processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Devices:
    """Where a run computes.

    Attributes:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        numbers: Numbers of the CUDA devices, or how many processes.
    """

    accelerator: str
    numbers: list[int] | int

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.numbers if isinstance(self.numbers, int) else len(self.numbers)

    @property
    def first(self) -> torch.device:
        """The first of them."""
        if self.accelerator != "cuda":
            return torch.device(self.accelerator)
        return torch.device("cuda", 0 if isinstance(self.numbers, int) else self.numbers[0])


def choose_devices(config: Config) -> Devices:
    """Return the devices that ``device``, ``devices``, ``gpu``, ``gpu_device`` and ``distributed`` ask for.

    Of the processes that ``torchrun`` or ``srun`` starts on a machine each gets one device.

    Raises:
        TrainingError: ``distributed`` is no list of device numbers.
        medshared.gpu.DeviceError: A device is not there.
    """
    if config.distributed != "none":
        parts = config.distributed.split(",")
        if not all(part.strip().isdigit() for part in parts):
            raise TrainingError(
                f"distributed: expected none or numbers of CUDA devices such as 0,1, found {config.distributed!r}"
            )
        numbers = [int(part) for part in parts]
        for number in numbers:
            select_device(f"cuda:{number}")
        return Devices("cuda", numbers)
    name = config.device
    if name == "auto" and not config.gpu:
        name = "cpu"
    device = select_device(name)
    count = _processes(config)
    if device.type != "cuda":
        return Devices(device.type, count)
    if count > 1:
        return Devices("cuda", count)
    if device.index is None:
        device = select_device(f"cuda:{config.gpu_device}")
    return Devices("cuda", [device.index or 0])


def _processes(config: Config) -> int:
    """Return the number of processes on this machine: those that were started, or ``devices``."""
    started = started_processes()
    if started.count > 1 and config.devices not in (1, started.local_count):
        raise TrainingError(
            f"devices: {started.launcher} started {started.local_count} processes, -devices asks for "
            f"{config.devices}; leave -devices out"
        )
    return max(started.local_count, config.devices)
