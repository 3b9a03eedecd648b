"""The simulated user: whom it follows, where it clicks, and which mask it then wants.

A user follows one rater. Each click is placed where the current mask disagrees most with that rater; the raters who
agree with the click are those whom it may have come from, and the mean of their masks is the next target.

All chance comes as `ClickDraws`, uniform numbers that are drawn for a whole batch at once, or image by image from a
seed, so that the clicks on an image do not depend on the images beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from medshared.gpu import derive_seed

INSIDE, OUTSIDE, NO_CLICK = 1, 0, -1
SWITCH = 0.2
CANDIDATES = 20


class Clicks(NamedTuple):
    """One click an image, or none.

    Attributes:
        coords: float32 ``[B, 2]``, pixel indices (x, y) of the mask; (0, 0) without a click.
        labels: int64 ``[B]``: 1 inside, 0 outside the wanted mask, -1 no click.
        target: float32 ``[B, S, S]`` in [0, 1], the mask that is wanted next.
        rater: int64 ``[B]``, who is followed; -1 nobody yet.
    """

    coords: Tensor
    labels: Tensor
    target: Tensor
    rater: Tensor


class ClickDraws(NamedTuple):
    """The chance in one round of clicks: uniform numbers in [0, 1), each ``[B]``.

    Attributes:
        switch: Below the chance of a switch, another rater is followed from now on.
        rater: Which of the raters that may be chosen.
        pixel: Which of the candidate pixels.
        label: Which label, for random clicks only.
    """

    switch: Tensor
    rater: Tensor
    pixel: Tensor
    label: Tensor


def draw_clicks(n: int, generator: torch.Generator | None) -> ClickDraws:
    """Draw the chance of one round for a batch.

    Args:
        n: Images B.
        generator: On any device; None = torch's global one.
    """
    device = "cpu" if generator is None else generator.device
    return ClickDraws(*torch.rand(4, n, generator=generator, device=device))


def fixed_draws(seed: int, images: Sequence[int | str], round_index: int) -> ClickDraws:
    """Return the chance of one round that belongs to the images, whatever batch they are in.

    Args:
        seed: Of the evaluation.
        images: Number or name of every image of the batch.
        round_index: From 0.
    """
    drawn = [np.random.default_rng(derive_seed(seed, "click", i, round_index)).random(4) for i in images]
    return ClickDraws(*torch.from_numpy(np.asarray(drawn, np.float32).reshape(-1, 4).T.copy()))


def simulate_clicks(
    probabilities: Tensor | None,
    raters: Tensor,
    valid: Tensor,
    previous: Tensor,
    generator: torch.Generator | None = None,
    *,
    switch: float = SWITCH,
    candidates: int = CANDIDATES,
    stop_when_right: bool = True,
    valid_only: bool = True,
    draws: ClickDraws | None = None,
) -> Clicks:
    """Click on every image where its mask disagrees most with the followed rater.

    The rater is the previous one, with probability ``switch`` another valid one; without a previous one any valid
    one. The pixel is one of the ``candidates`` at which probability and mask differ most. The target is the mean of
    the valid raters who label that pixel as the click does. The original's ``random_prompt_from_current_mask``.

    Args:
        probabilities: ``[B, S, S]`` in [0, 1], the current mask; None before the first: no click, nobody followed,
            and the target is the mean of the raters.
        raters: ``[B, R, S, S]``, masks of 0 and 1.
        valid: bool ``[B, R]``, raters with a mask that is not empty. An image without any is clicked on by any
            rater and has an empty target.
        previous: int64 ``[B]``, the followed rater; -1 nobody yet.
        generator: Where the draws come from, unless ``draws`` are given.
        switch: Chance that another rater is followed from now on; 0 in evaluations.
        candidates: Pixels to choose from, at least 1.
        stop_when_right: No click (label -1) where the mask at 0.5 is the rater's already; the target is that mask.
            False: a click all the same, as the original.
        valid_only: Before the first click, the mean is over valid raters. False: over all, padded ones too.
        draws: Chance that was drawn elsewhere, such as `fixed_draws`.

    Returns:
        The clicks, on the device of ``raters``.

    Raises:
        ValueError: For shapes that do not fit together.
    """
    _check_shapes(probabilities, raters, valid, previous)
    masks = raters > 0.5
    if probabilities is None:
        return _no_clicks(masks, valid, valid_only)
    size = masks.shape[-1]
    drawn = _on_device(draws or draw_clicks(len(masks), generator), masks.device)
    rater = choose_raters(valid, previous, drawn, switch)
    rows = torch.arange(len(masks), device=masks.device)
    wanted = masks[rows, rater]
    pixel = _worst_pixel(probabilities.detach(), wanted, candidates, drawn.pixel)
    labels = wanted.flatten(1)[rows, pixel].long()
    target = _mean_of_agreeing(masks, valid, pixel, labels)
    coords = _xy(pixel, size)
    if stop_when_right:
        right = ((probabilities > 0.5) == wanted).flatten(1).all(dim=1)
        labels = labels.masked_fill(right, NO_CLICK)
        coords = coords.masked_fill(right[:, None], 0.0)
        target = torch.where(right[:, None, None], wanted.to(target.dtype), target)
    return Clicks(coords, labels, target, rater)


def random_clicks(
    raters: Tensor,
    valid: Tensor,
    previous: Tensor,
    generator: torch.Generator | None = None,
    *,
    switch: float = 0.0,
    draws: ClickDraws | None = None,
) -> Clicks:
    """Click anywhere with any label: the control that shows whether clicks carry information.

    Args:
        raters: ``[B, R, S, S]``, masks of 0 and 1.
        valid: bool ``[B, R]``.
        previous: int64 ``[B]``, the followed rater, chosen as in `simulate_clicks`; -1 nobody yet.
        generator: Where the draws come from, unless ``draws`` are given.
        switch: Chance that another rater is followed from now on.
        draws: Chance that was drawn elsewhere.

    Returns:
        Clicks that say nothing about the followed rater; the target is that rater's mask.
    """
    _check_shapes(None, raters, valid, previous)
    masks = raters > 0.5
    drawn = _on_device(draws or draw_clicks(len(masks), generator), masks.device)
    rater = choose_raters(valid, previous, drawn, switch)
    size = masks.shape[-1]
    pixel = _pick(drawn.pixel, torch.full_like(rater, size * size))
    rows = torch.arange(len(masks), device=masks.device)
    labels = (drawn.label >= 0.5).long()
    return Clicks(_xy(pixel, size), labels, masks[rows, rater].float(), rater)


def choose_raters(valid: Tensor, previous: Tensor, draws: ClickDraws, switch: float) -> Tensor:
    """Decide for every image whom the user follows now.

    Args:
        valid: bool ``[B, R]``; where nobody is valid, everybody may be chosen.
        previous: int64 ``[B]``; -1, or a rater who is not valid, = nobody yet.
        draws: Chance on the same device.
        switch: Chance that another valid rater is chosen; a rater who is alone stays.

    Returns:
        int64 ``[B]`` in [0, R).
    """
    rows = torch.arange(len(valid), device=valid.device)
    known = previous.clamp(min=0)
    follows = (previous >= 0) & valid[rows, known]
    allowed = valid | ~valid.any(dim=1, keepdim=True)
    others = allowed.clone()
    others[rows, known] = others[rows, known] & ~follows
    n_others = others.sum(dim=1)
    chosen = torch.where(follows & (n_others == 0), known, _nth(others, _pick(draws.rater, n_others)))
    return torch.where(follows & (draws.switch >= switch), known, chosen)


def suggest(mask: ArrayLike, truth: ArrayLike) -> tuple[int, int, int] | None:
    """Suggest the click that a careful user would make next.

    It is the pixel deepest inside the largest connected error: missed and falsely marked pixels are separate errors,
    diagonal neighbours hang together, and the border of the image bounds an error as other pixels do.

    Args:
        mask: bool ``[H, W]``, the current mask.
        truth: bool ``[H, W]``, the wanted one.

    Returns:
        (x, y, label), label 1 where the mask misses a pixel and 0 where it has one too many; None when it is right.
        Among equals the first row by row.

    Raises:
        ValueError: For shapes that differ.

    Example:
        >>> truth = np.zeros((7, 7), bool)
        >>> truth[1:6, 2:7] = True
        >>> suggest(np.zeros((7, 7), bool), truth)
        (4, 3, 1)
    """
    from scipy import ndimage

    current, wanted = np.asarray(mask, bool), np.asarray(truth, bool)
    if current.shape != wanted.shape or current.ndim != 2:
        raise ValueError(
            f"mask and truth must have one shape [H, W], found {list(current.shape)} and {list(wanted.shape)}"
        )
    best: tuple[int, np.ndarray, int] | None = None
    for label, error in ((INSIDE, wanted & ~current), (OUTSIDE, current & ~wanted)):
        parts, n = ndimage.label(error, np.ones((3, 3)))  # type: ignore[misc]
        if not n:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        largest = int(sizes.argmax())
        if best is None or sizes[largest] > best[0]:
            best = (int(sizes[largest]), parts == largest + 1, label)
    if best is None:
        return None
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(best[1], 1)))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y), best[2]


def _check_shapes(probabilities: Tensor | None, raters: Tensor, valid: Tensor, previous: Tensor) -> None:
    """Refuse what broadcasting would take silently."""
    if raters.ndim != 4 or raters.shape[-1] != raters.shape[-2]:
        raise ValueError(f"raters must be [B, R, S, S], found {list(raters.shape)}")
    b, r, s, _ = raters.shape
    wanted = {"valid": (valid, (b, r)), "previous": (previous, (b,))}
    if probabilities is not None:
        wanted["probabilities"] = (probabilities, (b, s, s))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)}, found {list(tensor.shape)}")


def _no_clicks(masks: Tensor, valid: Tensor, valid_only: bool) -> Clicks:
    """Return what is wanted before the first click."""
    everybody = torch.ones_like(valid)
    counted = torch.where(valid.any(dim=1, keepdim=True), valid, everybody) if valid_only else everybody
    nobody = torch.full((len(masks),), -1, dtype=torch.long, device=masks.device)
    coords = torch.zeros(len(masks), 2, device=masks.device)
    return Clicks(coords, nobody.clone(), _mean_over(masks, counted), nobody)


def _worst_pixel(probabilities: Tensor, wanted: Tensor, candidates: int, uniform: Tensor) -> Tensor:
    """Draw one of the pixels of each flattened mask ``[B, S, S]`` where it is most wrong."""
    error = (probabilities - wanted.to(probabilities.dtype)).abs().flatten(1)
    top = error.topk(min(candidates, error.shape[1]), dim=1).indices
    chosen = _pick(uniform, torch.full((len(top),), top.shape[1], device=top.device))
    return top.gather(1, chosen[:, None])[:, 0]


def _mean_of_agreeing(masks: Tensor, valid: Tensor, pixel: Tensor, labels: Tensor) -> Tensor:
    """Average the valid raters whose value at the clicked pixel is the click's label; zeros without any."""
    b, r = valid.shape
    values = masks.flatten(2).gather(2, pixel[:, None, None].expand(b, r, 1))[..., 0]
    return _mean_over(masks, valid & (values == labels.bool()[:, None]))


def _mean_over(masks: Tensor, counted: Tensor) -> Tensor:
    """Average masks ``[B, R, S, S]`` over the counted raters ``[B, R]``; zeros without any."""
    weights = counted.to(torch.float32)
    total = torch.einsum("br,brhw->bhw", weights, masks.to(torch.float32))
    return total / weights.sum(dim=1).clamp(min=1)[:, None, None]


def _on_device(draws: ClickDraws, device: torch.device) -> ClickDraws:
    return ClickDraws(*(each.to(device) for each in draws))


def _pick(uniform: Tensor, n: Tensor) -> Tensor:
    """Turn uniform numbers into indices below ``n`` (0 where n is 0)."""
    return torch.minimum((uniform * n).long(), (n - 1).clamp(min=0))


def _nth(pool: Tensor, index: Tensor) -> Tensor:
    """Return the position of the index-th True of every row."""
    return (pool & (pool.cumsum(dim=1) == index[:, None] + 1)).int().argmax(dim=1)


def _xy(pixel: Tensor, size: int) -> Tensor:
    """Turn positions in a flattened mask into (x, y)."""
    return torch.stack([pixel % size, pixel // size], dim=1).float()
