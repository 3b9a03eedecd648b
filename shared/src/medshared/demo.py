"""One page over the demonstrations of all packages: ``python -m medshared.demo runs/demo``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from medshared.files import read_json
from medshared.report import IndexEntry, write_index

logger = logging.getLogger(__name__)


def build_index(folder: Path) -> Path:
    """Write ``index.html`` over the sub-folders that hold a finished demonstration.

    Args:
        folder: Holds one sub-folder a package, each with ``results.json``, ``report.html`` and ``figures/*.png``.

    Returns:
        The page.

    Raises:
        FileNotFoundError: No sub-folder holds a ``results.json``.
    """
    entries = []
    for results_file in sorted(folder.glob("*/results.json")):
        home, results = results_file.parent, read_json(results_file)
        entries.append(
            IndexEntry(
                name=home.name,
                paper=_summary(home.name),
                report=home / "report.html",
                metrics=results.get("metrics", {}),
                baseline=results.get("baseline", {}),
                figures=sorted((home / "figures").glob("*.png")),
                seconds=results.get("seconds"),
            )
        )
    if not entries:
        raise FileNotFoundError(f"{folder}: no demonstration has finished here (no */results.json)")
    page = folder / "index.html"
    write_index(page, "medpapers: demonstrations", entries)
    return page


def _summary(package: str) -> str:
    try:
        return metadata.metadata(package)["Summary"] or ""
    except metadata.PackageNotFoundError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Build the page of a folder and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        logger.info("%s", build_index(arguments.folder))
    except FileNotFoundError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
