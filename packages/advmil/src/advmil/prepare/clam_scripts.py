"""CLAM's two scripts under their names and flags: patches and features in CLAM's own layout."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advmil.cli import add_device
from advmil.errors import DataError
from advmil.prepare.plan import PROCESS_LIST, find_slides, refuse_doubles, stamp
from advmil.prepare.process_list import (
    ListedSlide,
    SlideParameters,
    load_preset,
    read_process_list,
    write_process_list,
)
from medshared.batch import EmptyResultError, Outcome, Task, attempt, write_batch_report
from medshared.command_line import guarded
from medshared.leases import checksum
from medshared.process import progress

logger = logging.getLogger(__name__)

MODELS = ("resnet50_trunc", "uni_v1", "conch_v1")
# CLAM's words for what became of a slide.
STATUS = {"done": "processed", "empty": "processed", "skipped": "already_exist", "failed": "failed"}


def create_patches_fp(argv: Sequence[str] | None = None) -> int:
    """Run ``create_patches_fp.py``."""
    parser = argparse.ArgumentParser(description="Tissue and patches of the slides of a folder, as CLAM's.")
    parser.add_argument("--source", type=Path, required=True, help="folder of slides")
    parser.add_argument(
        "--save_dir", type=Path, required=True, help="receives patches, masks, stitches and the list"
    )
    parser.add_argument("--patch_size", type=int, default=256, help="pixels at the level")
    parser.add_argument("--step_size", type=int, default=256, help="pixels at the level")
    parser.add_argument("--patch_level", type=int, default=0, help="pyramid level; AdvMIL cuts at 2")
    parser.add_argument("--seg", action="store_true", help="find tissue")
    parser.add_argument("--patch", action="store_true", help="cut patches")
    parser.add_argument("--stitch", action="store_true", help="draw the patches")
    parser.add_argument(
        "--no_auto_skip", action="store_true", help="do slides again whose patches/<slide>.h5 exists"
    )
    parser.add_argument("--preset", help="name of a preset, or a CSV file in CLAM's form")
    parser.add_argument(
        "--process_list",
        type=Path,
        help="CSV in --save_dir with slide_id and, where wanted, a slide's own parameters (spacing_um among them)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return guarded(_create_patches, parser.parse_args(argv))


def extract_features_fp(argv: Sequence[str] | None = None) -> int:
    """Run ``extract_features_fp.py``."""
    parser = argparse.ArgumentParser(description="Features of the patches of each listed slide, as CLAM's.")
    parser.add_argument("--data_h5_dir", type=Path, required=True, help="whose patches/ holds <slide>.h5")
    parser.add_argument("--data_slide_dir", type=Path, required=True, help="folder of slides")
    parser.add_argument("--slide_ext", default=".svs")
    parser.add_argument("--csv_path", type=Path, required=True, help="list of slides with a column slide_id")
    parser.add_argument("--feat_dir", type=Path, required=True, help="receives h5_files and pt_files")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument(
        "--no_auto_skip", action="store_true", help="do slides again whose pt_files/<slide>.pt exists"
    )
    parser.add_argument(
        "--target_patch_size",
        type=int,
        default=-1,
        help="resize patches to this many pixels; -1 keeps them, as AdvMIL's features were made (CLAM since April "
        "2024: 224)",
    )
    parser.add_argument(
        "--custom_downsample", type=int, default=1, help="older form: divide the edge by this"
    )
    parser.add_argument(
        "--model_name",
        default="resnet50_trunc",
        metavar=f"{{{','.join(MODELS)}}}",
        help="or the name of any timm model",
    )
    parser.add_argument("--weights", type=Path, help="file with the encoder's weights")
    parser.add_argument("--download", action="store_true", help="allow fetching the weights")
    parser.add_argument("--random_weights", action="store_true", help="untrained weights, for a dry run")
    parser.add_argument("--max_fault_share", type=float, default=0.05, help="of undecodable patches")
    add_device(parser)
    return guarded(_extract_features, parser.parse_args(argv))


def _create_patches(arguments: argparse.Namespace) -> int:
    if not (arguments.seg or arguments.patch or arguments.stitch):
        raise DataError("nothing to do: give --seg, --patch and --stitch, or some of them")
    listed = _listed_slides(arguments)
    refuse_doubles([arguments.source / slide.slide_id for slide in listed if slide.process])
    arguments.save_dir.mkdir(parents=True, exist_ok=True)
    target = arguments.save_dir / PROCESS_LIST
    status: dict[str, str] = {}
    outcomes: list[Outcome] = []
    wanted = [slide for slide in listed if slide.process]
    for slide in progress(wanted, total=len(wanted), description="patches"):
        write_process_list(target, listed, status)  # before every slide, so that a stop leaves a true list
        stage: list[str] = []
        task = _patch_task(arguments, slide, stage)
        outcome = attempt("patches", task, again=arguments.no_auto_skip, accept_existing=True)
        outcomes.append(outcome)
        if outcome.status in STATUS:
            status[slide.slide_id] = STATUS[outcome.status]
        if outcome.status == "failed" and "patch" not in stage:
            status[slide.slide_id] = "failed_seg"
    write_process_list(target, listed, status)
    return write_batch_report(arguments.save_dir / "patches-report.json", outcomes)


def _listed_slides(arguments: argparse.Namespace) -> list[ListedSlide]:
    defaults = load_preset(arguments.preset, Path("presets"))
    if arguments.process_list is None:
        return [ListedSlide(path.name, defaults) for path in find_slides(arguments.source)]
    inside = arguments.save_dir / arguments.process_list
    return read_process_list(inside if inside.is_file() else arguments.process_list, defaults)


def _patch_task(arguments: argparse.Namespace, slide: ListedSlide, stage: list[str]) -> Task:
    """Return the task of one slide; ``stage`` tells afterwards how far it came."""
    path: Path = arguments.source / slide.slide_id
    folder: Path = arguments.save_dir
    size = {
        "patch_size": arguments.patch_size,
        "step_size": arguments.step_size,
        "patch_level": arguments.patch_level,
    }
    output = folder / "patches" / f"{path.stem}.h5"
    if not arguments.patch:
        kind = ("contours", "geojson") if arguments.seg else ("stitches", "jpg")
        output = folder / kind[0] / f"{path.stem}.{kind[1]}"

    def inputs() -> Mapping[str, Any]:
        return {"slide": stamp(path), "seg": arguments.seg, "parameters": slide.parameters.cells(), **size}

    def work() -> str:
        from advmil.prepare.patching import patch_slide, segment_slide, stitch_slide

        said = []
        if arguments.seg:
            said.append(segment_slide(path, folder, slide.parameters, "clam"))
        stage.append("patch")
        if arguments.patch:
            said.append(patch_slide(path, folder, slide.parameters, **size, pictures=arguments.stitch))
        elif arguments.stitch:
            said.append(stitch_slide(path, folder, slide.parameters))
        return ", ".join(said)

    return Task(path.stem, output, inputs, work)


def _extract_features(arguments: argparse.Namespace) -> int:
    from advmil.prepare.encoders import load_encoder
    from advmil.prepare.features import FeatureSettings
    from medshared.gpu import select_device

    listed = read_process_list(arguments.csv_path, SlideParameters())
    source = "random" if arguments.random_weights else "download" if arguments.download else "cache"
    settings = FeatureSettings(
        batch_size=arguments.batch_size,
        target_px=arguments.target_patch_size if arguments.target_patch_size > 0 else None,
        custom_downsample=arguments.custom_downsample,
        max_fault_share=arguments.max_fault_share,
    )
    encoder = load_encoder(arguments.model_name, weights=arguments.weights, source=source)
    device = select_device(arguments.device)
    logger.info("features: %s (%s) on %s", encoder.name, encoder.weights, device)
    outcomes = []
    for slide in progress(listed, total=len(listed), description="features"):
        task = _feature_task(arguments, slide, encoder, settings, device)
        outcomes.append(attempt("features", task, again=arguments.no_auto_skip, accept_existing=True))
    return write_batch_report(arguments.feat_dir / "features-report.json", outcomes)


def _feature_task(
    arguments: argparse.Namespace, slide: ListedSlide, encoder: Any, settings: Any, device: Any
) -> Task:
    from dataclasses import replace

    own = replace(settings, spacing_um=slide.parameters.spacing_um)
    stem = slide.slide_id.split(arguments.slide_ext)[0] if arguments.slide_ext else slide.slide_id
    path: Path = arguments.data_slide_dir / f"{stem}{arguments.slide_ext}"
    listed: Path = arguments.data_slide_dir / slide.slide_id
    if not path.is_file() and listed.is_file():  # slides of several formats in one list
        path, stem = listed, listed.stem
    coordinates: Path = arguments.data_h5_dir / "patches" / f"{stem}.h5"

    def inputs() -> Mapping[str, Any]:
        if not coordinates.is_file():
            raise EmptyResultError(f"{coordinates}: no such file, so the slide is skipped: it has no patches")
        return own.inputs() | {
            "slide": stamp(path),
            "coordinates": checksum(coordinates),
            "encoder": encoder.name,
            "weights": encoder.weights,
        }

    def work() -> str:
        from advmil.prepare.features import encode_slide

        return encode_slide(path, coordinates, arguments.feat_dir, encoder, own, device).summary()

    return Task(stem, arguments.feat_dir / "pt_files" / f"{stem}.pt", inputs, work)
