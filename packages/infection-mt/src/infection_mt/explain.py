"""Grad-CAM for the class output and for the time output, and the pictures made of it.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from infection_mt.models.base import Outputs, ResNetBase

Score = Literal["infected", "difference", "time"]


def score_of(outputs: Outputs, score: Score, infected_class: int = 1) -> Tensor:
    """Return the [B] scalar whose gradient explains the output.

    Args:
        outputs: Network outputs of a batch.
        score: ``infected`` (that class's logit, or the single logit), ``difference`` (infected minus uninfected
            logit) or ``time`` (hours).
        infected_class: Column of the infected class.

    Raises:
        ValueError: The network lacks the output.
    """
    if score == "time":
        if outputs.time is None:
            raise ValueError("this network has no time output; choose the score 'infected'")
        return outputs.time[:, 0]
    if outputs.logits is None:
        raise ValueError("this network has no class output; choose the score 'time'")
    if outputs.logits.shape[1] == 1:
        return outputs.logits[:, 0]
    if score == "difference":
        if outputs.logits.shape[1] != 2:
            raise ValueError("the logit difference needs exactly two classes")
        return outputs.logits[:, infected_class] - outputs.logits[:, 1 - infected_class]
    return outputs.logits[:, infected_class]


def grad_cam(model: ResNetBase, x: Tensor, score: Score = "infected", infected_class: int = 1) -> Tensor:
    """Return where the frame speaks for a score: ``ReLU(Σ_k w_k A_k)``, w_k the spatial mean of ∂score/∂A_k.

    A is the output of the last block of ``layer4``; the map is resized bilinearly to the input and scaled to
    [0, 1] by ``(m − min) / (max − min + 1e-8)`` for each frame.

    Args:
        model: Network in evaluation mode.
        x: ``[B, 3, H, W]`` (or one-channel) normalised frames.
        score: What to explain.
        infected_class: Column of the infected class.

    Returns:
        ``[B, H, W]`` maps in [0, 1].
    """
    activations: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        activations.append(output)

    handle = model.backbone.layer4[-1].register_forward_hook(keep)
    try:
        with torch.enable_grad():
            # A frozen backbone has no gradient of its own; the input's carries it to the activations.
            total = score_of(model.outputs(x.detach().requires_grad_(True)), score, infected_class).sum()
            (gradient,) = torch.autograd.grad(total, activations[0])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * activations[0].detach()).sum(dim=1, keepdim=True))
    maps = functional.interpolate(maps, size=x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    low = maps.amin(dim=(1, 2), keepdim=True)
    high = maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low + 1e-8)


def denormalise(x: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Turn one ``[3, H, W]`` network input back into an ``[H, W, 3]`` 8-bit picture (values are truncated)."""
    shape = (3, 1, 1)
    picture = x * np.asarray(std, dtype=np.float32).reshape(shape) + np.asarray(mean, np.float32).reshape(
        shape
    )
    return (np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0)


def heatmap(cam: NDArray[np.float32], colour_map: str = "jet") -> NDArray[np.uint8]:
    """Colour an ``[H, W]`` map in [0, 1] to ``[H, W, 3]`` (values are truncated)."""
    from matplotlib import colormaps

    return (colormaps[colour_map](cam)[..., :3] * 255.0).astype(np.uint8)


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
    """Lay a coloured map over a picture, both ``[H, W, 3]``: ``α · heat + (1 − α) · picture``, truncated."""
    return (alpha * heat.astype(np.float32) + (1 - alpha) * picture.astype(np.float32)).astype(np.uint8)
