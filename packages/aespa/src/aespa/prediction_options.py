"""The flags of ``predict.py``, and what they amount to."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from aespa.config import Mode
from aespa.errors import DataError
from aespa.flags import add_flag, add_shard_flag
from medshared.leases import Shard

# Middle and width in HU; none takes the volume's own range.
WINDOWS: dict[str, tuple[float, float] | None] = {
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "soft": (40.0, 400.0),
    "none": None,
}


@dataclass(frozen=True)
class PredictOptions:
    """What is segmented, by which network, and what is written.

    Attributes:
        inputs: Image files, NIfTI volumes, and folders of both.
        weights: Checkpoint.
        output: Folder of the results.
        clicks: Table of clicks; null = none, the prediction of round 0.
        mode: Method; null = the one that the checkpoint was trained for.
        num_samples: Latents an image: of SPA's prediction, and of proposals.
        k: Proposals of an image; 0 = none are written.
        npy: Write probabilities as float32 arrays and not as 8-bit pictures.
        stretch: Map the range of an image of more than 8 bits to 0..255.
        axis: Of a volume's array, along which it is cut.
        window: Low and high end in HU; null = the volume's own range.
        propagate: Slices without clicks start from the mask of the slice beside them, outwards from clicked ones.
        image_size: Side of the network's input; null = the checkpoint's.
        overwrite: Make finished results again.
        shard: The part of the items that this process does.
        device: Where the network computes.
        seed: Of the latents.
    """

    inputs: tuple[Path, ...]
    weights: Path
    output: Path
    clicks: Path | None = None
    mode: Mode | None = None
    num_samples: int = 48
    k: int = 0
    npy: bool = False
    stretch: bool = False
    axis: int = 2
    window: tuple[float, float] | None = (0.0, 80.0)
    propagate: bool = False
    image_size: int | None = None
    overwrite: bool = False
    shard: Shard = field(default_factory=Shard)
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise DataError(f"num_samples must be at least 1, found {self.num_samples}")
        if not 0 <= self.k <= self.num_samples:
            raise DataError(
                f"k must be from 0 to num_samples ({self.num_samples}): every proposal needs a sample, found {self.k}"
            )


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``predict.py``, without those that all verbs have."""
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="image, NIfTI volume, or folder of both"
    )
    add_flag(parser, "weights", type=Path, required=True, metavar="FILE", help="checkpoint of train.py")
    add_flag(parser, "output", type=Path, required=True, metavar="DIR", help="folder of the results")
    add_flag(
        parser, "clicks", type=Path, metavar="FILE",
        help="CSV with image[,slice],x,y,label[,round] in the image's own pixels; label 1 inside, 0 outside",
    )  # fmt: skip
    add_flag(
        parser,
        "mode",
        choices=list(get_args(Mode)),
        help="method (default: what the checkpoint was trained for)",
    )
    add_flag(parser, "num_samples", type=int, default=48, metavar="N", help="latents of SPA and of proposals")
    add_flag(parser, "k", type=int, default=0, metavar="K", help="also write that many proposals of an image")
    add_flag(
        parser, "npy", action="store_true", help="probabilities of images as float32 .npy, not as pictures"
    )
    add_flag(
        parser, "stretch", action="store_true", help="map images of more than 8 bits from their own range"
    )
    add_flag(
        parser, "axis", type=int, choices=[0, 1, 2], default=2, help="of the volume's array, cut along it"
    )
    add_flag(
        parser, "window", choices=list(WINDOWS), default="brain",
        help="HU window of volumes: brain 40/80, lung -600/1500, soft 40/400, none = the volume's range",
    )  # fmt: skip
    add_flag(parser, "level", type=float, metavar="HU", help="middle of the window instead")
    add_flag(parser, "width", type=float, metavar="HU", help="width of the window instead")
    add_flag(
        parser, "propagate", action="store_true",
        help="slices without clicks start from the mask beside them, outwards from clicked slices",
    )  # fmt: skip
    add_flag(parser, "image_size", type=int, metavar="PX", help="input side (default: the checkpoint's)")
    add_flag(parser, "overwrite", action="store_true", help="also make what is finished again")
    add_shard_flag(parser)
    add_flag(parser, "seed", type=int, default=0, help="of the latents")


def options_from_arguments(arguments: argparse.Namespace) -> PredictOptions:
    """Return what the flags of `add_predict_options` amount to.

    Raises:
        DataError: Flags that contradict each other or are out of range.
    """
    names = ("weights", "output", "clicks", "mode", "num_samples", "k", "npy", "stretch", "axis", "propagate")
    names += ("image_size", "overwrite", "shard", "device", "seed")
    return PredictOptions(
        inputs=tuple(arguments.inputs),
        window=_window(arguments.window, arguments.level, arguments.width),
        **{name: getattr(arguments, name) for name in names},
    )


def _window(preset: str, level: float | None, width: float | None) -> tuple[float, float] | None:
    chosen = WINDOWS[preset]
    if chosen is None:
        if level is None and width is None:
            return None
        if level is None or width is None:
            raise DataError("-window none: give both -level and -width, or neither")
        chosen = level, width
    level, width = chosen[0] if level is None else level, chosen[1] if width is None else width
    if not width > 0:
        raise DataError(f"-width must be above 0 HU, found {width:g}")
    return level - width / 2, level + width / 2
