"""One slide from start to end: read, predict, write the map, find the cells, score."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medshared.batch import EmptyResultError
from medshared.files import write_json
from medshared.leases import sidecar_path
from til_mtl.errors import DataError
from til_mtl.peaks import Candidates
from til_mtl.slides import outputs
from til_mtl.slides.feed import MAPS, ProbabilitySpool, StripFeed
from til_mtl.slides.maps import SlideModel
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.overlay import write_overlay
from til_mtl.slides.page import write_slide_page
from til_mtl.slides.strips import Clock, StripReader
from til_mtl.slides.tallies import Tallies
from til_mtl.slides.tiling import TilePlan, TissueRows, plan_tiles
from til_mtl.slides.tissue_masks import has_tissue, tissue_of
from til_mtl.til_score import OTHER, STROMA, TUMOR, TilScore, til_score

if TYPE_CHECKING:
    from medshared.slides import FaultList, Slide

logger = logging.getLogger(__name__)

DONE = "slide.json"  # written last; its checksum file proves that a slide is complete
RESULTS = (
    DONE,
    "til-score.json",
    "segmentation.tif",
    "detected-lymphocytes.json",
    "cells.geojson",
    "tissue.geojson",
    "overlay.png",
    "report.html",
    "faults.csv",
    *MAPS,
)


@dataclass
class SlideMaps:
    """What passing over a slide leaves.

    Attributes:
        plan: Its tiles.
        tallies: Areas and the coarse map.
        cells: All cells, the most probable first; their value is the tissue they lie on.
        n_tiles: Tiles with tissue.
    """

    plan: TilePlan
    tallies: Tallies
    cells: Candidates
    n_tiles: int


def score_slide(
    path: Path, mask: Path | None, folder: Path, options: SlideOptions, model: SlideModel
) -> dict[str, Any]:
    """Make all results of one slide.

    Args:
        path: The slide.
        mask: Its tissue mask, if there is one.
        folder: Of its results.
        options: The settings.
        model: What looks at tiles.

    Returns:
        The facts, as ``slide.json`` has them: ``row`` (of ``til_scores.csv``), ``reason`` (why there is no score, or
        what else a reader should know), ``n_tiles``, ``n_faulty_tiles``, ``seconds_in``, ….

    Raises:
        EmptyResultError: The slide has no tissue.
        DataError: Slide or mask cannot be used as they are.
        medshared.slides.SlideError: The slide cannot be read.
    """
    from medshared.slides import FaultList

    started = time.perf_counter()
    clock = Clock()
    faults = FaultList(path)
    with open_with_spacing(path, options) as slide:
        maps = map_slide(slide, mask, folder, options, model, faults, clock)
        write_beside(folder, slide, maps, faults)
        level0_mpp = slide.require_spacing()
    clock.total = time.perf_counter() - started
    facts = slide_facts(path, maps, options, faults, clock, level0_mpp)
    outputs.write_score(folder / "til-score.json", _number(facts["row"]["tils-score"]))
    settings = {**options.result_settings(), "checkpoint": options.checkpoint, "masks": options.masks}
    write_slide_page(folder / "report.html", facts, settings, folder / "overlay.png", faults)
    write_json(folder / DONE, facts)
    return facts


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def open_with_spacing(path: Path, options: SlideOptions) -> Slide:
    """Open a slide whose µm per pixel are known.

    Raises:
        DataError: They are not; the message names the flag.
    """
    from medshared.slides import open_slide

    given = options.mpp_of.get(path.stem, options.mpp_of.get(path.name))
    slide = open_slide(path, given)
    if slide.spacing_um is None:
        slide.close()
        raise DataError(
            f"{path}: the slide does not say how many µm a pixel has; give it as --mpp-of {path.stem}=VALUE "
            "(0.25 for most 40x scans, 0.5 for 20x)"
        )
    return slide


def map_slide(
    slide: Slide,
    mask: Path | None,
    folder: Path,
    options: SlideOptions,
    model: SlideModel,
    faults: FaultList,
    clock: Clock,
) -> SlideMaps:
    """Write ``segmentation.tif`` and find the cells, strip by strip."""
    from medshared.slides import FaultList, write_label_pyramid

    tissue = tissue_of(slide, mask, FaultList(slide.path))
    if not has_tissue(tissue):
        how = (
            f"its mask {mask} is empty" if mask is not None else "no tissue was found by colour; give --masks"
        )
        raise EmptyResultError(f"{slide.path}: {how}; the slide has no score")
    plan = plan_tiles(slide, options.mpp, options.patch, options.margin)
    reader = StripReader(
        slide,
        plan,
        TissueRows(tissue, plan),
        model,
        faults,
        batch=options.batch,
        max_fault_share=options.max_fault_share,
        threads=options.threads,
        keep_probabilities=options.save_maps,
        clock=clock,
    )
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with ProbabilitySpool(folder, plan.size[0]) if options.save_maps else nullcontext() as spool:
        feed = StripFeed(reader, options, spool)
        write_label_pyramid(folder / "segmentation.tif", feed.rows, plan.mpp, size_px=plan.size)
        if spool is not None:
            spool.write(folder, plan.size, plan.mpp)
    passed = time.perf_counter() - started
    clock.writing += passed - clock.waiting - clock.peaks
    return SlideMaps(plan, feed.tallies, feed.cells(), reader.n_tiles)


def write_beside(folder: Path, slide: Slide, maps: SlideMaps, faults: FaultList) -> None:
    """Write detections, what QuPath opens, and the picture."""
    step = maps.plan.level0_px
    outputs.write_detections(folder / "detected-lymphocytes.json", maps.cells, maps.plan.mpp)
    outputs.write_cells_geojson(folder / "cells.geojson", maps.cells, step)
    outputs.write_tissue_geojson(folder / "tissue.geojson", maps.tallies, step)
    write_overlay(folder / "overlay.png", slide, maps.tallies, maps.cells, step)
    if len(faults):
        faults.write(folder / "faults.csv")


def slide_facts(
    path: Path, maps: SlideMaps, options: SlideOptions, faults: FaultList, clock: Clock, level0_mpp: float
) -> dict[str, Any]:
    """Return the row of the table, and what stands behind it."""
    score, reason = _score(path.stem, maps, options)
    mm2 = maps.plan.mpp**2 / 1e6
    tallies = maps.tallies
    areas = {value: tallies.pixels(value) * mm2 for value in (TUMOR, STROMA, OTHER)}
    row = {
        "image-id": path.stem,
        "tils-score": score.score,
        "tils-score-raw": score.raw,
        "n_lymphocytes": len(maps.cells.x),
        "n_lymphocytes_stroma": score.n,
        "density_per_mm2": score.density_per_mm2,
        "stroma_area_mm2": score.stroma_area_mm2,
        "tumor_area_mm2": areas[TUMOR],
        "tissue_area_mm2": sum(areas.values()),
        "mpp": maps.plan.mpp,
        "seconds": clock.total,
    }
    if len(faults):
        reason += f"{' ' if reason else ''}{len(faults)} of {maps.n_tiles} tiles cannot be decoded and are left out."
    plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
    return {
        "row": plain,
        "reason": reason,
        "file": path.name,
        "n_tiles": maps.n_tiles,
        "n_faulty_tiles": len(faults),
        "level0_px": maps.plan.level0_px,
        "mpp_level0": level0_mpp,
        "size_px": list(maps.plan.size),
        "seconds_in": asdict(clock),
        "settings": options.result_settings(),
    }


def _score(name: str, maps: SlideMaps, options: SlideOptions) -> tuple[TilScore, str]:
    """Count what the score is made of; the reason says why there is none, or what was done differently."""
    on_stroma = maps.cells.value == STROMA
    stroma_px, reason = maps.tallies.pixels(STROMA), ""
    if options.counted_region == "bulk":
        bulk = maps.tallies.bulk(maps.plan.mpp)
        if bulk is None:
            reason = "No tumour bulk of at least 1.5 mm², as in a biopsy: all stroma counts."
        else:
            on_stroma &= maps.tallies.within(maps.cells, bulk.mask)
            stroma_px = bulk.stroma_px
    score = til_score(
        int(on_stroma.sum()), stroma_px, maps.plan.mpp, cell_um=options.cell_um, variant=options.score
    )
    if stroma_px == 0:
        reason = "No stroma was found: the slide has no TIL score."
        logger.warning("%s: no stroma was found: no TIL score, and left out of statistics", name)
    return score, reason


def clear_results(folder: Path) -> None:
    """Remove what an earlier run left of a slide, so that nothing of it is taken for this run's.

    That includes files that a killed job had begun.
    """
    for name in RESULTS:
        begun = folder.glob(f".{name}.*.tmp")
        for file in (folder / name, sidecar_path(folder / name), *begun):
            file.unlink(missing_ok=True)
