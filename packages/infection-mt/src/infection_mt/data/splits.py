"""Train, validation and test sides made of whole stacks, positions, wells, plates or runs.

The original's rules (shuffled shares of each class; k folds of train + validation beside one fixed test side) are
kept exactly. The default for cross-validation is different: folds rotate, so that every stack is tested once.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from infection_mt.config import Config
from infection_mt.data.confounding import confounding as confounding
from infection_mt.data.folds import (
    Link,
    SplitError,
    in_order,
    inner_validation,
    quota,
    rotating_folds,
    strata,
    units_of,
)
from infection_mt.data.stacks import GroupKind, Stack

SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The three sides of one run or fold, and what a reader of its results must know."""

    train: list[Stack] = field(default_factory=list)
    val: list[Stack] = field(default_factory=list)
    test: list[Stack] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, side: str) -> list[Stack]:
        if side not in SIDES:
            raise KeyError(f"a split has the sides {', '.join(SIDES)}, not {side!r}")
        return getattr(self, side)

    def sides(self) -> dict[str, list[Stack]]:
        """Side name → stacks."""
        return {name: getattr(self, name) for name in SIDES}

    def summary(self) -> str:
        """One line: stacks of each label on each side."""
        return " | ".join(
            f"{name} {len(stacks)} stacks ("
            + ", ".join(
                f"label {label}: {n}" for label, n in sorted(Counter(s.label for s in stacks).items())
            )
            + ")"
            for name, stacks in self.sides().items()
        )


def make_split(
    stacks: Sequence[Stack],
    config: Config,
    *,
    fold_index: int | None = None,
    linked: Sequence[Link] | None = None,
    cache_dir: Path | None = None,
) -> Split:
    """The checked split of a run or fold: what training scripts call.

    A split column of the manifest is honoured; otherwise :func:`stratified_split` (``fold_index`` None or one fold)
    or :func:`kfold_split` divides. Neighbouring fields that overlap are reported or kept on one side, as
    ``split.overlap`` says.

    Args:
        stacks: All stacks.
        config: Gives ``data.split_ratios``, ``data.split_seed``, ``split`` and ``cv``.
        fold_index: From 0; None for the single split.
        linked: Pairs that must stay on one side; null: overlapping neighbours when ``split.overlap`` asks for them.
        cache_dir: Where overlaps are remembered; null: for this process only.

    Raises:
        SplitError: Before any training: empty sides, a class without training stacks, divided groups.
    """
    config = config.resolved()
    ratios, seed, group = config.data.split_ratios, config.data.split_seed, config.split.group
    given = [stack for stack in stacks if stack.split is not None]
    if given and len(given) != len(stacks):
        raise SplitError(
            f"{len(given)} of {len(stacks)} stacks have a split: give it for every stack or for none"
        )
    found = _overlaps(stacks, config, cache_dir) if linked is None else list(linked)
    keep = found if config.split.overlap == "group" or linked is not None else []
    folds = config.cv.num_folds if fold_index is not None else 1
    rule = config.cv.test or "rotating"
    if given:
        split = _given_split(stacks, seed, folds, fold_index or 0, rule, group, keep)
    else:
        split = kfold_split(stacks, ratios, seed, folds, fold_index, test=rule, group=group, linked=keep)
    check_usable(split, ratios)
    check_disjoint(split)
    check_undivided(split, group, keep)
    return replace(split, warnings=_warnings(split, found))


def stratified_split(
    stacks: Sequence[Stack],
    ratios: Sequence[float],
    seed: int,
    *,
    group: GroupKind = "stack",
    linked: Sequence[Link] = (),
) -> Split:
    """Shares of every class, as the original divides: ``int(n·r)`` for train and val, the rest is the test side.

    With a group other than ``stack`` (or linked stacks) whole groups are dealt; every side gets at least one group
    of each kind as long as there are enough. Sides may come out empty: see :func:`check_usable`.

    Args:
        stacks: In their order on disk, which matters.
        ratios: Shares of train, val, test; their sum lies within 0.01 of 1.
        seed: Of ``random.Random``; one generator shuffles the classes in order of appearance.
        group: What stays together.
        linked: Pairs that stay together.
    """
    shares = check_ratios(ratios)
    rng = random.Random(seed)  # noqa: S311 - reproduces published splits
    sides: dict[str, list[Stack]] = {name: [] for name in SIDES}
    for units in strata(units_of(stacks, group, linked)).values():
        shuffled = list(units)
        rng.shuffle(shuffled)
        n = len(shuffled)
        if group == "stack" and not linked:
            counts = [int(n * shares[0]), int(n * shares[1])]
            counts.append(n - sum(counts))
        else:
            counts = quota(n, shares)
        for name, unit in zip(
            (s for s, k in zip(SIDES, counts, strict=True) for _ in range(k)), shuffled, strict=True
        ):
            sides[name].extend(unit)
    return Split(sides["train"], sides["val"], sides["test"])


