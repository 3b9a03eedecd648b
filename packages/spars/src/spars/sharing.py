"""A classifier that several processes train: each has a device of its own and computes its share of every batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medshared.distributed import Share, open_fabric, process_count
from medshared.gpu import select_device
from medshared.shared_layers import computing
from spars.config import ClassifierConfig


def join_processes(config: ClassifierConfig) -> torch.device:
    """Return this process's device; where several were started, they meet.

    Args:
        config: Says which device.

    Raises:
        medshared.gpu.DeviceError: There is no such device.
        medshared.processes.ProcessesError: There are fewer devices than processes.
    """
    device = select_device(config.device)
    return device if process_count() == 1 else open_fabric(device).device


class SharedNetwork(nn.Module):
    """A network for loops that know of one process: they give it a whole batch, and get the logits of the whole.

    Args:
        network: The classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the network over this process's share."""
        share = Share.of(len(inputs))
        with computing(share):
            return share.gather(self.network(inputs[share.own]))
