"""``infection-mt prepare``: is the data what a run needs? Checks every page and builds the frame cache.

Everything is looked at before any verdict: a bad stack, an impossible split and confounded wells are all in one
report.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infection_mt.config import Config
from infection_mt.data.audit_report import contact_sheet, write_audit_report
from infection_mt.data.confounding import confounding
from infection_mt.data.folds import SplitError
from infection_mt.data.frame_cache import PreparedStack, prepare_each
from infection_mt.data.hash_tools import find_duplicates
from infection_mt.data.overlap import OverlapPair, find_overlaps
from infection_mt.data.policy import resolve_policy
from infection_mt.data.prepare import SPLITS, cache_folder, time_settings
from infection_mt.data.splits import Split, make_split
from infection_mt.data.stacks import Stack, load_stacks
from infection_mt.data.table import build_table
from medshared.files import write_json
from medshared.images import StackReader
from medshared.metrics.classification import roc_auc
from medshared.tables import write_table

logger = logging.getLogger(__name__)
SHOWN_PER_CLASS = 3  # stacks on the contact sheet
_TELLING_AUC = 0.95  # from here on the illumination alone is said to give the class away
_FEWEST_TO_JUDGE = 4  # stacks of a class; fewer separate by chance
BAD_COLUMNS = ["path", "page", "reason"]
OVERLAP_COLUMNS = ["a", "b", "well", "dy_px", "dx_px", "shared_area", "correlation", "z", "support"]
DRIFT_COLUMNS = ["path", "label", "well", "position", "page", "mean", "gradient_x", "gradient_y"]


@dataclass
class Audit:
    """What was found.

    Attributes:
        stacks: Stacks that can be used.
        failed: Path → why a stack cannot be used.
        bad_pages: (path, page, reason) of pages that cannot be used in stacks that can.
        splits: Name (empty for a single split, ``fold_1`` …) → the division.
        problems: What would stop a run, one sentence each.
        warnings: What a reader of results must know.
        overlaps: Pairs of neighbours that show the same cells.
        duplicates: (removed, kept, distance), when asked for.
        sheet: (stack, first, middle, last frame [C, S, S]) of some stacks of each class.
    """

    stacks: list[Stack] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    bad_pages: list[tuple[Path, int, str]] = field(default_factory=list)
    splits: dict[str, Split] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overlaps: list[OverlapPair] = field(default_factory=list)
    duplicates: list[tuple[Stack, Stack, int]] | None = None
    sheet: list[tuple[Stack, list[NDArray[np.uint8]]]] = field(default_factory=list)


def audit(config: Config, output: Path, *, duplicates: bool = False) -> int:
    """Check the data of a configuration and write what was found.

    Args:
        config: Of the run that is to come.
        output: Receives ``bad_stacks.csv`` (only when there are any), ``stacks.csv``, ``splits.json``,
            ``overlaps.csv``, ``drift.csv``, ``contact_sheet.png`` and, last, ``report.html``.
        duplicates: Also compare the first frames of all stacks (``dedup_*.jsonl``).

    Returns:
        0, or 1 when a run with this configuration would stop.

    Raises:
        FileNotFoundError: A folder or the manifest is missing.
        ValueError: The manifest is broken, or files occur twice.
    """
    config = config.resolved()
    found = Audit()
    scanned = load_stacks(config.data, cache_folder(config), failed=found.failed)
    _check_pages(found, scanned, config)
    found.problems += [f"A stack cannot be used: {reason}" for reason in found.failed.values()]
    found.warnings += confounding(found.stacks)
    if config.split.overlap != "off":
        found.overlaps = find_overlaps(found.stacks, cache_dir=cache_folder(config))
    _divide(found, config)
    drift = drift_table(found.stacks, found.bad_pages)
    found.warnings += illumination_warnings(drift)
    if duplicates:
        bad_first = {path for path, page, _ in found.bad_pages if page == 0}
        found.duplicates = find_duplicates(
            [s for s in found.stacks if s.path not in bad_first], folder=output
        )
    _write(found, drift, output, config)
    for text in found.warnings:
        logger.warning("%s", text)
    for text in found.problems:
        logger.error("%s", text)
    logger.info(
        "%d stacks can be used, %d cannot, %d pages cannot: %s",
        len(found.stacks), len(found.failed), len(found.bad_pages), output / "report.html",
    )  # fmt: skip
    return 1 if found.problems else 0


def _check_pages(found: Audit, scanned: Sequence[Stack], config: Config) -> None:
    """Decode every page once, into the frame cache unless ``data.cache`` says otherwise."""
    folder = cache_folder(config) if config.data.cache == "disk" else None
    shown: dict[int, int] = {}
    for stack, result in prepare_each(scanned, config.data.transforms, folder, config.data.num_workers):
        if isinstance(result, str):
            found.failed[stack.path] = result
            continue
        found.stacks.append(stack)
        found.bad_pages += [(stack.path, page, reason) for page, reason in result.bad_pages.items()]
        if shown.setdefault(stack.label, 0) < SHOWN_PER_CLASS:
            shown[stack.label] += 1
            found.sheet.append((stack, _first_middle_last(result)))


def _first_middle_last(prepared: PreparedStack) -> list[NDArray[np.uint8]]:
    n = len(prepared)
    return [np.array(prepared.frames[i]) for i in (0, n // 2, n - 1)]


def _divide(found: Audit, config: Config) -> None:
    """Make every split, and check that the frames that they choose can be used."""
    folds = range(config.cv.num_folds) if config.cv.num_folds > 1 else [None]
    bad = {(path, page): reason for path, page, reason in found.bad_pages}
    chosen_bad: dict[str, None] = {}
    for index in folds:
        name = "" if index is None else f"fold_{index + 1}"
        try:
            split = make_split(found.stacks, config, fold_index=index, cache_dir=cache_folder(config))
            found.splits[name] = split
            for side in SPLITS:
                for path, page in _chosen_pages(split[side], side, config):
                    if (path, page) in bad:
                        chosen_bad[bad[path, page]] = None
        except (SplitError, ValueError) as error:
            found.problems.append(f"{name or 'the split'}: {error}")
            continue
        found.warnings += [text for text in split.warnings if text not in found.warnings]
    found.problems += [f"data.frames chooses a page that cannot be used: {reason}" for reason in chosen_bad]


def _chosen_pages(stacks: Sequence[Stack], side: str, config: Config) -> list[tuple[Path, int]]:
    frames = config.data.frames.model_dump(exclude_unset=True) if config.data.frames is not None else None
    table = build_table(
        stacks,
        resolve_policy(frames, side),
        pre_onset=config.multitask.pre_onset or "exclude",
        onset_hour=time_settings(config).onset_hour,
        faithful=config.faithful,
    )
    if len(table) == 0:
        raise ValueError(f"data.frames: no frame of the {len(stacks)} {side} stacks falls into the windows")
    pages = zip(table.stack_index, table.frame_index, strict=True)
    return [
        (stacks[s].path, min(max(int(f) + shift, 0), stacks[s].n_frames - 1))
        for s, f in pages
        for shift in _shifts(config, table.frames_per_hour)
    ]


def _shifts(config: Config, frames_per_hour: float) -> list[int]:
    offsets = config.data.channel_offsets_hours
    return [0] if offsets is None else [round(hours * frames_per_hour) for hours in offsets]


def page_statistics(page: NDArray[Any]) -> tuple[float, float, float]:
    """Brightness and illumination of a page.

    Returns:
        Mean gray value, and the slope of the least-squares plane from left to right and from top to bottom, as a
        share of the mean over the whole page (0 when the mean is 0).
    """
    image = np.asarray(page, np.float64)
    if image.ndim == 3:
        image = image.mean(axis=2)
    mean = float(image.mean())
    slopes = []
    for profile in (image.mean(axis=0), image.mean(axis=1)):
        x = np.linspace(-0.5, 0.5, len(profile)) if len(profile) > 1 else np.zeros(1)
        spread = float((x * x).sum())
        slope = float((x * profile).sum()) / spread if spread else 0.0
        slopes.append(slope / abs(mean) if mean else 0.0)
    return mean, slopes[0], slopes[1]


def drift_table(stacks: Sequence[Stack], bad_pages: Sequence[tuple[Path, int, str]] = ()) -> pd.DataFrame:
    """Brightness and illumination of the first and last page of each stack, from the pixels as stored.

    Args:
        stacks: Readable stacks.
        bad_pages: Pages to leave out.

    Returns:
        One row a page with the columns of ``drift.csv``; ``page`` is ``first`` or ``last``.
    """
    left_out = {(path, page) for path, page, _ in bad_pages}
    rows = []
    for stack in stacks:
        with StackReader(stack.path) as reader:
            for name, number in (("first", 0), ("last", stack.n_frames - 1)):
                if (stack.path, number) not in left_out:
                    values = page_statistics(reader.page(number))
                    rows.append(
                        [str(stack.path), stack.label, stack.well or "", stack.position, name, *values]
                    )
    return pd.DataFrame(rows, columns=pd.Index(DRIFT_COLUMNS))


def illumination_warnings(drift: pd.DataFrame) -> list[str]:
    """Say when the illumination of the first pages, before anything can have happened, gives the class away."""
    first: Any = drift[drift["page"] == "first"]
    label = first["label"].to_numpy()
    labels, counts = np.unique(label, return_counts=True)
    if len(labels) != 2 or counts.min() < _FEWEST_TO_JUDGE:
        return []
    warnings = []
    for column, text in (("gradient_x", "left to right"), ("gradient_y", "top to bottom")):
        auc = float(roc_auc(first[column].to_numpy(float), (label == labels[1]).astype(int)))
        if max(auc, 1 - auc) >= _TELLING_AUC:
            warnings.append(
                f"The illumination gradient from {text} on the first pages alone tells the classes apart (AUC "
                f"{max(auc, 1 - auc):.2f} over {len(label)} stacks): a model can score well without seeing a cell. "
                "Flatten the illumination, or test on another plate."
            )
    return warnings


def _write(found: Audit, drift: pd.DataFrame, output: Path, config: Config) -> None:
    bad = [[str(path), None, reason] for path, reason in found.failed.items()]
    bad += [[str(path), page, reason] for path, page, reason in found.bad_pages]
    bad_table = pd.DataFrame(bad, columns=pd.Index(BAD_COLUMNS), dtype=object)
    if len(bad_table):
        write_table(output / "bad_stacks.csv", bad_table)
    else:
        (output / "bad_stacks.csv").unlink(missing_ok=True)
    stacks = _stack_table(found)
    write_table(output / "stacks.csv", stacks)
    sides = {
        name: {side: [str(s.path) for s in members] for side, members in split.sides().items()}
        for name, split in found.splits.items()
    }
    write_json(output / "splits.json", sides.get("", sides))
    overlaps = _overlap_table(found)
    write_table(output / "overlaps.csv", overlaps)
    write_table(output / "drift.csv", drift)
    sheet = contact_sheet(found.sheet, output / "contact_sheet.png") if found.sheet else None
    tables = {"bad": bad_table, "stacks": stacks, "overlaps": overlaps, "drift": drift}
    removed = None
    if found.duplicates is not None:
        columns = pd.Index(["removed", "like", "different bits"])
        rows = [[a.path.name, b.path.name, distance] for a, b, distance in found.duplicates]
        removed = pd.DataFrame(rows, columns=columns)
    write_audit_report(output, config, found.problems, found.warnings, tables, sheet, removed)


def _stack_table(found: Audit) -> pd.DataFrame:
    side_of = {
        name: {s.path: side for side, members in split.sides().items() for s in members}
        for name, split in found.splits.items()
    }
    rows = [
        {
            "path": str(s.path),
            "condition": s.condition,
            "label": s.label,
            "plate": s.plate or "",
            "well": s.well or "",
            "position": s.position,
            "n_frames": s.n_frames,
            "shape": "x".join(map(str, s.shape or ())),
            "dtype": s.dtype or "",
            **{f"split_{n}" if n else "split": sides.get(s.path, "") for n, sides in side_of.items()},
        }
        for s in found.stacks
    ]
    return pd.DataFrame(rows)


def _overlap_table(found: Audit) -> pd.DataFrame:
    rows = []
    for pair in found.overlaps:
        a, b, o = found.stacks[pair.a], found.stacks[pair.b], pair.overlap
        rows.append(
            [str(a.path), str(b.path), a.well or "", o.dy, o.dx, o.area, o.correlation, o.z, o.support]
        )
    return pd.DataFrame(rows, columns=pd.Index(OVERLAP_COLUMNS))
