"""A group of bags: what one update of the networks takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Bag(Protocol):
    """One patient's features and what the backbone needs beside them."""

    @property
    def x(self) -> Tensor:
        """Features ``[1, N, c]``."""
        ...

    @property
    def extra(self) -> Tensor | None:
        """Cluster ids ``[N]``, edges ``[2, E]``, or None."""
        ...


class GroupLabels(NamedTuple):
    """Labels of a group of bags; any object with these two attributes serves.

    Attributes:
        t: Time in the configured unit, or bin index, ``[n]``.
        e: 1 for an event, 0 for censored, ``[n]``.
    """

    t: Any
    e: Any


@dataclass(frozen=True)
class StepResult:
    """What one update leaves behind.

    Attributes:
        predictions: ``[n, k]``, on the CPU.
        fake_scores: The discriminator's logits of the predictions, ``[n]`` on the CPU; None where it took no part.
        log: Values under the original's tracker names.
    """

    predictions: Tensor
    fake_scores: Tensor | None
    log: dict[str, float]


@dataclass(frozen=True)
class Group:
    """A group of bags with its labels on the device.

    Attributes:
        bags: The bags, wherever they lie.
        t: Times or bins ``[n]``.
        e: Events ``[n]``.
        visible: Whether each label may be used, bool ``[n]``.
        seen: The same on the host, so that no step waits for the device.
    """

    bags: Sequence[Bag]
    t: Tensor
    e: Tensor
    visible: Tensor
    seen: list[bool]

    @property
    def n_seen(self) -> int:
        """How many labels may be used."""
        return sum(self.seen)


def make_group(
    bags: Sequence[Bag], labels: GroupLabels, visible: Sequence[bool] | Tensor | None, like: Tensor
) -> Group:
    """Check a group and move its labels to the device and precision of a parameter.

    Args:
        bags: The bags, at least one.
        labels: Times and events, one of each a bag.
        visible: Whether each label may be used; None is all.
        like: A parameter.

    Raises:
        ValueError: The numbers differ, or there is no bag.
    """
    t = torch.as_tensor(labels.t).reshape(-1)
    e = torch.as_tensor(labels.e).reshape(-1)
    shown = torch.ones(len(bags), dtype=torch.bool) if visible is None else torch.as_tensor(visible)
    shown = shown.reshape(-1).bool()
    if not len(bags) == len(t) == len(e) == len(shown) or not len(bags):
        raise ValueError(
            f"a group of {len(bags)} bags with {len(t)} times, {len(e)} events and {len(shown)} marks of visibility: "
            "expected one of each for every bag, and at least one bag"
        )
    t = t.to(like.device, like.dtype)
    return Group(bags, t, e.to(like.device, like.dtype), shown.to(like.device), shown.tolist())


class FirstLayers:
    """First-layer outputs of a group's bags, kept between two passes over the same bags with the same weights."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._outputs: dict[int, tuple[Tensor, Tensor]] = {}  # bag number -> its features, the output
        self._versions: tuple[int, ...] = ()

    def _current(self) -> tuple[int, ...]:
        return tuple(p._version for p in self._network.parameters())

    def keep(self, number: int, features: Tensor, output: Tensor) -> None:
        """Keep a bag's output for one later use."""
        if not self._outputs:
            self._versions = self._current()
        self._outputs[number] = (features, output)

    def take(self, number: int, features: Tensor) -> Tensor | None:
        """Hand over what was kept for these very features, unless the weights have changed since."""
        if not self._outputs:
            return None
        kept, output = self._outputs.pop(number, (None, None))
        return output if kept is features and self._versions == self._current() else None

    def clear(self) -> None:
        """Forget everything."""
        self._outputs.clear()


def input_of(bag: Bag, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a bag's features and extra on the device, and the features in the precision, of a parameter."""
    extra = bag.extra
    x = bag.x.to(like.device, like.dtype, non_blocking=True)
    return x, None if extra is None else extra.to(like.device, non_blocking=True)


def number(x: Tensor | float) -> float:
    """Return a scalar as a plain number."""
    return float(x.detach()) if isinstance(x, Tensor) else float(x)
