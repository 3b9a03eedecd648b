"""Checkpoints of this package and of the original: which network a state dict belongs to, and loading it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from infection_mt.config import Config, ModelConfig, Task
from infection_mt.models.base import ResNetBase
from infection_mt.models.classifier import ResNetClassifier
from infection_mt.models.multitask import MultiTaskResNet
from infection_mt.models.regressor import ResNetRegressor
from medshared import weights

logger = logging.getLogger(__name__)

_BLOCK_COUNTS = {
    (False, 1): "resnet10",
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
    (True, 36): "resnet152",
}


@dataclass(frozen=True)
class Architecture:
    """What a state dict says of its network."""

    task: Task
    backbone: str
    hidden_dim: int
    has_dropout: bool
    num_classes: int  # 0 without a classifier
    use_cls_conditioning: bool
    time_head: str  # "shared" or "per_class"

    def build(self, *, dropout: float = 0.2, train_backbone: bool = True) -> ResNetBase:
        """Build the network without loading anything into it.

        Args:
            dropout: Used when the checkpoint has dropout layers; its value is not in the weights.
            train_backbone: See :class:`ResNetBase`.
        """
        model = ModelConfig(
            name=self.backbone,  # type: ignore[arg-type]
            pretrained=False,
            num_classes=max(self.num_classes, 1),
            dropout=(dropout or 0.2) if self.has_dropout else 0.0,
            hidden_dim=self.hidden_dim,
            use_cls_conditioning=self.use_cls_conditioning,
            time_head=self.time_head,  # type: ignore[arg-type]
            train_backbone=train_backbone,
        )
        return build_model(model, self.task)


def build_model(model: ModelConfig, task: Task, *, download: bool = False) -> ResNetBase:
    """Build the network of a configuration for a task.

    Args:
        model: The ``model`` section.
        task: ``multitask``, ``classification`` (:class:`ResNetClassifier` with the same head) or ``regression``.
        download: Allow fetching ImageNet weights.
    """
    common: dict[str, Any] = {
        "backbone_name": model.name,
        "pretrained": model.pretrained and model.weights is None,
        "dropout": model.dropout,
        "train_backbone": model.train_backbone,
        "hidden_dim": model.hidden_dim,
        "freeze_bn": model.freeze_bn is not False,
        "download": download,
    }
    if task == "classification":
        return ResNetClassifier(num_classes=model.num_classes, **common)
    if task == "regression":
        return ResNetRegressor(**common)
    return MultiTaskResNet(
        num_classes=model.num_classes,
        use_cls_conditioning=model.use_cls_conditioning,
        time_head=model.time_head,
        **common,
    )


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Read the network's architecture from the keys and shapes of its state dict.

    Raises:
        medshared.weights.WeightsError: The keys are not those of a network of this package.
    """
    depth = _count(state, r"backbone\.layer3\.(\d+)\.")
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    backbone = _BLOCK_COUNTS.get((bottleneck, depth))
    classifier = _linear_layers(state, "classifier")
    regressor = _linear_layers(state, "regressor")
    if backbone is None or not (classifier or regressor):
        known = ", ".join(sorted(state)[:5])
        raise weights.WeightsError(
            "these are not the weights of an infection-mt network: expected keys that begin with 'backbone.' and "
            f"'classifier.' or 'regressor.', found {len(state)} keys ({known}, …)"
        )
    first_index, first = (regressor or classifier)[0]
    features = int(
        state["backbone.layer4.0.conv3.weight" if bottleneck else "backbone.layer4.0.conv2.weight"].shape[0]
    )
    num_classes = int(classifier[-1][1].shape[0]) if classifier else 0
    times = int(regressor[-1][1].shape[0]) if regressor else 0
    task: Task = "multitask" if classifier and regressor else "classification" if classifier else "regression"
    return Architecture(
        task=task,
        backbone=backbone,
        hidden_dim=int(first.shape[0]) if len(regressor or classifier) == 2 else 0,
        has_dropout=first_index == 1,
        num_classes=num_classes,
        use_cls_conditioning=bool(classifier) and int(first.shape[1]) == features + num_classes,
        time_head="per_class" if times > 1 else "shared",
    )


