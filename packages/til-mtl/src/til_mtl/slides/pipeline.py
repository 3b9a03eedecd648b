"""Many slides: each on its own, in shards and resumed, and one table of scores for all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from medshared.batch import NotYetError, Outcome, Task, run_batch, write_batch_report
from medshared.files import read_json, sha256_file
from medshared.leases import sidecar_path
from medshared.tables import write_table
from til_mtl.errors import DataError
from til_mtl.slides.maps import SlideModel, load_model
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.slide_run import DONE, clear_results, score_slide
from til_mtl.slides.tissue_masks import find_mask

logger = logging.getLogger(__name__)

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
ModelFactory = Callable[[], SlideModel]


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
    slides = find_slides(options.slides)
    _check_overrides(options, slides)
    for file in (options.checkpoint, options.det_checkpoint):
        if file is not None and not file.is_file():
            raise DataError(f"{file}: no such checkpoint")
    model = _Once(network_factory or (lambda: load_model(options)))
    tasks = [_task(slide, options, model) for slide in slides]
    outcomes = run_batch("predict", tasks, shard=options.shard, jobs=options.jobs, again=options.again)
    if model.error is not None:  # no slide's fault
        raise model.error
    part = "" if options.shard.count == 1 else f"-{options.shard.index + 1}-of-{options.shard.count}"
    code = write_batch_report(options.out / f"predict-report{part}.json", outcomes)
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


class _Once:
    """Makes the model when it is first needed, once for all threads; its error ends the run, not a slide."""

    def __init__(self, factory: ModelFactory) -> None:
        self._factory, self._lock = factory, threading.Lock()
        self._model: SlideModel | None = None
        self.error: Exception | None = None

    def __call__(self) -> SlideModel:
        with self._lock:
            if self.error is not None:  # said once; the run is about to end
                raise NotYetError("the network cannot be loaded")
            if self._model is None:
                try:
                    self._model = self._factory()
                except Exception as error:
                    self.error = error
                    raise
            return self._model


def _task(slide: Path, options: SlideOptions, model: _Once) -> Task:
    folder = options.out / slide.stem

    def inputs() -> Mapping[str, Any]:
        mask = find_mask(options.masks, slide.stem)
        return {
            "slide": _stamp(slide),
            "mask": None if mask is None else _stamp(mask),
            "mpp_of": options.mpp_of.get(slide.stem, options.mpp_of.get(slide.name)),
            "networks": [
                _checksum(file) for file in (options.checkpoint, options.det_checkpoint) if file is not None
            ],
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


def _stamp(path: Path) -> list[float]:
    """Return size and time of a file: enough to notice another one without reading gigabytes."""
    state = path.stat()
    return [state.st_size, round(state.st_mtime, 3)]


@cache
def _checksum(path: Path) -> str:
    return sha256_file(path)


def write_tables(out: Path, slides: Sequence[Path]) -> None:
    """Write ``til_scores.csv`` and ``slides.csv`` from what all jobs have finished so far.

    Args:
        out: Folder of the results.
        slides: All slides of the run.
    """
    scores, states = [], []
    reported = _reported(out)
    for slide in slides:
        facts = _facts(out / slide.stem)
        if facts is not None:
            scores.append({name: facts["row"].get(name) for name in COLUMNS})
            status, message = "done", facts["reason"]
        else:
            status, message = reported.get(slide.stem, ("not yet", ""))
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


def _reported(out: Path) -> dict[str, tuple[str, str]]:
    """Return status and reason of slides without a result, from the reports of all jobs, the latest last."""
    found: dict[str, tuple[str, str]] = {}
    for report in sorted(out.glob("predict-report*.json"), key=lambda file: file.stat().st_mtime):
        try:
            outcomes = [Outcome(**each) for each in read_json(report)["outcomes"]]
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: cannot be read and is passed over", report)
            continue
        found |= {
            each.item: (each.status, each.message) for each in outcomes if each.status in ("failed", "empty")
        }
    return found
