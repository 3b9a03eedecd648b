"""``advmil prepare``: segment → patch → regions → features → clusters → graphs, each alone or all."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from advmil.data.tables import read_cohort
from advmil.errors import DataError
from advmil.prepare.options import STEPS
from advmil.prepare.plan import PROCESS_LIST, Preparation, SlideJob, find_slides, refuse_doubles
from advmil.prepare.process_list import (
    ListedSlide,
    load_preset,
    read_process_list,
    read_status,
    write_process_list,
)
from advmil.prepare.steps import (
    StepTasks,
    cluster_tasks,
    feature_tasks,
    graph_tasks,
    patch_tasks,
    region_tasks,
    segment_tasks,
)
from medshared.batch import Outcome, run_batch, write_batch_report
from medshared.files import write_bytes
from medshared.leases import Shard

__all__ = ["Preparation", "find_slides", "from_arguments", "run", "run_prepare"]

logger = logging.getLogger(__name__)


def from_arguments(arguments: argparse.Namespace) -> Preparation:
    """Return the preparation that the command line asks for."""
    source = "random" if arguments.random_weights else "download" if arguments.download else "cache"
    clam = arguments.preset is not None or arguments.process_list is not None
    return Preparation(
        slides=arguments.slides,
        output=arguments.output,
        steps=STEPS if "all" in arguments.steps else arguments.steps,
        tissue=arguments.tissue or ("clam" if clam else "otsu"),
        parameters=load_preset(arguments.preset),
        process_list=arguments.process_list,
        patch_size=arguments.patch_size,
        step_size=arguments.step_size,
        patch_level=arguments.patch_level,
        spacing_um=arguments.spacing_um,
        slide_suffix=arguments.slide_ext,
        table=arguments.table,
        encoder=arguments.encoder,
        weights=arguments.weights,
        weights_source=source,
        features={
            "batch_size": arguments.batch_size,
            "target_px": arguments.target_patch_size,
            "half": arguments.half,
            "max_fault_share": arguments.max_fault_share,
            "precision": arguments.precision,
        },
        transform=arguments.transform,
        stain_template=arguments.stain_template,
        seed=arguments.seed,
        clusters=arguments.clusters,
        shard=Shard.parse(arguments.shard) if arguments.shard else None,
        jobs=arguments.jobs,
        again=arguments.again,
        device=arguments.device,
    )


def run_prepare(arguments: argparse.Namespace) -> int:
    """Run ``advmil prepare`` and return its exit code."""
    return run(from_arguments(arguments))[1]


def run(preparation: Preparation) -> tuple[list[Outcome], int]:
    """Run the steps, one after the other over all slides; later steps leave out what an earlier one failed on.

    A slide that another job holds is left to that job from there on. Settings, table and encoder are looked at
    before the first slide, so that a mistake does not show after hours of segmentation.

    Returns:
        All outcomes and the exit code: 1 when anything failed.

    Raises:
        DataError: Settings, table or process list cannot be used.
    """
    p = preparation
    p.check()
    listed = _listed(p)
    wanted = [slide for slide in listed if slide.process]
    refuse_doubles([p.slides / slide.slide_id for slide in wanted])
    mine = (p.shard or Shard(0, 1)).select(wanted)
    names = {Path(slide.slide_id).stem for slide in mine}
    elsewhere = {Path(slide.slide_id).stem for slide in wanted} - names
    slides = [SlideJob(p.slides / slide.slide_id, slide.parameters) for slide in mine]
    outcomes: list[Outcome] = []
    for step, tasks in _step_tasks(p, elsewhere).items():
        done = run_batch(step, tasks(slides), jobs=1 if step == "features" else p.jobs, again=p.again)
        outcomes += done
        if step in ("clusters", "graphs"):
            continue  # nothing comes after them that needs them
        elsewhere |= {o.item for o in done if o.status == "busy"}
        gone = {o.item for o in done if o.status in ("failed", "empty", "busy")}
        slides = [slide for slide in slides if slide.stem not in gone]
        if step in ("segment", "patch", "regions"):
            _record(p, listed, outcomes, names)
    name = "prepare-report" if p.shard is None else f"prepare-report-{p.shard.index + 1}-of-{p.shard.count}"
    return outcomes, write_batch_report(p.output / f"{name}.json", outcomes, p.shard)


def _step_tasks(p: Preparation, elsewhere: set[str]) -> Mapping[str, StepTasks]:
    """Return what makes the tasks of each step that was asked for, in order."""
    steps: dict[str, StepTasks] = {}
    for step in STEPS:
        if step not in p.steps:
            continue
        if step == "features":
            steps[step] = _with_encoder(p)
        elif step == "clusters" and p.table is not None:
            steps[step] = partial(cluster_tasks, p, cohort=read_cohort(p.table), elsewhere=elsewhere)
        else:
            simple = {"segment": segment_tasks, "patch": patch_tasks, "regions": region_tasks}
            steps[step] = partial(simple.get(step, graph_tasks), p)
    return steps


def _with_encoder(p: Preparation) -> StepTasks:
    from advmil.prepare.encoders import load_encoder
    from advmil.prepare.transforms import build_transform
    from medshared.gpu import select_device

    build_transform(p.transform, p.stain_template, p.seed)  # says now what is wrong with it
    encoder = load_encoder(p.encoder, weights=p.weights, source=p.weights_source)  # type: ignore[arg-type]
    device = select_device(p.device)
    logger.info("features: %s (%s) on %s", encoder.name, encoder.weights, device)
    return partial(feature_tasks, p, encoder=encoder, device=device)


def _listed(p: Preparation) -> list[ListedSlide]:
    """Return all slides with their own parameters; a process list wins over the defaults and the folder.

    A slide that the list names and the folder lacks is kept: it fails by itself and stops nothing.
    """
    if p.process_list is None:
        return [ListedSlide(path.name, p.parameters) for path in find_slides(p.slides, p.slide_suffix)]
    listed = read_process_list(p.process_list, p.parameters)
    if not any(slide.process for slide in listed):
        raise DataError(f"{p.process_list}: no slide to do: 'process' is 0 in every row")
    changed = [s.slide_id for s in listed if s.parameters.segmentation != p.parameters.segmentation]
    if p.tissue == "otsu" and changed:
        logger.warning(
            "%s: parameters of the tissue (%s, …) have no effect with --tissue otsu",
            p.process_list,
            changed[0],
        )
    return listed


def _record(p: Preparation, listed: list[ListedSlide], outcomes: Sequence[Outcome], mine: set[str]) -> None:
    """Write the process list from what is on disk and what has failed, so that jobs side by side agree."""
    path = p.tiles / PROCESS_LIST
    status = {slide: word for slide, word in read_status(path).items() if Path(slide).stem not in mine}
    stems = {Path(slide.slide_id).stem: slide.slide_id for slide in listed}
    for stem, slide_id in stems.items():
        if (p.tiles / "contours" / f"{stem}.geojson").is_file():
            status[slide_id] = "processed"
    for outcome in outcomes:
        if outcome.status == "failed" and outcome.item in stems:
            status[stems[outcome.item]] = "failed_seg" if outcome.step == "segment" else "failed"
    write_process_list(path, listed, status, with_tissue=p.tissue == "clam")
    if "regions" in p.steps and any(outcome.step == "regions" for outcome in outcomes):
        write_bytes(p.small_tiles / PROCESS_LIST, path.read_bytes())
