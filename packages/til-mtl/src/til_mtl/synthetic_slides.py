"""Synthetic TIGER: drawn tissue in the folders, names and formats of the real download, and its truth beside it.

``<folder>/tiger`` is what one would download; ``<folder>/truth`` holds what only a drawing knows, among it regions
with annotations that are in no training data (``held-out``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from medshared.files import write_json, write_npz
from medshared.slides import write_label_pyramid, write_pyramid
from medshared.tables import write_table
from til_mtl.data.images import write_png
from til_mtl.synthetic import (
    CELL_RADIUS,
    CELL_UM,
    STROMA,
    UNIT_PX,
    Canvas,
    draw_canvas,
    on_glass,
    til_score,
    tissue_labels,
)
from til_mtl.synthetic_wsi import BOX_PX, DrawnRegion, write_annotated_slide

Kind = Literal["tissue-bcss", "tissue-cells", "held-out"]
_KINDS: tuple[Kind, ...] = ("tissue-bcss", "tissue-cells", "held-out")
TIL_SCORES = "tiger-til-scores-wsitils.csv"
_SCORE_PER_TRIAL, _CROWDING = 4.4, 130.0  # score ≈ 4.4 per trial and unit; high rates get in each other's way
_CORNER_PX = 20  # legs of the corners without annotation


@dataclass(frozen=True)
class TigerSettings:
    """How much to draw.

    Attributes:
        patch_px: Edge of the patches that the regions are meant for.
        region_px: Edge of a region; 2 x 2 patches fit in.
        tissue_regions: Regions of tissue-bcss, one a slide.
        cell_regions: Regions of tissue-cells, one a slide; the first share their slides with tissue-bcss.
        held_out_regions: Regions with tissue and cells for the final evaluation.
        held_out_px: Edge of those.
        slides: Slides with a TIL score.
        tissue_px: (width, height) of the tissue on a slide.
        margin_px: Glass round it.
        spacing_um: µm per pixel.
        scores: Lowest and highest TIL score that is aimed at.
        wsi_slides: Slides with a region of both kinds that are written whole, with masks and XML annotations.
    """

    patch_px: int = 64
    region_px: int = 128
    tissue_regions: int = 52
    cell_regions: int = 52
    held_out_regions: int = 12
    held_out_px: int = 128
    slides: int = 14
    tissue_px: tuple[int, int] = (320, 256)
    margin_px: int = 32
    spacing_um: float = 0.5
    scores: tuple[float, float] = (2.0, 75.0)
    wsi_slides: int = 0


@dataclass(frozen=True)
class SlideTruth:
    """What is known of a drawn slide.

    Attributes:
        slide: Identifier.
        score: TIL score of the drawing, 0 to 100, with cells of ``cell_um``.
        cells: Lymphocytes.
        stroma_px: Area of the stroma.
        trials: Lymphocytes that were tried per 64 x 64 pixels.
    """

    slide: str
    score: float
    cells: int
    stroma_px: int
    trials: float


@dataclass(frozen=True)
class SyntheticTiger:
    """Where a drawn data set lies.

    Attributes:
        folder: What was given to `write_tiger`.
        tiger: Root of the download.
        slides: Folder of the slides with scores.
        tissue_masks: Folder of their tissue masks.
        scores: CSV of their scores, whole numbers.
        truth: Folder of the truth: ``til_scores.csv`` and ``slides/<slide>.npz`` with ``segmentation`` (0 glass,
            1 tumour, 2 stroma, 3 other) and ``centres``.
        held_out: Folder with ``images``, ``masks`` and ``tiger-coco.json`` of the regions kept for evaluation.
        slide_truth: One a slide with a score, by rising score.
        spacing_um: µm per pixel.
        cell_um: Edge of a cell in the TIL score of the truth.
        cell_px: Diameter of a cell in pixels, for masks.
        patch_px: Edge of the patches.
    """

    folder: Path
    tiger: Path
    slides: Path
    tissue_masks: Path
    scores: Path
    truth: Path
    held_out: Path
    slide_truth: tuple[SlideTruth, ...]
    spacing_um: float
    patch_px: int
    cell_um: float = CELL_UM
    cell_px: int = 2 * CELL_RADIUS


@dataclass
class _CellAnnotations:
    """``tiger-coco.json`` while it grows."""

    images: list[dict[str, object]] = field(default_factory=list)
    boxes: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, canvas: Canvas) -> None:
        number = len(self.images) + 1
        height, width = canvas.classes.shape
        # The download's file names carry a folder.
        file_name = f"tissue-cells/images/{name}.png"
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for x, y in canvas.centres.tolist():
            box = [x - BOX_PX // 2, y - BOX_PX // 2, BOX_PX, BOX_PX]
            entry = {"id": len(self.boxes) + 1, "image_id": number, "category_id": 1, "bbox": box}
            self.boxes.append(entry)

    def write(self, path: Path) -> None:
        categories = [{"id": 1, "name": "lymphocytes and plasma cells"}]
        write_json(path, {"categories": categories, "images": self.images, "annotations": self.boxes})


def write_tiger(folder: Path | str, seed: int = 0, settings: TigerSettings | None = None) -> SyntheticTiger:
    """Draw a data set.

    Args:
        folder: Receives ``tiger`` and ``truth``.
        seed: Everything follows from it.
        settings: How much to draw.

    Returns:
        Where everything lies, and the true scores.
    """
    settings = settings or TigerSettings()
    folder = Path(folder)
    tiger, truth = folder / "tiger", folder / "truth"
    regions = tiger / "wsirois" / "roi-level-annotations"
    slides = _slide_names(seed, settings)
    both = [slide for slide in slides["tissue-bcss"] if slide in slides["tissue-cells"]][
        : settings.wsi_slides
    ]
    whole = _write_whole(tiger / "wsirois" / "wsi-level-annotations", both, seed, settings)
    _write_regions(
        regions / "tissue-bcss", "tissue-bcss", slides["tissue-bcss"], seed, settings, whole["tissue-bcss"]
    )
    cells = _write_regions(
        regions / "tissue-cells",
        "tissue-cells",
        slides["tissue-cells"],
        seed,
        settings,
        whole["tissue-cells"],
    )
    cells.write(regions / "tissue-cells" / "tiger-coco.json")
    held_out = _write_regions(truth / "held-out", "held-out", slides["held-out"], seed, settings, {})
    held_out.write(truth / "held-out" / "tiger-coco.json")
    scored = _write_slides(tiger / "wsitils", truth, slides["scored"], seed, settings)
    return SyntheticTiger(
        folder,
        tiger,
        tiger / "wsitils" / "images",
        tiger / "wsitils" / "tissue-masks",
        tiger / "wsitils" / TIL_SCORES,
        truth,
        truth / "held-out",
        tuple(scored),
        settings.spacing_um,
        settings.patch_px,
    )


def _slide_names(seed: int, settings: TigerSettings) -> dict[str, list[str]]:
    """Return names for every purpose; TCGA gives tissue and most cells, RUMC and JB give cells and scores."""
    generator = np.random.default_rng([seed, 0])
    elsewhere = 2 * (settings.cell_regions // 6)
    shared = max(0, settings.cell_regions - elsewhere)
    tcga = list(_tcga(generator, max(settings.tissue_regions, shared) + settings.held_out_regions))
    others = [*_rumc(0, elsewhere // 2), *_jb(0, elsewhere // 2)]
    scored = [
        *_tcga(generator, settings.slides - settings.slides // 2),
        *_rumc(500, settings.slides // 4),
        *_jb(500, settings.slides // 2 - settings.slides // 4),
    ]
    return {
        "tissue-bcss": tcga[: settings.tissue_regions],
        "tissue-cells": [*tcga[:shared], *others],
        "held-out": tcga[len(tcga) - settings.held_out_regions :],
        "scored": [scored[int(k)] for k in generator.permutation(len(scored))],
    }


def _tcga(generator: np.random.Generator, count: int) -> Iterator[str]:
    letters = list("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789")
    for number in range(count):
        site, patient = "".join(generator.choice(letters, 2)), "".join(generator.choice(letters, 2))
        tail = str(uuid.UUID(bytes=generator.bytes(16))).upper()
        yield f"TCGA-{site}-{patient}{number:02d}-01Z-00-DX1.{tail}"


def _rumc(first: int, count: int) -> list[str]:
    return [f"TC_S01_P{first + k + 1:06d}_C0001_B{101 + k}" for k in range(count)]


def _jb(first: int, count: int) -> list[str]:
    return [f"{first + 101 + k}{'SB'[k % 2]}" for k in range(count)]


def _write_regions(
    folder: Path,
    kind: Kind,
    slides: list[str],
    seed: int,
    settings: TigerSettings,
    whole: Mapping[str, DrawnRegion],
) -> _CellAnnotations:
    """Write images and tissue masks of one region a slide; return the cells."""
    found = _CellAnnotations()
    for number, slide in enumerate(slides):
        region = whole.get(slide) or _draw_region(slide, kind, seed, number, settings)
        write_png(folder / "images" / f"{region.name}.png", region.canvas.image)
        write_png(folder / "masks" / f"{region.name}.png", region.labels)
        found.add(region.name, region.canvas)
    return found


def _draw_region(slide: str, kind: Kind, seed: int, number: int, settings: TigerSettings) -> DrawnRegion:
    """Draw a region of a slide that is not written itself."""
    generator = np.random.default_rng([seed, 1 + _KINDS.index(kind), number])
    edge = settings.held_out_px if kind == "held-out" else settings.region_px
    units = max(1, round(edge**2 / UNIT_PX**2))
    canvas = draw_canvas(generator, edge, edge, int(generator.integers(2, 8, units).sum()))
    x, y = (int(value) for value in generator.integers(1000, 30000, 2))
    labels = tissue_labels(generator, canvas)
    if kind == "tissue-bcss" and number % 4 == 0:  # the download has rotated rectangles in upright images
        labels = without_corners(labels)
    return DrawnRegion(f"{slide}_[{x}, {y}, {x + edge}, {y + edge}]", canvas, labels)


def _write_whole(
    folder: Path, slides: list[str], seed: int, settings: TigerSettings
) -> dict[str, dict[str, DrawnRegion]]:
    """Write slides with annotations; return kind → slide → region."""
    found: dict[str, dict[str, DrawnRegion]] = {kind: {} for kind in _KINDS}
    for number, slide in enumerate(slides):
        regions = write_annotated_slide(
            folder, slide, 1000 * seed + number, settings.region_px, settings.margin_px, settings.spacing_um
        )
        for kind, region in regions.items():
            found[kind][slide] = region
    return found


def without_corners(labels: np.ndarray) -> np.ndarray:
    """Return labels whose four corners are not annotated (0)."""
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    from_right, from_bottom = columns[:, ::-1], rows[::-1]
    corner = np.minimum.reduce(
        [rows + columns, rows + from_right, from_bottom + columns, from_bottom + from_right]
    )
    return np.where(corner < _CORNER_PX, np.uint8(0), labels)


def _write_slides(
    folder: Path, truth: Path, slides: list[str], seed: int, settings: TigerSettings
) -> list[SlideTruth]:
    """Write slides with rising TIL scores, their tissue masks and the table of scores."""
    found: list[SlideTruth] = []
    aims = np.linspace(*settings.scores, len(slides)) if slides else []
    for number, (slide, aim) in enumerate(zip(slides, aims, strict=True)):
        generator = np.random.default_rng([seed, 4, number])
        # How much tumour and empty space a slide has varies, so that darkness alone tells little of the score.
        stroma, tumor = generator.uniform(0.3, 0.4), generator.uniform(0.3, 0.7)
        shares = np.array([(1 - stroma) * (1 - tumor), (1 - stroma) * tumor, stroma])
        trials = float(aim) / _SCORE_PER_TRIAL / (1 - float(aim) / _CROWDING)
        width, height = settings.tissue_px
        count = int(generator.poisson(trials * width * height / UNIT_PX**2))
        canvas = draw_canvas(generator, width, height, count, shares)
        image, segmentation, centres = on_glass(generator, canvas, settings.margin_px)
        write_pyramid(
            folder / "images" / f"{slide}.tif", image, settings.spacing_um, "generic", tile_px=128,
            downsamples=(1, 4), quality=95, subsampling=(1, 1), workers=1,
        )  # fmt: skip
        write_label_pyramid(
            folder / "tissue-masks" / f"{slide}_tissue.tif",
            (segmentation > 0).astype(np.uint8),
            settings.spacing_um,
        )
        write_npz(truth / "slides" / f"{slide}.npz", segmentation=segmentation, centres=centres)
        score = til_score(segmentation, centres)
        stroma_px = int((segmentation == STROMA).sum())
        found.append(SlideTruth(slide, score, len(centres), stroma_px, trials))
    by_name = sorted(found, key=lambda each: each.slide)
    rows = [{"image-id": each.slide, "tils-score": round(each.score)} for each in by_name]
    write_table(folder / TIL_SCORES, rows)
    write_table(truth / "til_scores.csv", [{"image-id": e.slide, "tils-score": e.score} for e in found])
    return found
