"""The names that other code imports from the original's ``net_global.py``."""

from __future__ import annotations

from spars.models.net import Net
from spars.original.crops import NRandomCrop
from spars.original.dataset import CustomDataset, NIfTIDataset
from spars.original.loops import test_network, train_network
from spars.original.resize import resize_image

__all__ = [
    "CustomDataset",
    "NIfTIDataset",
    "NRandomCrop",
    "Net",
    "resize_image",
    "test_network",
    "train_network",
]
