"""The steps of the preparation as tasks: one a slide, or one a patient for clusters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmil.errors import DataError
from advmil.prepare.plan import Preparation, SlideJob, stamp
from medshared.batch import EmptyResultError, NotYetError, Task
from medshared.files import sha256_file
from medshared.leases import checksum

if TYPE_CHECKING:
    import torch

    from advmil.data.tables import Cohort
    from advmil.prepare.encoders import Encoder

logger = logging.getLogger(__name__)


def segment_tasks(p: Preparation, slides: Sequence[SlideJob]) -> list[Task]:
    """Tissue of each slide as GeoJSON and picture; contours corrected by hand are kept."""
    from advmil.prepare.patching import has_contours, segment_slide

    def task(slide: SlideJob) -> Task:
        own = slide.parameters
        output = p.tiles / "contours" / f"{slide.stem}.geojson"

        def inputs() -> Mapping[str, Any]:
            cells = {k: v for k, v in own.cells().items() if k not in ("use_padding", "contour_fn")}
            spacing = [own.spacing_um, p.spacing_um]
            return {
                "slide": stamp(slide.path),
                "tissue": p.tissue,
                "parameters": cells if p.tissue == "clam" else {"spacing_um": spacing},
            }

        def work() -> str:
            return segment_slide(slide.path, p.tiles, own, p.tissue, default_spacing_um=p.spacing_um)

        return Task(slide.stem, output, inputs, work, keep_edited=lambda: has_contours(output))

    return [task(slide) for slide in slides]


def patch_tasks(p: Preparation, slides: Sequence[SlideJob]) -> list[Task]:
    """Coordinates of the patches in each slide's tissue."""
    from advmil.prepare.patching import patch_slide

    size: dict[str, Any] = {
        "patch_size": p.patch_size,
        "step_size": p.step_size or p.patch_size,
        "patch_level": p.patch_level,
    }

    def task(slide: SlideJob) -> Task:
        own = slide.parameters

        def inputs() -> Mapping[str, Any]:
            contours = p.tiles / "contours" / f"{slide.stem}.geojson"
            if not contours.is_file():
                raise DataError(f"{contours}: no such file; run the step segment first")
            chosen = {"use_padding": own.use_padding, "contour_fn": own.contour_fn}
            return size | chosen | {"slide": stamp(slide.path), "contours": checksum(contours)}

        def work() -> str:
            return patch_slide(slide.path, p.tiles, own, **size)

        return Task(slide.stem, p.tiles / "patches" / f"{slide.stem}.h5", inputs, work)

    return [task(slide) for slide in slides]


def region_tasks(p: Preparation, slides: Sequence[SlideJob]) -> list[Task]:
    """Small patches in place of each slide's big ones."""
    from advmil.prepare.big_to_small import SCALE, convert_file

    def task(slide: SlideJob) -> Task:
        source = p.tiles / "patches" / f"{slide.stem}.h5"
        target = p.small_tiles / "patches" / f"{slide.stem}.h5"

        def inputs() -> Mapping[str, Any]:
            return {"source": _checksum(source), "scale": SCALE}

        def work() -> str:
            return f"{convert_file(source, target, slide=slide.path)} patches"

        return Task(slide.stem, target, inputs, work)

    return [task(slide) for slide in slides]


def feature_tasks(
    p: Preparation, slides: Sequence[SlideJob], encoder: Encoder, device: torch.device
) -> list[Task]:
    """Features of each slide's patches."""
    from advmil.prepare.features import FeatureSettings, encode_slide
    from advmil.prepare.transforms import build_transform
    from medshared.gpu import derive_seed

    def task(slide: SlideJob) -> Task:
        file = p.encoded_tiles / "patches" / f"{slide.stem}.h5"
        settings = {
            "spacing_um": slide.parameters.spacing_um,
            "default_spacing_um": p.spacing_um,
            **p.features,
        }

        def inputs() -> Mapping[str, Any]:
            seed = {"seed": p.seed} if p.transform else {}
            template = sha256_file(p.stain_template) if p.stain_template else None
            shown = FeatureSettings(**settings).inputs() | seed
            return shown | {
                "slide": stamp(slide.path),
                "coordinates": _checksum(file),
                "encoder": encoder.name,
                "weights": encoder.weights,
                "transform": p.transform,
                "stain_template": template,
            }

        def work() -> str:
            seed = derive_seed(p.seed, slide.stem) % 2**32
            transform = build_transform(p.transform, p.stain_template, seed)
            whole = FeatureSettings(**settings, transform=transform)
            return encode_slide(slide.path, file, p.feature_folder, encoder, whole, device).summary()

        output = p.feature_folder / "pt_files" / f"{slide.stem}.pt"
        return Task(
            slide.stem, output, inputs, work, beside=(p.feature_folder / "h5_files" / f"{slide.stem}.h5",)
        )

    return [task(slide) for slide in slides]


