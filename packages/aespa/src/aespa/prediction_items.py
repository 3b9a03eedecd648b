"""The work on one image and on one volume."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aespa.data.reading import read_image
from aespa.errors import DataError
from aespa.prediction_inputs import Item, TableClick
from aespa.prediction_options import PredictOptions
from aespa.predictor import AespaPredictor, Prediction
from aespa.prepare.mbhseg import windowed_bytes
from medshared.files import read_json, write_bytes, write_json
from medshared.volumes import read_volume, write_volume


@dataclass(frozen=True)
class _Made:
    """Results of an item that are still to be written.

    Attributes:
        files: How each is written, by its name in the output folder.
        rows: Of the table.
        shares: Of the proposals, in (0, 1].
    """

    files: Mapping[str, Callable[[Path], Any]]
    rows: list[dict[str, Any]]
    shares: list[float] = field(default_factory=list)


class Segmenter:
    """Segments items one by one, each embedded once.

    Args:
        predictor: Holds the network.
        options: What is written, and how volumes are cut.
    """

    def __init__(self, predictor: AespaPredictor, options: PredictOptions) -> None:
        self.predictor = predictor
        self.options = options

    def work(self, item: Item, record: Path) -> str:
        """Write the results of an item, its record last, and return a word on them.

        Args:
            item: The image or volume.
            record: ``cases/<name>.json``.

        Raises:
            DataError: The file or a click on it cannot be used.
        """
        made = self._volume(item) if item.is_volume else self._image(item)
        earlier = _earlier_files(record)
        record.unlink(missing_ok=True)  # while files are replaced, nothing vouches for them
        for name, write in made.files.items():
            write(self.options.output / name)
        for name in sorted(earlier - made.files.keys()):  # such as proposals that there are no more
            (self.options.output / name).unlink(missing_ok=True)
        content = {"image": item.name, "source": str(item.path), "files": list(made.files), "rows": made.rows}
        write_json(record, {**content, "shares": made.shares})
        return f"{sum(row['pixels'] for row in made.rows)} pixels, {len(item.clicks)} clicks"

    # ------------------------------------------------------------------ one picture

    def _segment(
        self,
        pixels: NDArray[np.uint8],
        clicks: Sequence[TableClick],
        start: NDArray[np.float32] | None = None,
    ) -> tuple[Prediction, dict[str, Any]]:
        """Return the prediction for a picture after some clicks, and a row of the table."""
        began = time.perf_counter()
        predictor = self.predictor
        predictor.set_image(pixels)
        if start is not None:
            predictor.start_from(start)
        for click in clicks:
            try:
                predictor.click(click.x, click.y, click.label)
            except DataError as error:
                raise DataError(f"{self.options.clicks}:{click.line}: {error}") from error
        found = predictor.predict()
        row = {
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "clicks": len(clicks),
            "pixels": int(found.mask.sum()),
            "mean_entropy": round(float(found.entropy.mean(dtype=np.float64)), 6),
            "ms": round(1000 * (time.perf_counter() - began), 1),
        }
        return found, row

    def _image(self, item: Item) -> _Made:
        found, row = self._segment(read_image(item.path, stretch=self.options.stretch), item.clicks)
        proposals = self.predictor.proposals(self.options.k) if self.options.k else []
        pictures = {"masks": found.mask, "entropy": found.entropy}
        if not self.options.npy:
            pictures["probability"] = found.probability
        files = {f"{folder}/{item.name}.png": _png(values) for folder, values in pictures.items()}
        if self.options.npy:
            files[f"probability/{item.name}.npy"] = _npy(found.probability)
        for i, each in enumerate(proposals, start=1):
            files[f"proposals/{item.name}_{i}.png"] = _png(each.mask)
        writers = {name: partial(write_bytes, data=data) for name, data in files.items()}
        return _Made(writers, [row], [each.share for each in proposals])

    # ------------------------------------------------------------------ one volume

    def _volume(self, item: Item) -> _Made:
        options = self.options
        volume = read_volume(item.path)
        n = volume.shape[options.axis]
        clicks: dict[int, list[TableClick]] = {}
        for click in item.clicks:
            z = -1 if click.slice is None else click.slice
            if not 0 <= z < n:
                raise DataError(
                    f"{options.clicks}:{click.line}: slice {z} is none of {item.path.name}: along axis "
                    f"{options.axis} it has {n}, 0 to {n - 1}"
                )
            clicks.setdefault(z, []).append(click)
        window = options.window or (float(volume.array.min()), float(volume.array.max()))
        mask = np.zeros(volume.shape, np.uint8)
        probability, entropy = np.zeros(volume.shape, np.float32), np.zeros(volume.shape, np.float32)
        rows: list[dict[str, Any]] = [{}] * n
        logits: dict[int, NDArray[np.float32]] = {}
        for z, beside in slice_order(n, sorted(clicks) if options.propagate else []):
            place = (slice(None),) * options.axis + (z,)
            start = None if beside is None else logits[beside]
            found, row = self._segment(_bytes(volume.array[place], window), clicks.get(z, []), start)
            mask[place], probability[place], entropy[place] = found.mask, found.probability, found.entropy
            rows[z] = {"slice": z, **row}
            if options.propagate:
                logits[z] = found.logits
        arrays = {"masks": mask, "probability": probability, "entropy": entropy}
        files = {
            f"{folder}/{item.name}.nii.gz": partial(write_volume, array=array, affine=volume.affine)
            for folder, array in arrays.items()
        }
        return _Made(files, rows)


def slice_order(n: int, clicked: Sequence[int]) -> list[tuple[int, int | None]]:
    """Return in which order slices are segmented, and from which slice's mask each starts.

    Args:
        n: Number of slices.
        clicked: Slices to begin with; a slice between two follows the nearer one, the lower if both are as near.

    Returns:
        (slice, the one beside it) outwards from the clicked ones; without any, all in order and from no mask.

    Example:
        >>> slice_order(4, [1])
        [(1, None), (0, 1), (2, 1), (3, 2)]
    """
    if not clicked:
        return [(z, None) for z in range(n)]
    nearest = [min(clicked, key=lambda c, z=z: (abs(c - z), c)) for z in range(n)]
    order = sorted(range(n), key=lambda z: (abs(nearest[z] - z), z))
    return [(z, z + int(np.sign(nearest[z] - z)) if nearest[z] != z else None) for z in order]


def _bytes(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a slice in a window as a picture; without any range, it is black."""
    if window[1] <= window[0]:
        return np.zeros(values.shape, np.uint8)
    return windowed_bytes(values, *window)


def _png(values: NDArray[Any]) -> bytes:
    """Return a grey picture of bool or [0, 1], the largest value as 255."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(np.asarray(values, np.float32) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _earlier_files(record: Path) -> set[str]:
    """Return the files that an earlier record of the item names."""
    try:
        return {str(name) for name in read_json(record)["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