def kfold_split(
    stacks: Sequence[Stack],
    ratios: Sequence[float],
    seed: int,
    num_folds: int,
    fold_index: int | None = None,
    *,
    test: Literal["fixed", "rotating"] = "rotating",
    group: GroupKind = "stack",
    linked: Sequence[Link] = (),
) -> Split:
    """One of k folds.

    ``fixed`` is the original: the test side of :func:`stratified_split` never changes, and train + val are divided
    anew by ``StratifiedKFold(k, shuffle=True, random_state=seed)``; the spread over folds then says nothing about
    new stacks. ``rotating``: every stack is tested exactly once; the validation side is drawn from the rest.

    Args:
        stacks: In their order on disk.
        ratios: With rotating folds only the proportion of train to val counts.
        seed: Of the shuffling.
        num_folds: k; 1 or less gives the single split.
        fold_index: 0 … k − 1.
        test: See above.
        group: What stays together.
        linked: Pairs that stay together.

    Raises:
        SplitError: Fewer groups than folds, or a fold index out of range.
    """
    if num_folds <= 1:
        return stratified_split(stacks, ratios, seed, group=group, linked=linked)
    if fold_index is None or not 0 <= fold_index < num_folds:
        raise SplitError(f"fold index {fold_index} is not in 0 … {num_folds - 1} (num_folds {num_folds})")
    if test == "fixed":
        first = stratified_split(stacks, ratios, seed, group=group, linked=linked)
        train, val = _refold([*first.train, *first.val], seed, num_folds, fold_index, group, linked)
        return Split(train, val, first.test)
    shares = check_ratios(ratios)
    folds = rotating_folds(units_of(stacks, group, linked), num_folds, seed, group)
    rest = [unit for number, fold in enumerate(folds) if number != fold_index for unit in fold]
    train, val = inner_validation(rest, shares, seed, fold_index)
    return Split(in_order(train, stacks), in_order(val, stacks), in_order(folds[fold_index], stacks))


