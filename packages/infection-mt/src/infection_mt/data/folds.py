"""What stays together, and how such units are dealt to sides and folds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from infection_mt.data.stacks import GroupKind, Stack

Link = tuple[Stack, Stack]  # two stacks that must be on one side
Unit = list[Stack]  # stacks that stay together


class SplitError(ValueError):
    """A division of the stacks that cannot be made or must not be used."""


def units_of(stacks: Sequence[Stack], group: GroupKind = "stack", linked: Sequence[Link] = ()) -> list[Unit]:
    """Stacks that stay together: groups of one kind, joined further by linked pairs, in order of appearance."""
    parent = list(range(len(stacks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        low, high = sorted((root(i), root(j)))
        parent[high] = low

    first: dict[str, int] = {}
    number = {stack.path: i for i, stack in enumerate(stacks)}
    for i, stack in enumerate(stacks):
        join(first.setdefault(stack.group(group), i), i)
    for a, b in linked:
        if a.path in number and b.path in number:
            join(number[a.path], number[b.path])
    units: dict[int, Unit] = {}
    for i, stack in enumerate(stacks):
        units.setdefault(root(i), []).append(stack)
    return list(units.values())


def strata(units: Sequence[Unit]) -> dict[tuple[int, ...], list[Unit]]:
    """Units by the labels they contain, in order of appearance."""
    by_labels: dict[tuple[int, ...], list[Unit]] = {}
    for unit in units:
        by_labels.setdefault(tuple(sorted({stack.label for stack in unit})), []).append(unit)
    return by_labels


def quota(n: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers near n·share with sum n; every positive share gets at least 1 while there are enough."""
    order = sorted((i for i, share in enumerate(shares) if share > 0), key=lambda i: -shares[i])
    counts = [0] * len(shares)
    for i in order[:n]:
        counts[i] = 1
    while sum(counts) < n:
        counts[max(order, key=lambda i: (n * shares[i] - counts[i], shares[i]))] += 1
    return counts


def rotating_folds(units: Sequence[Unit], k: int, seed: int, group: GroupKind) -> list[list[Unit]]:
    """Deal units to folds so that every class is spread evenly; large units first, ties in random order."""
    if len(units) < k:
        raise SplitError(
            f"{k} rotating folds need at least {k} groups that stay together, but there are {len(units)} "
            f"(split.group: {group}; the largest holds {max(map(len, units), default=0)} stacks): "
            "use fewer folds or smaller groups, or link fewer stacks by overlap"
        )
    totals = Counter(stack.label for unit in units for stack in unit)
    ordered = []
    rng = random.Random(seed)  # noqa: S311 - a reproducible shuffle, nothing secret
    for stratum in strata(units).values():
        shuffled = list(stratum)
        rng.shuffle(shuffled)
        ordered += sorted(shuffled, key=len, reverse=True)
    folds: list[list[Unit]] = [[] for _ in range(k)]
    loads = [Counter() for _ in range(k)]
    for unit in ordered:
        counts = Counter(stack.label for stack in unit)

        def cost(i: int, counts: Counter[int] = counts) -> tuple[float, int, int]:
            rise = sum(c * (2 * loads[i][label] + c) / totals[label] ** 2 for label, c in counts.items())
            return round(rise, 12), sum(loads[i].values()), i

        best = min(range(k), key=cost)
        folds[best].append(unit)
        loads[best].update(counts)
    return folds


def inner_validation(
    rest: list[Unit], shares: tuple[float, float, float], seed: int, fold_index: int
) -> tuple[list[Unit], list[Unit]]:
    """Divide what is not tested into train and validation units, in the proportion of their two shares."""
    train: list[Unit] = []
    val: list[Unit] = []
    rng = random.Random(seed * 1_000_003 + fold_index + 1)  # noqa: S311 - another shuffle for every fold
    part = shares[0] + shares[1]
    inner = (shares[0] / part, shares[1] / part) if part > 0 else (1.0, 0.0)
    for stratum in strata(rest).values():
        shuffled = list(stratum)
        rng.shuffle(shuffled)
        n_train = quota(len(shuffled), inner)[0]
        train += shuffled[:n_train]
        val += shuffled[n_train:]
    return train, val


def in_order(units: Iterable[Unit], order: Sequence[Stack]) -> list[Stack]:
    """The stacks of units in the order of the full list."""
    rank = {stack.path: i for i, stack in enumerate(order)}
    return sorted((stack for unit in units for stack in unit), key=lambda stack: rank[stack.path])
