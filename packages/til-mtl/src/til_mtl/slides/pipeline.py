"""Many slides: each on its own, in shards and resumed, and one table of scores for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medshared.batch import Task, run_batch, write_batch_report
from medshared.files import read_json
from medshared.leases import sidecar_path
from medshared.tables import write_table
from til_mtl.errors import DataError
from til_mtl.slides.job_state import (
    ModelFactory,
    ModelOnce,
    file_stamp,
    network_checksums,
    report_path,
    reported,
)
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.slide_run import DONE, clear_results, score_slide
from til_mtl.slides.tissue_masks import find_mask

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
COLUMNS = (
    "image-id",
    "tils-score",
    "tils-score-raw",
    "n_lymphocytes",
    "n_lymphocytes_stroma",
    "density_per_mm2",
    "stroma_area_mm2",
    "tumor_area_mm2",
    "tissue_area_mm2",
    "mpp",
    "seconds",
)


def run_slides(options: SlideOptions, network_factory: ModelFactory | None = None) -> int:
    """Score slides.

    Every slide gets a folder of its own; a slide that fails or has no tissue gets no score, and its reason stands in
    ``slides.csv`` and ``predict-report.json``. What is complete, as checksums show, and was made with the same
    settings is not made again. Several jobs may work on one folder, with or without shards.

    Args:
        options: The settings.
        network_factory: Makes the model when the first slide needs it; by default the checkpoints are loaded.

    Returns:
        Exit code: 1 when a slide failed.

    Raises:
        DataError: No slides, or settings that fit none of them.
        CheckpointError: Checkpoints that cannot be used.
    """
    if options.slides is None:
        raise DataError("give --slides, a folder of slides")
    slides = find_slides(options.slides)
    _check_overrides(options, slides)
    model = ModelOnce(options, network_factory)
    tasks = [_task(slide, options, model) for slide in slides]
    outcomes = run_batch("predict", tasks, shard=options.shard, jobs=options.jobs, again=options.again)
    if model.error is not None:  # no slide's fault
        raise model.error
    code = write_batch_report(report_path(options), outcomes)
    write_tables(options.out, slides)
    return code


def find_slides(path: Path) -> list[Path]:
    """Return the slides of a folder sorted by name, or the one slide.

    Raises:
        DataError: No slide there, or two of one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such slide or folder of slides")
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in SLIDE_SUFFIXES and not file.name.startswith(".")
    )
    if not found:
        raise DataError(f"{path}: no slides here; expected files ending in {', '.join(SLIDE_SUFFIXES)}")
    stems = [file.stem for file in found]
    # Masks may lie beside the slides.
    masks = {f"{stem}_tissue" for stem in stems}
    found = [file for file in found if file.stem not in masks]
    stems = [file.stem for file in found]
    doubled = [file.name for file in found if stems.count(file.stem) > 1]
    if doubled:
        raise DataError(
            f"{path}: several slides of one name ({', '.join(doubled[:6])}); their results would collide"
        )
    return found


def _check_overrides(options: SlideOptions, slides: Sequence[Path]) -> None:
    names = {name for slide in slides for name in (slide.stem, slide.name)}
    unknown = [name for name in options.mpp_of if name not in names]
    if unknown:
        raise DataError(f"--mpp-of {unknown[0]}=…: no slide of this name in {options.slides}")


def _task(slide: Path, options: SlideOptions, model: ModelOnce) -> Task:
    folder = options.out / slide.stem

    def inputs() -> Mapping[str, Any]:
        mask = find_mask(options.masks, slide.stem)
        return {
            "slide": file_stamp(slide),
            "mask": None if mask is None else file_stamp(mask),
            "mpp_of": options.mpp_of.get(slide.stem, options.mpp_of.get(slide.name)),
            "networks": network_checksums(options),
            **options.result_settings(),
        }

    def work() -> str:
        loaded = model()
        # From here on an earlier result does not count, whatever becomes of this one.
        clear_results(folder)
        facts = score_slide(slide, find_mask(options.masks, slide.stem), folder, options, loaded)
        row = facts["row"]
        score = "no score" if row["tils-score"] is None else f"score {row['tils-score']:.1f}"
        return f"{score}, {row['n_lymphocytes']} lymphocytes. {facts['reason']}".strip()

    beside = tuple(
        folder / name for name in ("segmentation.tif", "detected-lymphocytes.json", "til-score.json")
    )
    return Task(slide.stem, folder / DONE, inputs, work, beside=beside)


def write_tables(out: Path, slides: Sequence[Path]) -> None:
    """Write ``til_scores.csv`` and ``slides.csv`` from what all jobs have finished so far.

    Args:
        out: Folder of the results.
        slides: All slides of the run.
    """
    scores, states = [], []
    unfinished = reported(out)
    for slide in slides:
        facts = _facts(out / slide.stem)
        if facts is not None:
            scores.append({name: facts["row"].get(name) for name in COLUMNS})
            status, message = "done", facts["reason"]
        else:
            status, message = unfinished.get(slide.stem, ("not yet", ""))
        states.append({"image-id": slide.stem, "status": status, "message": message, "file": slide.name})
    write_table(out / "til_scores.csv", pd.DataFrame(scores, columns=list(COLUMNS)))
    write_table(out / "slides.csv", pd.DataFrame(states))


def _facts(folder: Path) -> dict[str, Any] | None:
    if not sidecar_path(folder / DONE).is_file():
        return None
    try:
        return read_json(folder / DONE)
    except (OSError, ValueError):
        return None
