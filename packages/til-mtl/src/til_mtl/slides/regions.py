"""Pictures of regions: a mask of tissues and a list of cells of each, in the form that leaderboard 1 is scored from.

Pictures are looked at pixel by pixel, as they are: they are to have the µm per pixel that the network was trained at.
Tiles overlap and only their middle is kept, as on slides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medshared.batch import Status, Task
from medshared.leases import sidecar_path
from medshared.tables import write_table
from til_mtl.data.images import SUFFIXES, read_image, read_labels, write_png
from til_mtl.errors import DataError
from til_mtl.peaks import Candidates, StripPeaks
from til_mtl.slides.job_state import (
    ModelFactory,
    ModelOnce,
    file_stamp,
    find_files,
    items_done,
    network_checksums,
    reported,
    run_tasks,
    write_until_settled,
)
from til_mtl.slides.maps import SlideModel, label_map, run_model
from til_mtl.slides.options import SlideOptions
from til_mtl.slides.outputs import write_detections
from til_mtl.slides.tiling import kept_part, plan_axis
from til_mtl.til_score import OTHER, STROMA, TUMOR

COLUMNS = (
    "region",
    "status",
    "message",
    "file",
    "width_px",
    "height_px",
    "tumor_px",
    "stroma_px",
    "other_px",
)


def run_regions(options: SlideOptions, network_factory: ModelFactory | None = None) -> int:
    """Predict pictures of regions.

    Of every picture ``<out>/<name>.png`` has the tissues (1 tumour, 2 stroma, 3 other) and ``<out>/<name>.json`` the
    cells. A picture that cannot be used is recorded with its reason in ``regions.csv`` and ``predict-report.json``, and
    leaves no files. What is complete, as checksums show, and was made with the same settings is not made again.

    Args:
        options: The settings.
        network_factory: Makes the model when the first picture needs it; by default the checkpoints are loaded.

    Returns:
        Exit code: 1 when a picture failed.

    Raises:
        DataError: No pictures, or results that would lie among them.
        CheckpointError: Checkpoints that cannot be used.
    """
    if options.regions is None:
        raise DataError("give --regions, a folder of pictures")
    pictures = find_pictures(options.regions, options.out)
    if options.out.resolve() in {file.parent.resolve() for file in pictures}:
        raise DataError(
            f"--out {options.out}: holds the pictures; masks of the same names would replace them"
        )
    model = ModelOnce(options, network_factory)
    tasks = [_task(picture, options, model) for picture in pictures]
    code = run_tasks(tasks, options, model)
    write_region_table(options.out, pictures, tasks)
    return code


def find_pictures(path: Path, out: Path) -> list[Path]:
    """Return the pictures of a folder sorted by name, or the one picture.

    Args:
        path: Folder or picture.
        out: Folder of the results, which is not searched.

    Raises:
        DataError: No picture there, or two of one name.
    """
    return find_files(path, SUFFIXES, "picture", out)


def map_picture(
    pixels: NDArray[np.uint8], model: SlideModel, options: SlideOptions
) -> tuple[NDArray[np.uint8], Candidates]:
    """Predict one picture by overlapping tiles.

    Args:
        pixels: uint8 ``[H, W, 3]``; smaller than a tile, it is filled up with white to the right and below.
        model: What looks at tiles.
        options: Tile, margin, batch, and what counts as a cell.

    Returns:
        Labels, uint8 ``[H, W]`` (1 tumour, 2 stroma, 3 other), and the cells, the most probable first; their value is
        the label they lie on.
    """
    height, width = pixels.shape[:2]
    tile = options.patch
    rows, columns = (plan_axis(length, tile, options.margin) for length in (height, width))
    beyond = ((0, max(0, tile - height)), (0, max(0, tile - width)), (0, 0))
    padded = np.pad(pixels, beyond, constant_values=255)
    labels = np.zeros((height, width), np.uint8)
    probability = np.zeros((height, width), np.float32)
    places = [(row, column) for row in range(len(rows.starts)) for column in range(len(columns.starts))]
    for start in range(0, len(places), options.batch):
        group = places[start : start + options.batch]
        corners = [(rows.starts[row], columns.starts[column]) for row, column in group]
        tiles = np.stack([padded[y : y + tile, x : x + tile] for y, x in corners])
        tissue, cells = run_model(model, tiles)
        for number, (row, column) in enumerate(group):
            window, kept = kept_part(rows, columns, row, column)
            labels[window] = label_map(tissue[number][..., kept[0], kept[1]])
            probability[window] = cells[number][kept]
    return labels, StripPeaks(width, options.conf, options.nms).add(probability, labels, is_last=True)


def _task(picture: Path, options: SlideOptions, model: ModelOnce) -> Task:
    mask, points = (options.out / f"{picture.stem}{suffix}" for suffix in (".png", ".json"))

    def inputs() -> Mapping[str, Any]:
        return {
            "picture": file_stamp(picture),
            "networks": network_checksums(options),
            **options.region_settings(),
        }

    def work() -> str:
        loaded = model()
        # From here on an earlier result does not count, whatever becomes of this one.
        for file in (mask, points):
            sidecar_path(file).unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        labels, cells = map_picture(read_image(picture), loaded, options)
        write_png(mask, labels)
        write_detections(points, cells, options.mpp)
        return f"{labels.shape[1]} x {labels.shape[0]} px, {len(cells.x)} lymphocytes"

    return Task(picture.stem, points, inputs, work, beside=(mask,))


def write_region_table(out: Path, pictures: Sequence[Path], tasks: Sequence[Task]) -> None:
    """Write ``regions.csv`` from what all jobs have finished so far.

    Args:
        out: Folder of the results.
        pictures: All pictures of the run.
        tasks: The same as tasks; results of other settings do not count.
    """

    def write(state: tuple[set[str], dict[str, tuple[Status, str]]]) -> None:
        done, unfinished = state
        rows = []
        for picture in pictures:
            row: dict[str, Any] = {"region": picture.stem, "file": picture.name}
            if picture.stem in done:
                row |= {"status": "done", **_areas(out / f"{picture.stem}.png")}
            else:
                row["status"], row["message"] = unfinished.get(picture.stem, ("not yet", ""))
            rows.append(row)
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        whole = [name for name in COLUMNS if name.endswith("_px")]
        write_table(out / "regions.csv", table.astype(dict.fromkeys(whole, "Int64")))

    write_until_settled(lambda: (items_done(tasks), reported(out)), write)


def _areas(mask: Path) -> dict[str, int]:
    """Return the size of a region and the pixels of its tissues."""
    try:
        labels = read_labels(mask)
    except DataError:  # another job makes it anew just now
        return {}
    counts = np.bincount(labels.ravel(), minlength=4)
    named = {"tumor_px": TUMOR, "stroma_px": STROMA, "other_px": OTHER}
    areas = {name: int(counts[value]) for name, value in named.items()}
    return {"width_px": labels.shape[1], "height_px": labels.shape[0], **areas}
