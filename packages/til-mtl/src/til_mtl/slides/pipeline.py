"""Many slides: each on its own, in shards and resumed, and one table of scores for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medshared.batch import Status, Task
from medshared.files import read_json
from medshared.tables import write_table
from til_mtl.errors import DataError
from til_mtl.slides.job_state import (
    ModelFactory,
    ModelOnce,
    file_stamp,
    find_files,
    items_done,
    network_checksums,
    reported,
    run_tasks,
    write_until_settled,
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
    slides = find_slides(options.slides, options.out)
    _check_overrides(options, slides)
    model = ModelOnce(options, network_factory)
    tasks = [_task(slide, options, model) for slide in slides]
    code = run_tasks(tasks, options, model)
    write_tables(options.out, slides, tasks)
    return code


def find_slides(path: Path, out: Path) -> list[Path]:
    """Return the slides of a folder sorted by name, or the one slide.

    Args:
        path: Folder or slide.
        out: Folder of the results, which is not searched.

    Raises:
        DataError: No slide there, or two of one name.
    """
    return find_files(path, SLIDE_SUFFIXES, "slide", out, besides="_tissue")


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


def write_tables(out: Path, slides: Sequence[Path], tasks: Sequence[Task]) -> None:
    """Write ``til_scores.csv`` and ``slides.csv`` from what all jobs have finished so far.

    Args:
        out: Folder of the results.
        slides: All slides of the run.
        tasks: The same as tasks; results of other settings do not count.
    """

    def write(state: tuple[set[str], dict[str, tuple[Status, str]]]) -> None:
        done, unfinished = state
        scores, states = [], []
        for slide in slides:
            facts = _facts(out / slide.stem) if slide.stem in done else None
            if facts is not None:
                scores.append({name: facts["row"].get(name) for name in COLUMNS})
                status, message = "done", facts["reason"]
            else:
                status, message = unfinished.get(slide.stem, ("not yet", ""))
            states.append({"image-id": slide.stem, "status": status, "message": message, "file": slide.name})
        write_table(out / "til_scores.csv", pd.DataFrame(scores, columns=list(COLUMNS)))
        write_table(out / "slides.csv", pd.DataFrame(states))

    write_until_settled(lambda: (items_done(tasks), reported(out)), write)


def _facts(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / DONE)
    except (OSError, ValueError):
        return None
