"""Flags of the page, and what they come to."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from aespa.config import Mode
from aespa.errors import DataError
from aespa.flags import add_flag, parse_file

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MEGAPIXELS = 40.0  # what aespa.data.reading decodes
VISITORS = 16


@dataclass(frozen=True)
class PageOptions:
    """How the page is served.

    Attributes:
        weights: Checkpoint of this package or of the original.
        sam_ckpt: Weights of SAM or MedSAM; shown without preferences when there are no ``weights``.
        images: Files or folders of examples; empty = drawn images.
        raters: Rater masks of the first example.
        mode: What the network was trained for; None = what its checkpoint says, else AESPA.
        image_size: Side of the network's input; None = as in the checkpoint.
        host: Address to listen on.
        port: Port to listen on.
        max_megapixels: Larger uploads are refused.
        max_visitors: Pages that may be open at a time.
        device: Where the network computes.
        seed: Of the samples behind the proposals.
    """

    weights: Path | None = None
    sam_ckpt: Path | None = None
    images: tuple[Path, ...] = ()
    raters: tuple[Path, ...] = ()
    mode: Mode | None = None
    image_size: int | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    max_megapixels: float = MEGAPIXELS
    max_visitors: int = VISITORS
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise DataError(f"-port: expected 1 to 65535, found {self.port}")
        if not 0 < self.max_megapixels <= MEGAPIXELS:
            raise DataError(
                f"-max_megapixels: expected more than 0 and at most {MEGAPIXELS:g}, found {self.max_megapixels:g}"
            )
        if self.max_visitors < 1:
            raise DataError(f"-max_visitors: expected at least 1, found {self.max_visitors}")
        if self.seed < 0:
            raise DataError(f"-seed: expected at least 0, found {self.seed}")
        if self.raters and not self.images:
            raise DataError("-raters: masks of the first -image, but no -image was given")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can open the page."""
        return self.host in LOOPBACK


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``aespa_demo.py`` and ``aespa serve``; the device is a common flag."""
    add_flag(
        parser,
        "weights",
        type=parse_file,
        metavar="FILE",
        help="checkpoint of train.py, of the demo or of the original (default: a small network trained once on "
        "drawn images)",
    )
    add_flag(
        parser,
        "sam_ckpt",
        type=parse_file,
        metavar="FILE",
        help="weights of SAM or MedSAM: without -weights the page shows them as they are, without preferences",
    )
    add_flag(
        parser,
        "image",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="examples: images, or folders of images (default: drawn images with three raters)",
    )
    add_flag(
        parser,
        "raters",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="masks of the first example, one a rater",
    )
    add_flag(parser, "mode", choices=["AESPA", "SPA"], help="what an original's checkpoint was trained for")
    add_flag(parser, "image_size", type=int, help="side of the network's input (default: the checkpoint's)")
    add_flag(parser, "port", type=int, default=7860, help="port to listen on (default: 7860)")
    add_flag(
        parser,
        "host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine alone); 0.0.0.0 opens the page to the network",
    )
    add_flag(
        parser,
        "max_megapixels",
        type=float,
        default=MEGAPIXELS,
        help="larger uploads are refused (default: 40)",
    )
    add_flag(parser, "max_visitors", type=int, default=VISITORS, help="pages open at a time (default: 16)")
    add_flag(parser, "seed", type=int, default=0, help="of the samples behind the proposals (default: 0)")


def page_options(arguments: argparse.Namespace) -> PageOptions:
    """Check what the flags say.

    Args:
        arguments: Of :func:`add_page_options` and the common flags.

    Raises:
        DataError: A value cannot be used.
    """

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    return PageOptions(
        weights=path(arguments.weights),
        sam_ckpt=path(arguments.sam_ckpt),
        images=tuple(arguments.image),
        raters=tuple(arguments.raters),
        mode=arguments.mode,
        image_size=arguments.image_size,
        host=arguments.host,
        port=arguments.port,
        max_megapixels=arguments.max_megapixels,
        max_visitors=arguments.max_visitors,
        device=arguments.device,
        seed=arguments.seed,
    )
