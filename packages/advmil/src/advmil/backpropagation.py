"""Gradients of a group of bags, holding one bag's activations at a time.

A group's loss is a mean over its bags, so its gradient is the sum of what each bag gives: forward, backward, forward,
backward. Losses that compare bags (Cox, ranking) need all predictions first; their gradient with respect to the
predictions then goes back bag by bag, through a second forward pass that repeats the first one's dropout and noise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advmil.sharing import GroupWork

Memory = Literal["bag", "group"]


@dataclass(frozen=True)
class Arithmetic:
    """How forward and backward passes are run; the defaults are plain torch.

    Attributes:
        autocast: Gives the context of forward passes, for mixed precision.
        backward: Called with a loss instead of ``loss.backward()``, for loss scaling and for tools that wrap it.
        second_order: Whether the gradients can be differentiated again, which one optimiser needs.
    """

    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    backward: Callable[[Tensor], Any] | None = None
    second_order: bool = False

    def differentiate(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the parameters' gradients."""
        if self.backward is not None:
            self.backward(loss)
        elif self.second_order:
            torch.autograd.backward(loss, create_graph=True)
        else:
            loss.backward()

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """Run a forward pass."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.autocast())
            if self.second_order:
                # Only the plain attention kernel can be differentiated twice.
                from torch.nn.attention import SDPBackend, sdpa_kernel

                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield


def full_precision(x: Tensor) -> Tensor:
    """Return what came out of mixed precision as float32, for the loss."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class RandomState:
    """The state of the generators that dropout draws from: the CPU's and the device's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        if device.type == "cuda":
            self._other = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            self._other = torch.mps.get_rng_state()

    def restore(self) -> None:
        """Go back to the state of when this was made."""
        torch.set_rng_state(self._cpu)
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._other, self._device)
        elif self._device.type == "mps":
            torch.mps.set_rng_state(self._other)


@dataclass(frozen=True)
class GroupLoss:
    """A loss in two parts.

    Attributes:
        each: Bag number and its prediction ``[1, k]`` -> its share of the loss, or None where it has none.
        together: All predictions ``[n, k]`` -> the part that compares bags, or None where there is none.
    """

    each: Callable[[int, Tensor], Tensor | None]
    together: Callable[[Tensor], Tensor] | None = None


def backpropagate(
    n: int,
    forward: Callable[[int], Tensor],
    loss: GroupLoss,
    *,
    memory: Memory,
    device: torch.device,
    arithmetic: Arithmetic,
    work: GroupWork | None = None,
) -> Tensor:
    """Add the gradient of a group's loss to the parameters' gradients.

    Args:
        n: Bags.
        forward: Bag number -> its prediction ``[1, k]``. It may be called twice for a bag and must then give the same
            but for dropout, which is repeated here.
        loss: The group's loss.
        memory: ``bag`` holds one bag's activations at a time, ``group`` all of them.
        device: Where dropout draws.
        arithmetic: How to differentiate.
        work: Says which bags are this process's, whose gradients alone are added; by default all.

    Returns:
        The predictions ``[n, k]`` of all bags, detached.
    """
    work = work or GroupWork(n)
    if memory == "group" and work.alone:
        return _whole_group(n, forward, loss, arithmetic)
    if loss.together is None:
        return _bag_by_bag(work, forward, loss, arithmetic)
    return _replayed(work, forward, loss, device, arithmetic)


def _whole_group(n: int, forward: Callable[[int], Tensor], loss: GroupLoss, arithmetic: Arithmetic) -> Tensor:
    predictions = [forward(i) for i in range(n)]
    parts = [part for i, p in enumerate(predictions) if (part := loss.each(i, p)) is not None]
    stacked = torch.cat(predictions)
    if loss.together is not None:
        parts.append(loss.together(stacked))
    parts = [part for part in parts if part.requires_grad]
    if parts:
        arithmetic.differentiate(torch.stack(parts).sum())
    return stacked.detach()


def _bag_by_bag(
    work: GroupWork, forward: Callable[[int], Tensor], loss: GroupLoss, arithmetic: Arithmetic
) -> Tensor:
    predictions = []
    for i in work.own:
        prediction = forward(i)
        part = loss.each(i, prediction)
        if part is not None and part.requires_grad:
            arithmetic.differentiate(part)
        predictions.append(prediction.detach())
    return work.gather(predictions)


def _replayed(
    work: GroupWork,
    forward: Callable[[int], Tensor],
    loss: GroupLoss,
    device: torch.device,
    arithmetic: Arithmetic,
) -> Tensor:
    states, first = [], []
    for i in work.own:
        states.append(RandomState(device))
        with torch.no_grad():
            first.append(forward(i))
    after = RandomState(device)
    predictions = work.gather(first).requires_grad_()
    value = loss.together(predictions) if loss.together is not None else predictions.sum() * 0
    slopes = torch.zeros_like(predictions)
    if value.requires_grad:
        (slopes,) = torch.autograd.grad(value, predictions)
    for i, state in zip(work.own, states, strict=True):
        state.restore()
        prediction = forward(i)
        part = (prediction * slopes[i : i + 1]).sum()
        own = loss.each(i, prediction)
        arithmetic.differentiate(part if own is None else part + own)
    after.restore()
    return predictions.detach()


def penalise(parameters: list[nn.Parameter], coef: float | None, arithmetic: Arithmetic) -> Tensor:
    """Add the gradient of ``coef * sum |w|`` to the parameters' gradients, once a group.

    The gradient is ``coef * sign(w)``; it is written down rather than derived, unless losses are scaled or the
    gradients are to be differentiated again.

    Returns:
        The penalty.
    """
    if coef is None or coef <= 1e-8 or not parameters:
        return torch.zeros(())
    if arithmetic.second_order or arithmetic.backward is not None:
        total = coef * torch.stack([p.abs().sum() for p in parameters]).sum()
        arithmetic.differentiate(total)
        return total.detach()
    with torch.no_grad():
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            p.grad.add_(p.sign(), alpha=coef)
        return coef * torch.stack([torch.linalg.vector_norm(p, 1) for p in parameters]).sum()


@contextlib.contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """Compute no gradients of a module's weights meanwhile; gradients still flow through it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def trained_parameters(module: nn.Module, freeze: tuple[str, ...]) -> list[nn.Parameter]:
    """Return the parameters of a module that are trained, all but the frozen names."""
    return [p for name, p in module.named_parameters() if name not in freeze and p.requires_grad]
