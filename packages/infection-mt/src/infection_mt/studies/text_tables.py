"""Tables in plain text, for the reports that the studies leave beside their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in fixed columns: the first to the left, numbers with three decimals to the right.

    Args:
        headers: Names of the columns.
        rows: Cells; an undefined number reads ``–``.

    Example:
        >>> print(text_table(["class", "MAE"], [["mock", 1.5]]))
        class    MAE
        mock   1.500
    """
    cells = [[_cell(value) for value in row] for row in [list(headers), *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = []
    for row in cells:
        first, *rest = (
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