def remap_heads(state: Mapping[str, Tensor], *, to_dropout: bool) -> dict[str, Tensor]:
    """Rename head keys between the layouts with (``.1/.4``) and without dropout (``.0/.3``)."""
    names = {"0": "1", "3": "4"} if to_dropout else {"1": "0", "4": "3"}

    def rename(match: re.Match[str]) -> str:
        return f"{match[1]}.{names.get(match[2], match[2])}."

    return {re.sub(r"^(classifier|regressor)\.(\d)\.", rename, key): value for key, value in state.items()}


def load_model(path: Path, *, strict: bool = True) -> tuple[ResNetBase, Mapping[str, Any]]:
    """Build the network that a checkpoint belongs to and load it strictly.

    Args:
        path: A ``best.pt``/``last.pt`` of this package or of the original, or a bare state dict.
        strict: Refuse missing, unexpected and reshaped keys.

    Returns:
        The network in evaluation mode, and the checkpoint's other entries (``config``, ``epoch``, …; empty for
        a bare state dict).
    """
    checkpoint = weights.load_checkpoint(path)
    extras: dict[str, Any] = {}
    if (
        isinstance(checkpoint, Mapping)
        and len(checkpoint)
        and not isinstance(next(iter(checkpoint.values())), Tensor)
    ):
        extras = {key: value for key, value in checkpoint.items() if not key.startswith("model")}
    try:
        state = weights.extract_state_dict(checkpoint)
        architecture = infer_architecture(state)
    except weights.WeightsError as error:
        raise weights.WeightsError(f"{path}: {error}") from None
    model = architecture.build(dropout=_configured_dropout(extras))
    weights.load_state_dict(model, state, strict=strict)
    return model.eval(), extras


def load_weights_into(model: ResNetBase, path: Path, *, strict: bool = False) -> weights.LoadReport:
    """Load a checkpoint into an existing network, adapting the head layout; report what did not fit."""
    checkpoint = weights.load_checkpoint(path)
    try:
        state = weights.extract_state_dict(checkpoint)
    except weights.WeightsError as error:
        raise weights.WeightsError(f"{path}: {error}") from None
    wants_dropout = any(re.match(r"(classifier|regressor)\.1\.", key) for key in model.state_dict())
    return weights.load_state_dict(model, remap_heads(state, to_dropout=wants_dropout), strict=strict)


def model_for_run(config: Config, *, download: bool = False) -> ResNetBase:
    """Build the network of a run, starting from ``model.weights`` when it is set.

    Heads that do not fit (another task, other classes) stay as initialised, with a warning.

    Raises:
        medshared.weights.WeightsError: The file's backbone is another one, with a table of what does not fit.
    """
    model = build_model(config.model, config.task.type, download=download)
    path = config.model.weights
    if path is None:
        return model
    report = load_weights_into(model, path)
    misfits = [*report.missing, *report.unexpected, *(key for key, _, _ in report.reshaped)]
    if any(key.startswith("backbone.") for key in misfits) or not report.matched:
        raise weights.WeightsError(
            f"{path}: model.weights does not fit model.name {config.model.name}; expected keys that begin with "
            f"'backbone.' and are those of that network:\n{report.table()}"
        )
    if misfits:
        logger.warning("%s: used without the layers that do not fit:\n%s", path, report.table())
    return model


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _linear_layers(state: Mapping[str, Tensor], head: str) -> list[tuple[int, Tensor]]:
    """Return (index in the Sequential, weight) of a head's linear layers, in order."""
    found = [
        (int(match[1]), value)
        for key, value in state.items()
        if (match := re.match(rf"{head}\.(\d+)\.weight$", key))
    ]
    return sorted(found, key=lambda item: item[0])


def _configured_dropout(extras: Mapping[str, Any]) -> float:
    config = extras.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("model"), Mapping):
        value = config["model"].get("dropout", 0.2)
        return float(value) if isinstance(value, (int, float)) else 0.2
    return 0.2
