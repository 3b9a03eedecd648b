"""One-hot labels under the original's names, made directly in the channels that are kept.

The original scatters into 251 int32 channels, adds 1e-6, and keeps the first two or three: its entries are 1e-6 and
1.000001. Here they are 0 and 1; ``faithful=True`` gives the original's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from til_mtl.config import IGNORE_INDEX
from til_mtl.errors import DataError


def one_hot_label(
    labels: Tensor,
    num_classes: int = 3,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    eps: float = 1e-6,
    ignore_index: int = IGNORE_INDEX,
    *,
    faithful: bool = False,
) -> Tensor:
    """Turn class indices into one channel per class; the original's function of ``STL/``.

    Args:
        labels: ``[B, H, W]`` integers. Values from ``num_classes`` to ``ignore_index`` are no class: 0 (or ``eps``) in
            all channels.
        num_classes: Channels of the result.
        device: Of the result; by default that of ``labels``.
        dtype: Of the result.
        eps: What ``faithful`` adds to every entry, in float32.
        ignore_index: Largest value that may occur.
        faithful: Add ``eps``, as the original does.

    Returns:
        ``[B, num_classes, H, W]``.

    Raises:
        DataError: ``labels`` has another shape or kind, or a value above ``ignore_index``.
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise DataError(
            f"labels: expected integers [B, H, W], found {labels.dtype} of shape {list(labels.shape)}"
        )
    if labels.numel() and int(labels.max()) > ignore_index:
        raise DataError(
            f"labels: the largest value is {int(labels.max())}; expected classes 0 to {num_classes - 1}, or "
            f"{ignore_index} for pixels that nobody annotated"
        )
    hot = class_channels(labels.to(device or labels.device), num_classes)
    # In float32 as the original: 1 + 1e-6 is 1.00000095 there.
    values = hot.to(torch.float32) + eps if faithful else hot
    return values.to(dtype)


def one_hot_label_seg(labels: Tensor, num_classes: int = 3, *args, **options) -> Tensor:
    """One-hot tissue labels; see `one_hot_label`."""
    return one_hot_label(labels, num_classes, *args, **options)


def one_hot_label_det(labels: Tensor, num_classes: int = 2, *args, **options) -> Tensor:
    """One-hot cell labels; see `one_hot_label`."""
    return one_hot_label(labels, num_classes, *args, **options)


def class_channels(labels: Tensor, num_classes: int) -> Tensor:
    """Return where each class is, as booleans.

    Args:
        labels: ``[B, H, W]`` integers.
        num_classes: C.

    Returns:
        ``[B, C, H, W]``.
    """
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    return labels.unsqueeze(1) == classes.view(1, -1, 1, 1)