def check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Three shares ≥ 0 whose sum lies within 0.01 of 1.

    Raises:
        SplitError: Otherwise.
    """
    if len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1.0) > 0.01:
        raise SplitError(
            f"split_ratios: expected shares of train, val, test with sum 1, found {list(ratios)}"
        )
    return ratios[0], ratios[1], ratios[2]


def check_usable(split: Split, ratios: Sequence[float] | None = None) -> None:
    """Refuse a split that training or evaluation would only stumble over later.

    Raises:
        SplitError: An empty side, or a class that has no training stack.
    """
    everything = [stack for side in split.sides().values() for stack in side]
    classes = Counter(stack.label for stack in everything)
    available = ", ".join(f"{n} of label {label}" for label, n in sorted(classes.items())) or "none"
    for name, side in split.sides().items():
        if not side:
            advice = "more stacks (or groups), fewer folds"
            if ratios is not None:
                share = ratios[SIDES.index(name)]
                need = math.ceil(1 / share - 1e-9) if share > 0 else None
                advice = (
                    f"a larger share than {share:g} in data.split_ratios (now {list(ratios)})"
                    + (f", or at least {need} stacks of a class" if need else "")
                    + ", or smaller groups"
                )
            raise SplitError(f"the {name} side has no stack; there are {available}. It takes {advice}.")
    missing = sorted(set(classes) - {stack.label for stack in split.train})
    if missing:
        raise SplitError(f"the train side has no stack of label {missing[0]}; there are {available}")


def check_disjoint(split: Split, *, by_content: bool = False) -> None:
    """Refuse a stack on two sides, also through links.

    Args:
        split: The sides.
        by_content: Also compare the files' bytes, which finds copies under another name (reads every file whose
            size occurs twice).

    Raises:
        SplitError: Naming the files and the sides.
    """
    seen: dict[object, tuple[str, Path]] = {}
    sizes: Counter[int] = Counter()
    if by_content:
        sizes.update(s.path.stat().st_size for side in split.sides().values() for s in side)
    for name, side in split.sides().items():
        for stack in side:
            for identity in _identities(stack.path, sizes):
                other = seen.setdefault(identity, (name, stack.path))
                if other[0] != name:
                    what = "a copy of" if isinstance(identity, str) else "the same stack as"
                    raise SplitError(
                        f"{stack.path} ({name}) is {what} {other[1]} ({other[0]}): a stack must not be on two sides"
                    )


def check_undivided(split: Split, group: GroupKind, linked: Sequence[Link] = ()) -> None:
    """Refuse groups or linked pairs on two sides.

    Raises:
        SplitError: Naming the group and the sides.
    """
    side_of = {stack.path: name for name, side in split.sides().items() for stack in side}
    owner: dict[str, str] = {}
    for name, side in split.sides().items():
        for stack in side:
            key = stack.group(group)
            if owner.setdefault(key, name) != name:
                raise SplitError(f"{group} {key} is divided between {owner[key]} and {name}")
    for a, b in linked:
        if side_of.get(a.path, "") != side_of.get(b.path, "") and a.path in side_of and b.path in side_of:
            raise SplitError(
                f"{a.path.name} ({side_of[a.path]}) and {b.path.name} ({side_of[b.path]}) overlap but are divided"
            )


def _refold(
    pool: list[Stack], seed: int, k: int, fold_index: int, group: GroupKind, linked: Sequence[Link]
) -> tuple[list[Stack], list[Stack]]:
    """Divide train + val anew, with the test side untouched."""
    if group != "stack" or linked:
        folds = rotating_folds(units_of(pool, group, linked), k, seed, group)
        rest = [unit for number, fold in enumerate(folds) if number != fold_index for unit in fold]
        return in_order(rest, pool), in_order(folds[fold_index], pool)
    from sklearn.model_selection import StratifiedKFold

    labels = [stack.label for stack in pool]
    scarce = min(Counter(labels).values(), default=0)
    if scarce < k:
        raise SplitError(
            f"{k} folds need {k} train and val stacks of every class; the smallest class has {scarce}"
        )
    folder = StratifiedKFold(k, shuffle=True, random_state=seed)
    train, val = list(folder.split(pool, labels))[fold_index]
    return [pool[i] for i in train], [pool[i] for i in val]


def _overlaps(stacks: Sequence[Stack], config: Config, cache_dir: Path | None) -> list[Link]:
    if config.split.overlap == "off":
        return []
    from infection_mt.data.overlap import find_overlaps

    return [(stacks[pair.a], stacks[pair.b]) for pair in find_overlaps(stacks, cache_dir=cache_dir)]


def _warnings(split: Split, overlapping: Sequence[Link]) -> tuple[str, ...]:
    warnings = []
    side_of = {stack.path: name for name, side in split.sides().items() for stack in side}
    divided = [(a, b) for a, b in overlapping if side_of[a.path] != side_of[b.path]]
    if divided:
        a, b = divided[0]
        warnings.append(
            f"{len(divided)} pairs of overlapping neighbours are divided between sides, for example {a.path.name} "
            f"({side_of[a.path]}) and {b.path.name} ({side_of[b.path]}): the same cells are trained on and scored. "
            "Use split.overlap: group, or crop the borders."
        )
    labels = {stack.label for side in split.sides().values() for stack in side}
    for name in ("val", "test"):
        missing = sorted(labels - {stack.label for stack in split[name]})
        if missing:
            warnings.append(f"The {name} side has no stack of label {missing[0]}: its AUC is undefined.")
    wells = {name: {s.group("well") for s in side if s.well} for name, side in split.sides().items()}
    shared = sorted(wells["train"] & wells["test"])
    if shared:
        warnings.append(
            f"Train and test share wells ({', '.join(shared[:8])}): the scores say nothing about new wells. "
            "Use split.group: well."
        )
    return tuple(warnings)


def _given_split(
    stacks: Sequence[Stack],
    seed: int,
    num_folds: int,
    fold_index: int,
    test: Literal["fixed", "rotating"],
    group: GroupKind,
    linked: Sequence[Link],
) -> Split:
    sides = {name: [stack for stack in stacks if stack.split == name] for name in SIDES}
    if num_folds <= 1:
        return Split(sides["train"], sides["val"], sides["test"])
    if test == "rotating":
        raise SplitError(
            "the manifest fixes the sides (column 'split'), so the test side cannot rotate: "
            "use cv.test: fixed, cv.num_folds: 1, or a manifest without that column"
        )
    train, val = _refold(sides["train"] + sides["val"], seed, num_folds, fold_index, group, linked)
    return Split(train, val, sides["test"])


def _identities(path: Path, sizes: Counter[int]) -> list[object]:
    identities: list[object] = [path.resolve()]
    if path.exists():
        status = path.stat()
        identities.append((status.st_dev, status.st_ino))
        if sizes[status.st_size] > 1:
            with path.open("rb") as file:
                identities.append(hashlib.file_digest(file, "sha256").hexdigest())
    return identities
