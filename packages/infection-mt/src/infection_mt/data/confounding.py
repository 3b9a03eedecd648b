"""Can the label be told from the well or the plate? Then a score says nothing about the cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infection_mt.data.stacks import GroupKind, Stack


def confounding(stacks: Sequence[Stack]) -> list[str]:
    """Warnings where the label can be told from the well or the plate instead of from the cells.

    Returns:
        Complete sentences; empty when nothing is suspicious.
    """
    labels = sorted({stack.label for stack in stacks})
    if len(labels) < 2:
        return []
    warnings = []
    unknown = [stack for stack in stacks if stack.well is None]
    if unknown:
        warnings.append(
            f"The well of {len(unknown)} of {len(stacks)} stacks is unknown ({unknown[0].path.name}, …): whether "
            "label and well are confounded cannot be checked. Give a manifest with a column 'well'."
        )
    else:
        warnings += _confounded_by(stacks, labels, "well")
    if all(stack.plate is not None for stack in stacks) and len({stack.plate for stack in stacks}) > 1:
        warnings += _confounded_by(stacks, labels, "plate")
    return warnings


def _confounded_by(stacks: Sequence[Stack], labels: list[int], kind: GroupKind) -> list[str]:
    members = {label: sorted({s.group(kind) for s in stacks if s.label == label}) for label in labels}
    owners = Counter(group for groups in members.values() for group in groups)
    listing = "; ".join(f"label {label} only in {kind} {', '.join(g)}" for label, g in members.items())
    if max(owners.values()) > 1:
        single = [label for label in labels if len(members[label]) == 1]
        return [
            f"All stacks of label {label} come from one {kind} ({members[label][0]}): what is particular to that "
            f"{kind} cannot be told from the label."
            for label in single
        ]
    if min(len(groups) for groups in members.values()) == 1:
        return [
            f"LABEL AND {kind.upper()} ARE FULLY CONFOUNDED: {listing}. A model may recognise the {kind} "
            f"(illumination, focus, cell density) instead of the infection, and no score on these stacks can tell "
            f"the difference. Record each class in at least two {kind}s and use split.group: {kind}."
        ]
    return [
        f"Every {kind} holds one class only ({listing}): use split.group: {kind}, so that the test side holds "
        f"{kind}s that training has not seen."
    ]
