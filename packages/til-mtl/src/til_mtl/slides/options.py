"""The settings of a run over slides, and their flags."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medshared.leases import Shard
from til_mtl.errors import DataError
from til_mtl.til_score import CELL_UM, SCORE_NAMES, ScoreName

NMS_PX, FAITHFUL_NMS_PX = 12.0, 18.0


@dataclass(frozen=True)
class SlideOptions:
    """How slides are turned into scores, or pictures of regions into maps and cells.

    Attributes:
        out: Folder of the results: one folder a slide, or two files a region, and tables for all.
        slides: Folder of slides, or one slide.
        regions: Folder of pictures of regions, or one picture, in place of slides.
        checkpoint: Multi-task network, or tissue network.
        det_checkpoint: Cell network, beside a tissue network.
        masks: Folder of ``<id>_tissue.tif``; ``None`` finds tissue by colour.
        mpp: µm per pixel at which the network looks at slides; that of the pictures of regions.
        patch: Edge of a tile in pixels.
        margin: Pixels of a tile left out on either side.
        batch: Tiles that the network gets at a time.
        conf: Least probability of a cell.
        nms: Suppression distance in pixels.
        cell_um: Edge in µm of the square that a cell counts for.
        region: Stroma anywhere, or within the tumour bulk; ``None``: bulk for scores whose authors use it.
        score: Formula of the score, see `til_mtl.til_score`.
        device: Of the networks.
        precision: Of the networks.
        normalize: Of the input; ``None`` takes that of the checkpoint.
        save_maps: Write probability maps as well.
        shard: The part of the slides that this job does.
        jobs: Slides worked on side by side.
        threads: That read the tiles of a slide; ``None``: the CPUs, at most 4.
        mpp_of: µm per pixel of level 0 of single slides, in place of what they say.
        max_fault_share: Largest share of a slide's tiles that cannot be decoded.
        again: Make anew what is complete.
    """

    out: Path
    slides: Path | None = None
    regions: Path | None = None
    checkpoint: Path | None = None
    det_checkpoint: Path | None = None
    masks: Path | None = None
    mpp: float = 0.5
    patch: int = 256
    margin: int = 32
    batch: int = 32
    conf: float = 0.1
    nms: float = NMS_PX
    cell_um: float = CELL_UM
    region: Literal["stroma", "bulk"] | None = None
    score: ScoreName = "default"
    device: str = "auto"
    precision: str = "auto"
    normalize: Literal["none", "lunit", "imagenet"] | None = None
    save_maps: bool = False
    shard: Shard = field(default_factory=Shard)
    jobs: int = 1
    threads: int | None = None
    mpp_of: Mapping[str, float] = field(default_factory=dict)
    max_fault_share: float = 0.1
    again: bool = False

    def __post_init__(self) -> None:
        if (self.slides is None) == (self.regions is None):
            raise DataError("give either --slides or --regions")
        if self.regions is not None:
            of_slides = {"masks": self.masks, "mpp-of": self.mpp_of, "save-maps": self.save_maps}
            for name in (name for name, value in of_slides.items() if value):
                raise DataError(f"--{name} goes with --slides, not with --regions")
        positive = {"mpp": self.mpp, "cell-um": self.cell_um, "batch": self.batch, "jobs": self.jobs}
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"--{name} must be positive, found {value:g}")
        for name, value in {"conf": self.conf, "max-fault-share": self.max_fault_share}.items():
            if not 0 <= value <= 1:
                raise DataError(f"--{name} must lie between 0 and 1, found {value:g}")
        if not (math.isfinite(self.nms) and self.nms >= 0):
            raise DataError(f"--nms must not be negative, found {self.nms:g}")
        if not 0 <= 2 * self.margin < self.patch:
            raise DataError(
                f"--patch {self.patch} and --margin {self.margin} leave nothing of a tile; need patch > 2 * margin"
            )

    @property
    def counted_region(self) -> Literal["stroma", "bulk"]:
        """Where cells count."""
        if self.region is not None:
            return self.region
        return "bulk" if self.score in ("organisers", "tiager") else "stroma"

    def result_settings(self) -> dict[str, Any]:
        """Return what the results of a slide depend on, beside slide, mask and networks."""
        return {
            **self.region_settings(),
            "cell_um": self.cell_um,
            "region": self.counted_region,
            "score": self.score,
            "save_maps": self.save_maps,
        }

    def region_settings(self) -> dict[str, Any]:
        """Return what maps and cells depend on, beside picture and networks."""
        return {
            "mpp": self.mpp,
            "patch": self.patch,
            "margin": self.margin,
            "conf": self.conf,
            "nms": self.nms,
            "precision": self.precision,
            "normalize": self.normalize,
        }


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``TIL_prediction/predict.py``."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="multi-task network, or tissue network (best.pt, .ckpt)",
    )
    files.add_argument(
        "--det-checkpoint", type=Path, help="cell network, beside a single-task tissue network"
    )
    what = files.add_mutually_exclusive_group(required=True)
    what.add_argument("--slides", type=Path, help="folder of slides, or one slide")
    what.add_argument(
        "--regions",
        type=Path,
        metavar="DIR",
        help="folder of pictures of regions (PNG, TIFF, JPEG) of --mpp µm per pixel: a mask and a list of cells of "
        "each, as evaluate_l1.py reads them",
    )
    files.add_argument("--masks", type=Path, help="folder of <id>_tissue.tif (default: tissue by colour)")
    files.add_argument(
        "--out", "--output", dest="out", type=Path, required=True, help="folder of the results"
    )
    files.add_argument("--save-maps", action="store_true", help="write probability maps as TIFF, too")
    _add_method_options(parser)
    run = parser.add_argument_group("run")
    run.add_argument("--batch", type=int, default=32, help="tiles that the network gets at a time")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    run.add_argument("--precision", choices=["auto", "32", "16", "bf16"], default="auto")
    run.add_argument(
        "--shard",
        type=_shard,
        default=Shard(),
        metavar="I/N",
        help="do every N-th slide or region, from the I-th",
    )
    run.add_argument("--jobs", type=int, default=1, help="slides or regions worked on side by side")
    run.add_argument(
        "--threads", type=int, help="threads that read a slide's tiles (default: CPUs, at most 4)"
    )
    run.add_argument(
        "--max-fault-share", type=float, default=0.1, help="largest share of tiles that cannot be decoded"
    )
    run.add_argument("--again", action="store_true", help="make results anew that are complete")


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    method = parser.add_argument_group("method")
    method.add_argument("--mpp", type=float, default=0.5, help="µm per pixel at which the network looks")
    method.add_argument(
        "--mpp-of",
        action="append",
        default=[],
        metavar="SLIDE=VALUE",
        help="µm per pixel of level 0 of a slide that does not say; may be repeated",
    )
    method.add_argument("--patch", type=int, default=256, help="edge of a tile; the training size")
    method.add_argument("--margin", type=int, default=32, help="pixels of a tile left out on either side")
    method.add_argument("--conf", type=float, default=0.1, help="least probability of a cell")
    method.add_argument(
        "--nms", type=float, help="suppression distance in pixels (default: 12; --faithful: 18)"
    )
    method.add_argument("--cell-um", type=float, default=CELL_UM, help="edge of the square a cell counts for")
    method.add_argument(
        "--region",
        choices=["stroma", "bulk"],
        help="stroma anywhere, or in the tumour bulk (default: stroma; bulk for organisers and tiager)",
    )
    method.add_argument("--score", choices=SCORE_NAMES, default="default", help="formula of the TIL score")
    method.add_argument(
        "--normalize", choices=["none", "lunit", "imagenet"], help="default: as the checkpoint was trained"
    )
    method.add_argument("--faithful", action="store_true", help="the original's suppression distance")


def slide_options(arguments: argparse.Namespace) -> SlideOptions:
    """Return the options that the flags stand for.

    Raises:
        DataError: Values out of range, and ``--mpp-of`` in another form.
    """
    values = {
        key: value for key, value in vars(arguments).items() if key in SlideOptions.__dataclass_fields__
    }
    if arguments.nms is None:
        values["nms"] = FAITHFUL_NMS_PX if arguments.faithful else NMS_PX
    values["mpp_of"] = dict(_override(text) for text in arguments.mpp_of)
    return SlideOptions(**values)


def _override(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        mpp = float(value)
    except ValueError:
        mpp = math.nan
    if not name or not equals or not (math.isfinite(mpp) and mpp > 0):
        raise DataError(f"--mpp-of {text}: expected SLIDE=VALUE, such as 104S=0.5 (µm per pixel of level 0)")
    return name, mpp


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
