"""The command ``aespa``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    return argparse.ArgumentParser(prog="aespa", description=__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    build_parser().parse_args(argv)
    return 0
