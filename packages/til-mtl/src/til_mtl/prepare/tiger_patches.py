"""``prepare_tiger.py``: from the TIGER download to patch folders, a manifest and cell centres.

Every region is cut once into ``<out>/patches``; the training folders hold hard links to these files, so that K folds
take no more space than one. ``<out>/regions`` records what was made of each region: a second run goes on where the
first one stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from medshared.batch import Outcome, Task, attempt, run_batch, write_batch_report
from medshared.files import read_json, write_json
from medshared.leases import Shard
from til_mtl.data.manifest import MANIFEST
from til_mtl.prepare.assemble import assemble, manifest_rows, patch_points
from til_mtl.prepare.folds import assign_folds
from til_mtl.prepare.options import PrepareOptions, add_prepare_options, options_from_arguments
from til_mtl.prepare.region_patches import missing_files, read_record, write_region
from til_mtl.prepare.regions import Region, find_regions

__all__ = ["PrepareOptions", "add_prepare_options", "options_from_arguments", "prepare_tiger"]

logger = logging.getLogger(__name__)

VERSION = 1  # of the patches' making: a higher number makes finished regions anew
# Settings that a region's patches depend on.
_PATCH_SETTINGS = (
    "patch", "step", "min_annotated", "cell_shape", "cell_size", "unannotated", "tissue_from_cells", "level", "mpp",
    "faithful",
)  # fmt: skip


def prepare_tiger(options: PrepareOptions) -> int:
    """Make patch folders of the TIGER download.

    A region that cannot be used is recorded in ``prepare-report.json`` and left behind. With a shard only the
    patches of that share of the regions are made; a run without one then fills the training folders.

    Args:
        options: All settings.

    Returns:
        Exit code: 0, or 1 when something failed.

    Raises:
        DataError: Settings that make no sense, no download at the place given, too few patients for the folds.
    """
    options.check()
    shard = Shard.parse(options.shard) if options.shard else None
    regions, faults = find_regions(options)
    folds = assign_folds(_kinds(regions, options), options.folds, options.seed, options.test_fraction)
    tasks = [_task(region, options) for region in regions]
    outcomes = run_batch("regions", tasks, shard=shard, jobs=options.jobs, again=options.again)
    if shard is None or shard.index == 0:
        outcomes += [Outcome("regions", item, "failed", message) for item, message in faults]
    if shard is not None:
        logger.info("shard %s is done; when all are, run once without --shard to fill the folders", shard)
    elif any(outcome.status == "busy" for outcome in outcomes):
        logger.warning("other jobs still make patches: run again when they are done to fill the folders")
    else:
        made = {outcome.item for outcome in outcomes if _is_made(outcome)}
        records = [_record(region, options) for region in regions if _item(region) in made]
        outcomes.append(_assemble(records, folds, options))
    return _report(outcomes, options, shard)


def _kinds(regions: Sequence[Region], options: PrepareOptions) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for region in regions:
        cells = {"segmentation", "detection"} if options.tissue_from_cells else {"detection"}
        of_region = {"segmentation"} if region.kind == "tissue-bcss" else cells
        kinds.setdefault(region.place.slide, set()).update(of_region)
    return kinds


def _is_made(outcome: Outcome) -> bool:
    return outcome.status in ("done", "skipped")


def _item(region: Region) -> str:
    return f"{region.kind}/{region.name}"


def _record(region: Region, options: PrepareOptions) -> Path:
    return options.out / "regions" / f"{_item(region)}.json"


def _task(region: Region, options: PrepareOptions) -> Task:
    record = _record(region, options)
    return Task(
        item=_item(region),
        output=record,
        inputs=partial(_inputs, region, options, record),
        work=partial(write_region, region, options, record),
    )


def _inputs(region: Region, options: PrepareOptions, record: Path) -> Mapping[str, Any]:
    """Return what the patches are made from; patches that are gone make it another thing."""
    settings = {name: getattr(options, name) for name in _PATCH_SETTINGS}
    files = {str(path): _stamp(path) for path in (region.image, region.mask)}
    boxes = None if region.boxes is None else region.boxes.tolist()
    gone = missing_files(record, options.out)
    slides = str(options.slides) if options.slides else None
    inputs = {"version": VERSION, **settings, "slides": slides, "files": files, "boxes": boxes}
    return {**inputs, "gone": gone} if gone else inputs


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _assemble(records: Sequence[Path], folds: Mapping[str, int], options: PrepareOptions) -> Outcome:
    """Fill the training folders; that is quick, and done anew every time."""

    def work() -> str:
        contents = [read_record(record) for record in records]
        return assemble(manifest_rows(contents, folds, options.fold), patch_points(contents), options)

    task = Task("training folders", options.out / MANIFEST, lambda: {"records": len(records)}, work)
    outcome = attempt("folders", task, again=True)
    logger.info("%s: %s", options.out, outcome.message)
    return outcome


def _report(outcomes: Sequence[Outcome], options: PrepareOptions, shard: Shard | None) -> int:
    name = "prepare-report" if shard is None else f"prepare-report-{shard.index + 1}-of-{shard.count}"
    path = options.out / f"{name}.json"
    code = write_batch_report(path, outcomes, shard)
    clipped = {}
    for outcome in outcomes:
        if outcome.step == "regions" and _is_made(outcome):
            record = read_record(options.out / "regions" / f"{outcome.item}.json")
            if record["clipped_boxes"]:
                clipped[outcome.item] = record["clipped_boxes"]
    if clipped:
        logger.warning("%d cell boxes in %d regions were clipped", sum(clipped.values()), len(clipped))
    write_json(
        path, {**read_json(path), "clipped_boxes": {"total": sum(clipped.values()), "regions": clipped}}
    )
    return code
