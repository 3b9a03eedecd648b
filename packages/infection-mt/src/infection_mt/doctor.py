"""What this machine and installation can do, line by line."""

from __future__ import annotations

from pathlib import Path

from medshared import doctor

PACKAGES = (
    "infection-mt",
    "medshared",
    "torch",
    "torchvision",
    "lightning-fabric",
    "tifffile",
    "imagecodecs",
)
EXTRAS = {
    "optuna": "infection-mt[search]",
    "tensorboard": "infection-mt[tensorboard]",
    "wandb": "infection-mt[wandb]",
}


def describe_machine() -> list[str]:
    """Return one line a fact: versions, devices, memory, optional parts, pretrained weights on disk."""
    from infection_mt.models.backbone import PretrainedWeightsError, imagenet_cache_file

    weights: dict[str, Path] = {}
    for name in ("resnet18", "resnet50"):
        try:
            weights[f"ImageNet weights of {name} (or model.pretrained: false)"] = imagenet_cache_file(name)
        except PretrainedWeightsError:
            continue
    return doctor.describe_machine(PACKAGES, EXTRAS, weights)