def cluster_tasks(
    p: Preparation, slides: Sequence[SlideJob], cohort: Cohort, elsewhere: Collection[str]
) -> list[Task]:
    """Clusters of each patient who has one of the slides.

    Args:
        p: The preparation.
        slides: Slides of this job.
        cohort: Says whose slides belong together.
        elsewhere: Names of slides that other jobs do; a patient who lacks their features waits.
    """
    present = {slide.stem for slide in slides}
    folder = p.output / f"patch-l{p.level}-cluster{p.clusters}-ids"
    return [
        cluster_task(patient.id, patient.slides, p.feature_folder / "pt_files", folder, p.clusters, elsewhere)
        for patient in cohort.patients.values()
        if present.intersection(patient.slides)
    ]


def cluster_task(
    patient: str,
    slides: Sequence[str],
    features: Path,
    folder: Path,
    n_clusters: int,
    elsewhere: Collection[str] = (),
) -> Task:
    """Return the task of one patient; see :func:`advmil.prepare.clusters.write_clusters`."""
    files = [features / f"{slide}.pt" for slide in slides]
    output = folder / f"{patient}.npy"

    def inputs() -> Mapping[str, Any]:
        missing = [slide for slide, file in zip(slides, files, strict=True) if not file.is_file()]
        if missing and set(missing) <= set(elsewhere):
            raise NotYetError(
                f"other jobs have still to make the features of {', '.join(missing)}; run this step again then"
            )
        if missing:
            raise DataError(
                f"{features}: no feature files of {', '.join(missing)}, which the table gives to patient {patient}"
            )
        return {"clusters": n_clusters, "features": {file.name: stamp(file) for file in files}}

    def work() -> str:
        from advmil.prepare.clusters import write_clusters

        return f"{write_clusters(files, output, n_clusters)} patches"

    return Task(patient, output, inputs, work)


def graph_tasks(p: Preparation, slides: Sequence[SlideJob]) -> list[Task]:
    """Graph of each slide, from features and coordinates of one file: undecodable patches lack in both."""
    folder = p.output / f"wsigraph-l{p.level}-features"
    h5_files = [p.feature_folder / "h5_files" / f"{slide.stem}.h5" for slide in slides]
    return [graph_task(file.stem, file, file, folder) for file in h5_files]


def graph_task(slide: str, features: Path, coordinates: Path, folder: Path) -> Task:
    """Return the task of one slide; see :func:`advmil.prepare.graphs.write_graph`."""
    output = folder / f"{slide}.pt"

    def inputs() -> Mapping[str, Any]:
        from advmil.prepare.graphs import NEIGHBOURS

        for file in (features, coordinates):
            if not file.is_file():
                raise DataError(f"{file}: no such file; run the features step first")
        found = {"features": stamp(features), "neighbours": NEIGHBOURS}
        return found if features == coordinates else found | {"coordinates": stamp(coordinates)}

    def work() -> str:
        from advmil.prepare.graphs import write_graph

        return f"{write_graph(features, coordinates, output)} patches"

    return Task(slide, output, inputs, work)


def _checksum(coordinates: Path) -> str:
    if not coordinates.is_file():
        raise EmptyResultError(f"{coordinates}: no such file: the slide is blank or was not patched yet")
    return checksum(coordinates)


StepTasks = Callable[[Sequence[SlideJob]], list[Task]]
