"""``advmil prepare``: segment → patch → regions → features → clusters → graphs, each alone or all."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advmil.data.tables import read_cohort
from advmil.errors import DataError
from advmil.prepare.batch import Outcome, Task, run_batch, write_batch_report
from advmil.prepare.options import DEFAULT_STEPS, SLIDE_SUFFIXES, STEPS
from advmil.prepare.process_list import (
    ListedSlide,
    SlideParameters,
    load_preset,
    read_process_list,
    write_process_list,
)
from medshared.files import sha256_file
from medshared.leases import Shard

logger = logging.getLogger(__name__)

PROCESS_LIST = "process_list_autogen.csv"


@dataclass
class Preparation:
    """What to prepare and how; :func:`run` does it.

    Attributes:
        slides: Folder of slides.
        output: Receives ``tiles-l<level>-s<size>``, ``feat-…``, ``patch-…-cluster…-ids`` and ``wsigraph-…``.
        steps: Which of :data:`advmil.prepare.options.STEPS`.
        tissue: ``otsu`` or ``clam``.
        parameters: Defaults of every slide.
        process_list: CSV with parameters of single slides.
        patch_size: Edge of a patch in pixels of its level.
        step_size: Distance of patches; null = the patch size.
        patch_level: Level of the patches; of the big ones where ``regions`` is among the steps.
        slide_suffix: Only slides with this extension.
        table: Table of slides, for clusters.
        encoder: Name of the encoder.
        weights: File with its weights.
        weights_source: ``cache``, ``download`` or ``random``.
        features: :class:`advmil.prepare.features.FeatureSettings` as keyword arguments.
        transform: Name of a robustness transform.
        stain_template: Image to normalise colours to.
        seed: Of the transform.
        clusters: K of K-means.
        shard: Part of the slides.
        jobs: Threads of the steps without a network.
        again: Make finished outputs anew.
        device: Of the network.
    """

    slides: Path
    output: Path
    steps: Sequence[str] = DEFAULT_STEPS
    tissue: str = "otsu"
    parameters: SlideParameters = field(default_factory=SlideParameters)
    process_list: Path | None = None
    patch_size: int = 256
    step_size: int | None = None
    patch_level: int = 2
    slide_suffix: str | None = None
    table: Path | None = None
    encoder: str = "resnet50_trunc"
    weights: Path | None = None
    weights_source: str = "cache"
    features: Mapping[str, Any] = field(default_factory=dict)
    transform: str | None = None
    stain_template: Path | None = None
    seed: int = 42
    clusters: int = 8
    shard: Shard | None = None
    jobs: int = 1
    again: bool = False
    device: str = "auto"

    @property
    def tiles(self) -> Path:
        """Folder of the patches that were cut."""
        return self.output / f"tiles-l{self.patch_level}-s{self.patch_size}"

    @property
    def with_regions(self) -> bool:
        """Whether the features are those of the small patches that big ones cover."""
        return "regions" in self.steps or self.small_tiles.is_dir()

    @property
    def small_tiles(self) -> Path:
        """Folder of the small patches."""
        return self.output / f"tiles-l{self.patch_level - 1}-s{self.patch_size}"

    @property
    def encoded_tiles(self) -> Path:
        """Folder of the patches that features are made of."""
        return self.small_tiles if self.with_regions else self.tiles

    @property
    def level(self) -> int:
        """Level of the patches that features are made of."""
        return self.patch_level - 1 if self.with_regions else self.patch_level

    @property
    def feature_folder(self) -> Path:
        """Folder of ``pt_files`` and ``h5_files``, named as the original's for its encoder."""
        name = "RN50-B" if self.encoder == "resnet50_trunc" else self.encoder.replace("/", "_")
        parts = [f"feat-l{self.level}-{name}"]
        parts += [self.transform] if self.transform else []
        parts += ["color_norm"] if self.stain_template else []
        return self.output / "-".join(parts)


