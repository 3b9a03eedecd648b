"""Settings of the preparation, and their flags."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from til_mtl.errors import DataError
from til_mtl.prepare.cells import CellShape

Level = Literal["roi", "slide"]


@dataclass(frozen=True)
class PrepareOptions:
    """How patches are made of the download.

    Attributes:
        tiger: Root of the download, with ``wsirois``; ``wsirois`` itself is fine, too.
        out: Data root for the training.
        patch: Edge of the patches in pixels.
        stride: From one patch to the next.
        min_annotated: Smallest annotated share of a tissue patch.
        cell_shape: How a cell is drawn.
        cell_size: Diameter of the disks in pixels; 0 takes the boxes' size.
        unannotated: What becomes of tissue without annotation: left out of the loss, or other.
        folds: Number of folds.
        fold: The fold that ``val`` is made of.
        all_folds: Also write ``fold1`` … ``foldK``, as hard links.
        seed: Of the folds.
        test_fraction: Share of the patients kept for the test.
        tissue_from_cells: Make tissue patches of the tissue-cells regions, too.
        slides: Folder of whole slides: regions smaller than a patch are enlarged from them instead of padded.
        level: ``roi`` reads the region images; ``slide`` cuts the regions out of whole slides by their XML.
        mpp: µm per pixel written to the manifest where no slide tells.
        faithful: Drop detection patches without cells, on which the original fails.
        shard: Part i of n of the regions, as "i/n".
        jobs: Threads.
        again: Make finished regions anew.
    """

    tiger: Path
    out: Path
    patch: int = 256
    stride: int | None = None
    min_annotated: float = 0.5
    cell_shape: CellShape = "disk"
    cell_size: float = 16
    unannotated: Literal["other", "ignore"] = "ignore"
    folds: int = 5
    fold: int = 1
    all_folds: bool = False
    seed: int = 42
    test_fraction: float = 0.0
    tissue_from_cells: bool = False
    slides: Path | None = None
    level: Level = "roi"
    mpp: float = 0.5
    faithful: bool = False
    shard: str | None = None
    jobs: int = 1
    again: bool = False

    @property
    def step(self) -> int:
        """The stride; by default the patch size."""
        return self.patch if self.stride is None else self.stride

    def check(self) -> None:
        """Refuse settings that make no sense.

        Raises:
            DataError: Naming the flag, what was expected and what was found.
        """
        rules = (
            (self.patch >= 8, f"--patch {self.patch}: expected at least 8 pixels"),
            (self.step >= 1, f"--stride {self.step}: expected at least 1 pixel"),
            (
                self.step <= self.patch,
                f"--stride {self.step}: beyond --patch {self.patch} tissue is left out",
            ),
            (
                0 <= self.min_annotated <= 1,
                f"--min-annotated {self.min_annotated:g}: expected a share, 0 to 1",
            ),
            (
                self.cell_size >= 0,
                f"--cell-size {self.cell_size:g}: expected pixels, or 0 for the boxes' size",
            ),
            (
                0 <= self.test_fraction < 1,
                f"--test-fraction {self.test_fraction:g}: expected 0 or a share below 1",
            ),
            (self.folds >= 2, f"--folds {self.folds}: at least 2 are needed, one of them to validate on"),
            (1 <= self.fold <= self.folds, f"--fold {self.fold}: there are folds 1 to {self.folds}"),
            (self.mpp > 0, f"--mpp {self.mpp:g}: expected µm per pixel"),
            (self.jobs >= 1, f"--jobs {self.jobs}: expected at least 1"),
        )
        for fine, message in rules:
            if not fine:
                raise DataError(message)


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the preparation.

    Args:
        parser: Of ``prepare_tiger.py`` or of ``til-mtl prepare``.
    """
    add = parser.add_argument
    add("--tiger", type=Path, required=True, metavar="DIR", help="root of the TIGER download")
    add("--out", type=Path, required=True, metavar="DIR", help="receives the patch folders")
    add("--patch", type=int, default=256, help="edge of the patches in pixels (default: %(default)s)")
    add("--stride", type=int, help="pixels from one patch to the next (default: the patch size)")
    add(
        "--min-annotated", type=float, default=0.5, metavar="SHARE",
        help="smallest annotated share of a tissue patch (default: %(default)s)",
    )  # fmt: skip
    add("--cell-shape", choices=["disk", "square"], default="disk", help="default: %(default)s")
    add(
        "--cell-size", type=float, default=16,
        help="diameter of the disks in pixels; 0 takes the boxes' size (default: %(default)s)",
    )  # fmt: skip
    add(
        "--unannotated", choices=["other", "ignore"], default="ignore",
        help="what becomes of tissue without annotation (default: %(default)s)",
    )  # fmt: skip
    _add_split_options(parser)
    _add_source_options(parser)
    add("--faithful", action="store_true", help="drop detection patches without cells")
    add(
        "--shard",
        metavar="I/N",
        help="part I of N of the regions, for job arrays; run once without it at the end",
    )
    add("--jobs", type=int, default=1, help="threads (default: %(default)s)")
    add("--again", action="store_true", help="make finished regions anew")


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("split by patient, alike in every source").add_argument
    add("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    add("--fold", type=int, default=1, help="fold to validate on, from 1 (default: %(default)s)")
    add(
        "--all-folds", action="store_true",
        help="also write fold1 … foldK for --fold_seg and --fold_det, as hard links",
    )  # fmt: skip
    add("--seed", type=int, default=42, help="of the folds (default: %(default)s)")
    add(
        "--test-fraction",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the patients (default: %(default)s)",
    )


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is read").add_argument
    add(
        "--tissue-from-cells",
        action="store_true",
        help="make tissue patches of the tissue-cells regions, too",
    )
    add(
        "--slides", type=Path, metavar="DIR",
        help="whole slides: regions smaller than a patch are enlarged from them instead of padded with white",
    )  # fmt: skip
    add(
        "--level", choices=["roi", "slide"], default="roi",
        help="region images, or regions cut out of whole slides by their XML annotations (default: %(default)s)",
    )  # fmt: skip
    add("--mpp", type=float, default=0.5, help="µm per pixel where no slide tells (default: %(default)s)")


def options_from_arguments(arguments: argparse.Namespace) -> PrepareOptions:
    """Return the settings that a command line asks for."""
    names = PrepareOptions.__dataclass_fields__
    return PrepareOptions(**{name: getattr(arguments, name) for name in names})
