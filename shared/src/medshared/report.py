"""What a run shows a person: one HTML file that opens anywhere, also offline and years later.

No script, no external request (a content security policy in the page forbids them), pictures within the file,
readable on a phone, in the dark, and on paper. All text given here is shown as it is and never as markup.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from medshared import __version__
from medshared.configuration import dump_yaml
from medshared.files import to_plain, write_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
_LONG_PART = 8  # entries of a nested mapping that get a fold of their own


def format_value(value: Any) -> str:
    """Return a value as a person reads it: four significant digits, grouped thousands, – for nothing.

    Args:
        value: number, text, boolean or ``None``; NumPy and torch scalars too. NaN counts as nothing.

    Returns:
        Plain text.
    """
    plain = to_plain(value, finite=False)
    if plain is None:
        return "–"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, int):
        # A narrow space: commas mean decimals to half of the world.
        return f"{plain:,}".replace(",", "\u202f") if abs(plain) >= 10_000 else str(plain)
    if isinstance(plain, float):
        return _format_float(plain)
    if isinstance(plain, list):
        return ", ".join(format_value(item) for item in plain) or "–"
    if isinstance(plain, dict):
        return ", ".join(f"{key}: {format_value(item)}" for key, item in plain.items()) or "–"
    return str(plain)


def _format_float(value: float) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if value.is_integer() and size < 1e6:
        return format_value(int(value)).replace("-", "−")
    if not 1e-4 <= size < 1e6:
        return f"{value:.3e}".replace("-", "−")
    decimals = min(max(0, 3 - math.floor(math.log10(size))), 7)
    group = "\u202f" if size >= 10_000 else ""
    return f"{value:,.{decimals}f}".replace(",", group).replace("-", "−")


class Report:
    """A page that is filled from top to bottom; every method returns the report.

    Example:
        >>> report = Report("Infection onset", "ResNet-50, five folds")
        >>> report.section("Result").cards({"AUC": 0.9123, "MAE": ("1.31 h", "95 % interval 1.2 to 1.5 h")})
        Report('Infection onset', 2 blocks)
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {len(self._blocks)} blocks)"

    def _add(self, kind: str, **parts: Any) -> Self:
        self._blocks.append({"kind": kind, **parts})
        return self

    def section(self, title: str) -> Self:
        """Begin a section; three or more get a list of links at the top."""
        number = sum(block["kind"] == "section" for block in self._blocks) + 1
        return self._add("section", title=title, anchor=f"section-{number}")

    def text(self, text: str) -> Self:
        """Add paragraphs of plain text, separated by empty lines."""
        return self._add("text", paragraphs=_paragraphs(text))

    def warning(self, text: str) -> Self:
        """Add a box that cannot be overlooked."""
        return self._add("warning", paragraphs=_paragraphs(text))

    def cards(self, values: Mapping[str, Any]) -> Self:
        """Add the key numbers.

        Args:
            values: label and value; a tuple (value, note) shows the note in small print below.
        """
        cards = []
        for label, value in values.items():
            pair = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
            cards.append({"label": str(label), "value": format_value(pair[0]), "note": str(pair[1])})
        # Full rows: six cards in two rows of three instead of five and a lonely one.
        rows = math.ceil(len(cards) / 5)
        return self._add("cards", cards=cards, columns=math.ceil(len(cards) / max(rows, 1)))

    def table(
        self,
        data: pd.DataFrame | Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]],
        caption: str = "",
        *,
        headers: Sequence[str] | None = None,
        max_rows: int = 200,
    ) -> Self:
        """Add a table; a wide one scrolls within its own box.

        Args:
            data: a pandas data frame (its index becomes columns unless it just counts), or rows as mappings,
                or rows as sequences with ``headers``.
            caption: what it shows.
            headers: column titles; needed for rows that are sequences, else they choose and order columns.
            max_rows: rows beyond it are counted instead of shown.
        """
        return self._add("table", **_table(data, caption, headers, max_rows))

    def figure(self, figure: str | os.PathLike[str] | Figure, caption: str = "") -> Self:
        """Add a picture, stored within the page.

        Args:
            figure: a PNG, JPEG, GIF, WebP or SVG file, or a matplotlib figure.
            caption: what it shows, also read to those who cannot see it.

        Raises:
            FileNotFoundError: naming the picture.
            ValueError: for another kind of file.
        """
        return self._add("figure", data=_picture(figure), caption=caption)

    def config(self, config: Mapping[str, Any], title: str = "Configuration") -> Self:
        """Add the configuration as YAML, folded."""
        return self._add("config", yaml=dump_yaml(config), title=title)

    def provenance(self, facts: Mapping[str, Any], title: str = "Provenance") -> Self:
        """Add where the results come from, e.g. ``environment.json``, folded; long parts are folded again."""
        plain = to_plain(facts, finite=False)
        short: list[tuple[str, str]] = []
        parts: list[dict[str, Any]] = []
        for key, value in plain.items():
            if isinstance(value, dict) and len(value) > _LONG_PART:
                lines = [(str(name), format_value(item)) for name, item in value.items()]
                parts.append({"title": f"{key} ({len(lines)})", "facts": lines})
            elif key == "command" and isinstance(value, list):
                short.append((key, " ".join(map(str, value))))
            else:
                short.append((key, format_value(value)))
        return self._add("provenance", title=title, facts=short, parts=parts)

    def html(self) -> str:
        """Return the page."""
        sections = [block for block in self._blocks if block["kind"] == "section"]
        return _render(
            "report.html.j2",
            title=self.title,
            subtitle=self.subtitle,
            sections=sections,
            content=self._blocks,
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page atomically and return its path."""
        return write_text(path, self.html())


@dataclass(frozen=True)
class IndexEntry:
    """One run on the page that `write_index` writes.

    Attributes:
        name: of the package or run.
        paper: one line about it.
        report: its report; the link is relative to the index page.
        metrics: results by name.
        baseline: what the metrics are measured against.
        figures: pictures, stored within the page.
        seconds: how long it took.
    """

    name: str
    paper: str
    report: Path
    metrics: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    seconds: float | None = None


def write_index(
    path: str | os.PathLike[str], title: str, entries: Sequence[IndexEntry], subtitle: str = ""
) -> Path:
    """Write a page with one card a run: its numbers beside the baseline's, pictures, a link to its report.

    Args:
        path: the page, e.g. ``runs/demo/index.html``.
        title: of the page.
        entries: the runs, in the order shown.
        subtitle: one line below the title.

    Returns:
        The path.
    """
    folder = Path(path).parent
    shown = [
        {
            "name": entry.name,
            "paper": entry.paper,
            "table": _comparison(entry),
            "figures": [{"data": _picture(figure), "caption": _caption(figure)} for figure in entry.figures],
            "link": _relative_link(Path(entry.report), folder) if Path(entry.report).is_file() else None,
            "duration": "" if entry.seconds is None else format_duration(entry.seconds),
        }
        for entry in entries
    ]
    return write_text(path, _render("index.html.j2", title=title, subtitle=subtitle, entries=shown))


def format_duration(seconds: float) -> str:
    """Return a duration as ``12 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s" if seconds >= 1 else "under 1 s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def _comparison(entry: IndexEntry) -> dict[str, Any]:
    names = list(dict.fromkeys([*entry.metrics, *entry.baseline]))
    rows = [[name, entry.metrics.get(name), entry.baseline.get(name)] for name in names]
    headers = ["metric", "result", "baseline"]
    if not entry.baseline:
        headers, rows = headers[:2], [row[:2] for row in rows]
    return _table(rows, "", headers, len(rows) + 1)


def _relative_link(target: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(target, folder)).as_posix())


