"""Flags of ``advmil prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path

STEPS = ("segment", "patch", "regions", "features", "clusters", "graphs")
DEFAULT_STEPS = ("segment", "patch", "regions", "features")
SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the preparation."""
    parser.add_argument("slides", type=Path, help="folder of slides")
    parser.add_argument(
        "--output", type=Path, required=True, help="receives tiles, features, clusters, graphs"
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=[*STEPS, "all"],
        default=list(DEFAULT_STEPS),
        help="regions replaces big patches by the small ones they cover (default: %(default)s)",
    )
    parser.add_argument("--slide-ext", help="only slides with this extension, such as .svs")
    parser.add_argument("--table", type=Path, help="table of slides; clusters need it to know patients")
    add_tissue_options(parser)
    add_encoder_options(parser)
    parser.add_argument("--seed", type=int, default=42, help="of --transform")
    parser.add_argument("--clusters", type=int, default=8, help="K of K-means")
    parser.add_argument("--shard", metavar="I/N", help="part I of N of the slides, for job arrays")
    parser.add_argument("--jobs", type=int, default=1, help="threads of the steps without a network")
    parser.add_argument("--again", action="store_true", help="make finished outputs anew")


def add_tissue_options(parser: argparse._ActionsContainer) -> None:
    """Add the flags of segmentation and patching."""
    parser.add_argument(
        "--tissue",
        choices=["otsu", "clam"],
        help="otsu needs no tuning; clam has CLAM's parameters (default: clam with --preset or --process-list, "
        "otherwise otsu)",
    )
    parser.add_argument("--preset", help="CLAM preset: a name or a CSV file")
    parser.add_argument(
        "--process-list", type=Path, help="CSV with parameters of single slides, spacing_um among them"
    )
    parser.add_argument("--patch-size", type=int, default=256, help="pixels at the level")
    parser.add_argument("--step-size", type=int, help="default: the patch size")
    parser.add_argument(
        "--patch-level", type=int, default=2, help="of big patches; small ones lie one level finer"
    )
    parser.add_argument("--spacing-um", type=float, help="µm per pixel of slides that do not say")


def add_encoder_options(parser: argparse._ActionsContainer) -> None:
    """Add the flags of the features."""
    parser.add_argument(
        "--encoder", default="resnet50_trunc", help="resnet50_trunc, uni_v1, or the name of a timm model"
    )
    parser.add_argument("--weights", type=Path, help="file with the encoder's weights")
    parser.add_argument("--download", action="store_true", help="allow fetching the weights")
    parser.add_argument("--random-weights", action="store_true", help="untrained weights, for a dry run")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--target-patch-size", type=int, help="resize patches to this many pixels (default: do not)"
    )
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument(
        "--precision", choices=["32", "bf16"], default="32", help="of the encoder (default: %(default)s)"
    )
    parser.add_argument(
        "--max-fault-share", type=float, default=0.05, help="of patches that cannot be decoded"
    )
    parser.add_argument(
        "--transform", help="blur (lighter, light, strong) or colour (hed_lighter, hed_light, …)"
    )
    parser.add_argument(
        "--stain-template", type=Path, help="image whose colours patches are normalised to (Macenko)"
    )
