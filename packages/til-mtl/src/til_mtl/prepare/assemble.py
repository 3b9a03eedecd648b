"""Training folders out of the pool of patches: hard links, so that folds cost no space; manifest and points."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medshared.files import link_or_copy, write_json
from medshared.tables import read_table, write_table
from til_mtl.data.manifest import MANIFEST, SPLITS
from til_mtl.data.tiger import source_of
from til_mtl.errors import DataError
from til_mtl.prepare.folds import TEST_FOLD
from til_mtl.prepare.options import PrepareOptions
from til_mtl.prepare.region_patches import pool_folder

POINTS = "points.json"
COLUMNS = (
    "patch", "task", "split", "fold", "slide", "source", "x", "y", "width", "height", "mpp", "n_cells",
    "frac_other", "frac_tumor", "frac_stroma", "frac_ignored",
)  # fmt: skip
_FILES = {
    "segmentation": {"img": ".png", "mask": ".png"},
    "detection": {"img": ".png", "mask": ".png", "points": ".csv"},
}


def split_of(fold: int, validated: int) -> str:
    """Return the side of a slide's fold when one fold is validated on."""
    if fold == TEST_FOLD:
        return "test"
    return "val" if fold == validated else "train"


def manifest_rows(
    records: Iterable[Mapping[str, Any]], folds: Mapping[str, int], validated: int
) -> list[dict[str, Any]]:
    """Return the rows of the manifest, tissue first, by name.

    Args:
        records: Of the regions, see `til_mtl.prepare.region_patches.write_region`.
        folds: Slide → fold.
        validated: The fold that is ``val``.

    Returns:
        Rows with all columns; a patch that two regions give is in once.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        slide = record["slide"]
        fold = folds[slide]
        for patch in record["patches"]:
            about = {
                "split": split_of(fold, validated),
                "fold": fold,
                "slide": slide,
                "source": source_of(slide),
            }
            row = {**patch, **about}
            rows.setdefault((patch["task"], patch["patch"]), {name: row[name] for name in COLUMNS})
    return sorted(rows.values(), key=lambda row: (row["task"] != "segmentation", row["patch"]))


def patch_points(records: Iterable[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Return the cell centres of every detection patch, (x, y) in pixels of it."""
    patches = (patch for record in records for patch in record["patches"] if patch["task"] == "detection")
    return {patch["patch"]: patch["points"] for patch in patches}


def assemble(
    rows: Sequence[Mapping[str, Any]], points: Mapping[str, list[list[float]]], options: PrepareOptions
) -> str:
    """Fill the training folders, then write ``points.json`` and, last, ``manifest.csv``.

    Args:
        rows: Of the manifest.
        points: Of the detection patches.
        options: ``out``, ``fold``, ``folds`` and ``all_folds``.

    Returns:
        A word on what was made.

    Raises:
        DataError: A folder holds patches that are not from the preparation.
        OSError: A file cannot be linked or copied.
    """
    out = options.out
    known = _earlier_patches(out) | {row["patch"] for row in rows}
    for task, kinds in _FILES.items():
        mine = [row for row in rows if row["task"] == task]
        for kind, suffix in kinds.items():
            pool = pool_folder(out, task, kind)
            for target, names in _targets(out / task, kind, mine, options).items():
                _fill(target, pool, names, suffix, known)
    write_json(out / POINTS, dict(sorted(points.items())))
    write_table(out / MANIFEST, rows)
    counts = [f"{sum(row['split'] == split for row in rows)} {split}" for split in SPLITS]
    return ", ".join(counts)


def _targets(
    base: Path, kind: str, rows: Sequence[Mapping[str, Any]], options: PrepareOptions
) -> dict[Path, list[str]]:
    """Return which patches belong into which folder; folds that are not asked for are emptied if they exist."""
    targets: dict[Path, list[str]] = {}
    for split in SPLITS:
        targets[base / split / kind] = [row["patch"] for row in rows if row["split"] == split]
    present = (path.name for path in base.glob("fold*")) if base.is_dir() else ()
    left = {int(name[4:]) for name in present if name[4:].isdecimal()}  # of an earlier run with more folds
    for fold in sorted(left | set(range(1, options.folds + 1))):
        for split in SPLITS:
            chosen = [row["patch"] for row in rows if split_of(row["fold"], fold) == split]
            asked = options.all_folds and fold <= options.folds
            targets[base / f"fold{fold}" / f"{split}_{kind}"] = chosen if asked else []
    return targets


def _fill(target: Path, pool: Path, names: Sequence[str], suffix: str, known: set[str]) -> None:
    """Make a folder hold exactly some files of the pool."""
    wanted = {f"{name}{suffix}" for name in names}
    present = {path.name for path in target.iterdir()} if target.is_dir() else set()
    for name in sorted(present - wanted):
        path = target / name
        if name.startswith(".") and name.endswith(".tmp"):
            path.unlink(missing_ok=True)  # left by a run that was killed
        elif path.suffix == suffix and path.stem in known:
            path.unlink(missing_ok=True)
        elif not name.startswith("."):
            raise DataError(f"{path}: is not from this preparation: choose an empty folder as --out")
    if not wanted:
        with contextlib.suppress(OSError):  # an empty folder would look like a set without patches
            target.rmdir()
            target.parent.rmdir()
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(wanted):
        link_patch(pool / name, target / name)


def link_patch(source: Path, target: Path) -> None:
    """Give a patch of the pool its name in a training folder.

    Args:
        source: Existing file.
        target: Replaced in one step if it is another file.

    Raises:
        DataError: The source is gone.
        OSError: The target cannot be written.
    """
    if not source.is_file():
        raise DataError(f"{source}: the patch is gone: run the preparation again")
    link_or_copy(source, target)


def _earlier_patches(out: Path) -> set[str]:
    """Return the patches of an earlier run: its manifest may be gone, its folders are then not touched."""
    path = out / MANIFEST
    if not path.is_file():
        return set()
    return set(read_table(path, ())["patch"].tolist())
