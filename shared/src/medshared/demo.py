"""One page over the demonstrations of all packages: ``python -m medshared.demo runs/demo``."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from medshared.files import read_json
from medshared.report import IndexEntry, write_index

logger = logging.getLogger(__name__)


def clear_demo(output: Path, marker: str) -> bool:
    """Make room for a demonstration: remove what an earlier one left, and nothing else.

    Args:
        output: Its folder; ``demo/`` is made in it.
        marker: Folder below ``demo/`` that every demonstration of the package begins with.

    Returns:
        Whether there is room; False when the folder holds anything but a demonstration, which is left alone.
    """
    home = output / "demo"
    if output.exists() and any(output.iterdir()):
        stopped_early = home.is_dir() and not any(home.iterdir())
        if not (home / marker).is_dir() and not stopped_early:
            return False
        for folder in (home, output / "figures"):
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("results.json", "report.html"):
            (output / name).unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    return True


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
