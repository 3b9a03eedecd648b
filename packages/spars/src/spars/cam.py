"""Class-activation maps of the classifier: where it looks, without any search.

Grad-CAM (Selvaraju et al. 2017): the last feature map A, each channel k weighted by the mean over the map of the
gradient of the tumour logit, and what is negative cut off: ``relu(Σ_k mean(∂y/∂A_k) · A_k)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spars.lattice import Lattice, Size

if TYPE_CHECKING:
    from torch import Tensor

    from spars.models.net import Net
    from spars.models.window_net import WindowNet


def grad_cam(
    network: Net | WindowNet, volume: NDArray[Any], target_size: Size | Literal["native"] = "native"
) -> NDArray[np.float32]:
    """Return the class-activation map of a volume, or of a window.

    Args:
        network: In evaluation mode; its map at the volume's own size needs no linear layer of that size
            (`WindowNet`), or ``target_size`` is the input that it was built for (`Net`).
        volume: ``[X, Y, Z]``.
        target_size: What the volume is stretched to before.

    Returns:
        float32 ``[X, Y, Z]`` in [0, 1], 1 where it is highest; 0 everywhere when nothing speaks for a tumour.
    """
    import torch
    from torch.nn import functional

    x = torch.from_numpy(np.ascontiguousarray(volume, np.float32))[None, None]
    if target_size != "native":
        x = functional.interpolate(x, size=target_size, mode="trilinear", align_corners=False)
    device = next(network.parameters()).device
    with torch.enable_grad():
        features: Tensor = network.features(x.to(device)).detach().requires_grad_(True)
        logit = network.classify(features)[0, 1]
        (gradient,) = torch.autograd.grad(logit, features)
    weights = gradient.mean(dim=(2, 3, 4), keepdim=True)
    heat = torch.relu((weights * features.detach()).sum(dim=1, keepdim=True))
    heat = functional.interpolate(heat, size=volume.shape, mode="trilinear", align_corners=False)[0, 0]
    highest = float(heat.max())
    return (heat / highest if highest > 0 else heat).cpu().numpy().astype(np.float32)


def window_cam(
    network: Net | WindowNet,
    volume: NDArray[Any],
    lattice: Lattice,
    flat: int,
    target_size: Size | Literal["native"] = "native",
) -> NDArray[np.float32]:
    """Return the class-activation map of one window, at its place in an empty volume.

    Args:
        network: As for `grad_cam`.
        volume: ``[grid]``.
        lattice: The window positions.
        flat: Flat index of the window.
        target_size: What the window is stretched to before.
    """
    start = lattice.starts(lattice.unflat(np.array(flat)))
    box = tuple(slice(int(s), int(s) + w) for s, w in zip(start, lattice.window, strict=True))
    found = np.zeros(lattice.grid, np.float32)
    found[box] = grad_cam(network, volume[box], target_size)
    return found