def _caption(path: Path) -> str:
    return Path(path).stem.replace("_", " ").replace("-", " ")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _table(data: Any, caption: str, headers: Sequence[str] | None, max_rows: int) -> dict[str, Any]:
    if hasattr(data, "to_dict") and hasattr(data, "reset_index"):  # a data frame, without importing pandas
        counts = data.index.names == [None] and list(data.index) == list(range(len(data)))
        frame = data if counts else data.reset_index()
        titles = [str(column) for column in frame.columns]
        rows = [list(row) for row in frame.itertuples(index=False, name=None)]
        if headers is not None:
            places = [titles.index(str(header)) for header in headers]
            titles, rows = [str(h) for h in headers], [[row[place] for place in places] for row in rows]
    elif data and isinstance(data[0], Mapping):
        titles = list(dict.fromkeys(str(key) for key in headers or [key for row in data for key in row]))
        rows = [[{str(k): v for k, v in row.items()}.get(title) for title in titles] for row in data]
    else:
        if headers is None:
            raise ValueError("a table of rows that are sequences needs headers")
        titles, rows = [str(header) for header in headers], [list(row) for row in data]
        for number, row in enumerate(rows):
            if len(row) != len(titles):
                raise ValueError(f"row {number} of the table has {len(row)} cells, expected {len(titles)}")
    shown = rows[:max_rows]
    columns = list(zip(*rows, strict=True)) or [()] * len(titles)
    return {
        "caption": caption,
        "headers": titles,
        "rows": [[format_value(cell) for cell in row] for row in shown],
        "numeric": [_is_numeric(column) for column in columns],
        "left_out": len(rows) - len(shown),
    }


def _is_numeric(column: Sequence[Any]) -> bool:
    plain = [to_plain(cell, finite=False) for cell in column]
    present = [cell for cell in plain if cell is not None]
    return bool(present) and all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in present)


def _picture(figure: Any) -> str:
    """Return a picture as a ``data:`` address."""
    if hasattr(figure, "savefig"):
        buffer = io.BytesIO()
        # No date and no version in the file: the same figure gives the same page.
        figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight", metadata={"Software": None})
        return _data_address("image/png", buffer.getvalue())
    path = Path(figure)
    kind = _PICTURES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected a picture ({', '.join(_PICTURES)}) or a matplotlib figure")
    try:
        return _data_address(kind, path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "no such picture", str(path)) from error


def _data_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medshared"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**{"sections": [], **values}, version=__version__)