def from_arguments(arguments: argparse.Namespace) -> Preparation:
    """Return the preparation that the command line asks for."""
    parameters = load_preset(arguments.preset)
    source = "random" if arguments.random_weights else "download" if arguments.download else "cache"
    return Preparation(
        slides=arguments.slides,
        output=arguments.output,
        steps=STEPS if "all" in arguments.steps else arguments.steps,
        tissue="clam" if arguments.preset else arguments.tissue,
        parameters=parameters,
        process_list=arguments.process_list,
        patch_size=arguments.patch_size,
        step_size=arguments.step_size,
        patch_level=arguments.patch_level,
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
            "spacing_um": arguments.spacing_um,
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


def find_slides(folder: Path, suffix: str | None = None) -> list[Path]:
    """Return the slides of a folder, sorted by name.

    Raises:
        DataError: No folder or no slide in it, or two slides of the same stem.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of slides")
    suffixes = (suffix.lower(),) if suffix else SLIDE_SUFFIXES
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not found:
        raise DataError(f"{folder}: no slides here; expected files ending in {', '.join(suffixes)}")
    stems = [path.stem for path in found]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise DataError(
            f"{folder}: several slides of one name ({', '.join(doubled[:5])}); choose one by --slide-ext"
        )
    return found


def run(preparation: Preparation) -> tuple[list[Outcome], int]:
    """Run the steps, one after the other over all slides; later steps leave out what an earlier one failed on.

    Returns:
        All outcomes and the exit code: 1 when anything failed.
    """
    p = preparation
    slides = find_slides(p.slides, p.slide_suffix)
    listed = _listed(p, slides)
    outcomes: list[Outcome] = []
    runners: dict[str, Callable[[Preparation, list[Path], dict[str, SlideParameters]], list[Task]]] = {
        "segment": _segment_tasks,
        "patch": _patch_tasks,
        "regions": _region_tasks,
        "features": _feature_tasks,
        "clusters": _cluster_tasks,
        "graphs": _graph_tasks,
    }
    parameters = {slide.slide_id: slide.parameters for slide in listed}
    wanted = [path for path in slides if path.name in {s.slide_id for s in listed if s.process}]
    lost: set[str] = set()
    for step in STEPS:
        if step not in p.steps:
            continue
        tasks = runners[step](p, [path for path in wanted if path.stem not in lost], parameters)
        jobs = 1 if step == "features" else p.jobs
        done = run_batch(step, tasks, shard=p.shard, jobs=jobs, again=p.again)
        outcomes += done
        lost |= {o.item for o in done if o.status in ("failed", "empty")}
        if step in ("segment", "patch"):
            _record(p, listed, outcomes)
    name = "prepare-report" if p.shard is None else f"prepare-report-{p.shard.index + 1}-of-{p.shard.count}"
    return outcomes, write_batch_report(p.output / f"{name}.json", outcomes)


def _listed(p: Preparation, slides: Sequence[Path]) -> list[ListedSlide]:
    """Return all slides with their own parameters; a process list wins over the defaults."""
    if p.process_list is None:
        return [ListedSlide(path.name, p.parameters) for path in slides]
    listed = read_process_list(p.process_list, p.parameters)
    missing = sorted({slide.slide_id for slide in listed} - {path.name for path in slides})
    if missing:
        raise DataError(f"{p.process_list}: lists {', '.join(missing[:5])}, which {p.slides} does not hold")
    return listed


def _record(p: Preparation, listed: list[ListedSlide], outcomes: Sequence[Outcome]) -> None:
    """Write the process list from what is on disk and what has failed, so that jobs side by side agree."""
    status: dict[str, str] = {}
    stems = {Path(slide.slide_id).stem: slide.slide_id for slide in listed}
    for stem, slide_id in stems.items():
        if (p.tiles / "patches" / f"{stem}.h5").is_file() or (
            p.tiles / "contours" / f"{stem}.geojson"
        ).is_file():
            status[slide_id] = "processed"
    for outcome in outcomes:
        if outcome.status == "failed" and outcome.item in stems:
            status[stems[outcome.item]] = "failed_seg" if outcome.step == "segment" else "failed"
    write_process_list(p.tiles / PROCESS_LIST, listed, status)


def _stamp(path: Path) -> list[float]:
    """Return size and time of a slide: enough to notice another file without reading gigabytes."""
    state = path.stat()
    return [state.st_size, round(state.st_mtime, 3)]


def _segment_tasks(p: Preparation, slides: list[Path], parameters: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.patching import segment_slide

    tasks = []
    for path in slides:
        own = parameters[path.name]

        def work(path: Path = path, own: SlideParameters = own) -> str:
            return segment_slide(path, p.tiles, own, p.tissue)

        inputs = {
            "slide": _stamp(path),
            "tissue": p.tissue,
            "parameters": own.cells() if p.tissue == "clam" else {},
        }
        tasks.append(Task(path.stem, p.tiles / "contours" / f"{path.stem}.geojson", inputs, work))
    return tasks


def _patch_tasks(p: Preparation, slides: list[Path], parameters: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.patching import patch_slide

    size = {
        "patch_size": p.patch_size,
        "step_size": p.step_size or p.patch_size,
        "patch_level": p.patch_level,
    }
    tasks = []
    for path in slides:
        own = parameters[path.name]
        contours = p.tiles / "contours" / f"{path.stem}.geojson"

        def work(path: Path = path, own: SlideParameters = own) -> str:
            return patch_slide(path, p.tiles, own, **size)

        if not contours.is_file():
            logger.warning("patch: %s has no contours yet; run the step segment first", path.stem)
            continue
        inputs = size | {
            "contours": sha256_file(contours),
            "use_padding": own.use_padding,
            "contour_fn": own.contour_fn,
        }
        tasks.append(Task(path.stem, p.tiles / "patches" / f"{path.stem}.h5", inputs, work))
    return tasks


def _region_tasks(p: Preparation, slides: list[Path], _: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.big_to_small import convert_file

    tasks = []
    for path in slides:
        source = p.tiles / "patches" / f"{path.stem}.h5"
        target = p.small_tiles / "patches" / f"{path.stem}.h5"

        def work(source: Path = source, target: Path = target) -> str:
            return f"{convert_file(source, target, slide_dir=p.slides)} patches"

        if source.is_file():
            tasks.append(Task(path.stem, target, {"source": sha256_file(source), "scale": 4}, work))
    if tasks and (p.tiles / PROCESS_LIST).is_file():
        from medshared.files import write_bytes

        write_bytes(p.small_tiles / PROCESS_LIST, (p.tiles / PROCESS_LIST).read_bytes())
    return tasks


def _feature_tasks(p: Preparation, slides: list[Path], _: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.encoders import load_encoder
    from advmil.prepare.features import FeatureSettings, FeatureTimes, encode_slide
    from advmil.prepare.transforms import build_transform
    from medshared.gpu import derive_seed, select_device

    files = {path: p.encoded_tiles / "patches" / f"{path.stem}.h5" for path in slides}
    files = {path: file for path, file in files.items() if file.is_file()}
    if not files:
        logger.warning(
            "features: no coordinate files in %s; run the steps before", p.encoded_tiles / "patches"
        )
        return []
    encoder = load_encoder(p.encoder, weights=p.weights, source=p.weights_source)  # type: ignore[arg-type]
    device = select_device(p.device)
    logger.info("features: %s (%s) on %s", encoder.name, encoder.weights, device)
    tasks = []
    for path, file in files.items():

        def work(path: Path = path, file: Path = file) -> str:
            transform = build_transform(p.transform, p.stain_template, derive_seed(p.seed, path.stem) % 2**32)
            settings = FeatureSettings(**p.features, transform=transform)
            times: FeatureTimes = encode_slide(path, file, p.feature_folder, encoder, settings, device)
            return (
                f"{times.patches} patches; reading {times.waiting:.1f} s, network {times.network:.1f} s, "
                f"writing {times.writing:.1f} s"
            )

        inputs = {
            "slide": _stamp(path),
            "coordinates": sha256_file(file),
            "encoder": encoder.name,
            "weights": encoder.weights,
            "target_px": p.features.get("target_px"),
            "half": p.features.get("half", False),
            "transform": p.transform,
            "stain_template": sha256_file(p.stain_template) if p.stain_template else None,
        }
        tasks.append(Task(path.stem, p.feature_folder / "pt_files" / f"{path.stem}.pt", inputs, work))
    return tasks


def _cluster_tasks(p: Preparation, slides: list[Path], _: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.clusters import write_clusters

    if p.table is None:
        raise DataError("the step clusters needs --table, which says whose slides belong together")
    cohort = read_cohort(p.table)
    present = {path.stem for path in slides}
    folder = p.output / f"patch-l{p.level}-cluster{p.clusters}-ids"
    tasks = []
    for patient in cohort.patients.values():
        if not present.intersection(patient.slides):
            continue
        files = [p.feature_folder / "pt_files" / f"{slide}.pt" for slide in patient.slides]

        def work(files: list[Path] = files, output: Path = folder / f"{patient.id}.npy") -> str:
            missing = [path.name for path in files if not path.is_file()]
            if missing:
                raise DataError(f"{p.feature_folder}: feature files are missing: {', '.join(missing)}")
            return f"{write_clusters(files, output, p.clusters)} patches"

        inputs = {"clusters": p.clusters, "features": [_stamp(f) for f in files if f.is_file()]}
        tasks.append(Task(patient.id, folder / f"{patient.id}.npy", inputs, work))
    return tasks


def _graph_tasks(p: Preparation, slides: list[Path], _: dict[str, SlideParameters]) -> list[Task]:
    from advmil.prepare.graphs import write_graph

    tasks = []
    for path in slides:
        features = p.feature_folder / "h5_files" / f"{path.stem}.h5"
        output = p.output / f"wsigraph-l{p.level}-features" / f"{path.stem}.pt"

        def work(features: Path = features, output: Path = output) -> str:
            # Features and coordinates of one file: patches that could not be decoded are missing from both.
            return f"{write_graph(features, features, output)} patches"

        if features.is_file():
            tasks.append(Task(path.stem, output, {"features": _stamp(features), "neighbours": 8}, work))
    return tasks
