"""What this machine and installation can do, line by line."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "infection-mt",
    "medshared",
    "torch",
    "torchvision",
    "lightning-fabric",
    "tifffile",
    "imagecodecs",
)
EXTRAS = {"optuna": "search", "tensorboard": "tensorboard", "wandb": "wandb"}


def describe_machine() -> list[str]:
    """Return one line a fact: versions, devices, memory, optional parts, pretrained weights on disk."""
    import torch

    from infection_mt.models.backbone import PretrainedWeightsError, imagenet_cache_file

    lines = [f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPU cores"]
    lines += [f"{name} {metadata.version(name)}" for name in PACKAGES]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append("no CUDA device: runs use the CPU (--device cpu)")
    for module, extra in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        lines.append(
            f"{module}: " + ("installed" if found else f'absent (pip install "infection-mt[{extra}]")')
        )
    for name in ("resnet18", "resnet50"):
        try:
            cached = imagenet_cache_file(name)
        except PretrainedWeightsError:
            continue
        state = (
            "on disk" if cached.exists() else "absent: --download fetches them, or model.pretrained: false"
        )
        lines.append(f"ImageNet weights of {name}: {state}")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    lines.append(f"{free:.0f} GiB free in {Path.cwd()}")
    return lines
