"""What a network gave on each patch, kept small: confusion counts of the tissue map, detections and annotated cells.

Everything that is scored over a set (Dice, FROC, F1, intervals by slide) is computed from these, so that a set is run
through the network once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medshared.files import write_npz
from medshared.metrics.detection import (
    FrocCurve,
    Region,
    RegionMatches,
    froc_score,
    match_region,
    pool_matches,
)
from til_mtl.batches import Batch
from til_mtl.config import Config
from til_mtl.data.store import PatchStore
from til_mtl.epoch_values import tissue_names
from til_mtl.models.deeplab import Maps
from til_mtl.peaks import find_peaks


@dataclass(frozen=True)
class PatchScores:
    """Results on the patches of one set.

    Attributes:
        names: Of the patches, [N].
        slides: Slide of each patch, [N].
        tasks: 0 tissue, 1 cells, [N].
        confusion: Pixels by truth and prediction, int64 [N, C, C]; zeros for cell patches.
        detections: (x, y, p) of each patch, float64 [n, 3], in the coordinates of ``truth``; empty for tissue patches.
        truth: (x, y) of the annotated cells of each patch, float64 [m, 2].
        area_mm2: Of one patch.
        radius_px: Hit radius.
    """

    names: tuple[str, ...]
    slides: tuple[str, ...]
    tasks: NDArray[np.int64]
    confusion: NDArray[np.int64]
    detections: tuple[NDArray[np.float64], ...]
    truth: tuple[NDArray[np.float64], ...]
    area_mm2: float
    radius_px: float

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _matches(self) -> list[RegionMatches]:
        """Matches of each patch, so that resampled sets need no matching anew."""
        return [
            match_region(Region(found[:, :2], found[:, 2], truth), self.radius_px)
            for found, truth in zip(self.detections, self.truth, strict=True)
        ]

    def curve(self, rows: NDArray[np.integer] | None = None) -> FrocCurve | None:
        """Return the FROC curve over the cell patches among ``rows`` (all by default); null without one."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        cells = chosen[self.tasks[chosen] == 1]
        if not len(cells):
            return None
        return pool_matches([self._matches[i] for i in cells], self.area_mm2 * len(cells))

    def froc(self) -> float:
        """Return TIGER's FROC score: mean sensitivity at 10, 20, 50, 100, 200 and 300 false positives per mm²."""
        curve = self.curve()
        return math.nan if curve is None else froc_score(curve)

    def metrics(self, rows: NDArray[np.integer] | None = None) -> dict[str, float]:
        """Return Dice of each tissue (hard), their mean over tumour and stroma, FROC, and F1 at its best threshold.

        Args:
            rows: Patches, with repetitions if a resample asks for them; all by default.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        found: dict[str, float] = {}
        if (self.tasks[chosen] == 0).any():
            counts = self.confusion[chosen].sum(0)
            union = counts.sum(0) + counts.sum(1)
            dice = [2 * counts[c, c] / union[c] if union[c] else math.nan for c in range(len(union))]
            found = {f"dice_{n}": float(d) for n, d in zip(tissue_names(len(dice)), dice, strict=True)}
            wanted = [float(d) for d in dice[1:3] if not math.isnan(d)]
            found["dice_mean"] = sum(wanted) / len(wanted) if wanted else math.nan
        curve = self.curve(chosen)
        if curve is not None:
            found["froc"] = froc_score(curve)
            found |= best_f1(curve, self.area_mm2 * int((self.tasks[chosen] == 1).sum()))
        return found

    @classmethod
    def join(cls, parts: Sequence[PatchScores]) -> PatchScores:
        """Return the results of several sets as one, such as the held-out parts of all folds.

        Raises:
            ValueError: The parts were scored under different areas or radii.
        """
        first = parts[0]
        if any((p.area_mm2, p.radius_px) != (first.area_mm2, first.radius_px) for p in parts):
            raise ValueError("sets of different patch areas or hit radii cannot be scored together")
        return cls(
            names=tuple(name for p in parts for name in p.names),
            slides=tuple(slide for p in parts for slide in p.slides),
            tasks=np.concatenate([p.tasks for p in parts]),
            confusion=np.concatenate([p.confusion for p in parts]),
            detections=tuple(d for p in parts for d in p.detections),
            truth=tuple(t for p in parts for t in p.truth),
            area_mm2=first.area_mm2,
            radius_px=first.radius_px,
        )

    def write(self, path: Path) -> Path:
        """Write everything as one NPZ; lists of points are concatenated, with their lengths beside them."""
        return write_npz(
            path,
            names=np.array(self.names),
            slides=np.array(self.slides),
            tasks=self.tasks,
            confusion=self.confusion,
            detections=np.concatenate([np.zeros((0, 3)), *self.detections]),
            n_detections=np.array([len(d) for d in self.detections], dtype=np.int64),
            truth=np.concatenate([np.zeros((0, 2)), *self.truth]),
            n_truth=np.array([len(t) for t in self.truth], dtype=np.int64),
            area_mm2=np.float64(self.area_mm2),
            radius_px=np.float64(self.radius_px),
        )

    @classmethod
    def read(cls, path: Path) -> PatchScores:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as a:
            return cls(
                names=tuple(a["names"].tolist()),
                slides=tuple(a["slides"].tolist()),
                tasks=a["tasks"],
                confusion=a["confusion"],
                detections=_split(a["detections"], a["n_detections"]),
                truth=_split(a["truth"], a["n_truth"]),
                area_mm2=float(a["area_mm2"]),
                radius_px=float(a["radius_px"]),
            )

    def table(self) -> list[dict[str, Any]]:
        """Return one row a patch for ``predictions.csv``."""
        rows = []
        for i, (name, slide) in enumerate(zip(self.names, self.slides, strict=True)):
            row: dict[str, Any] = {"patch": name, "slide": slide}
            row["task"] = "detection" if self.tasks[i] else "segmentation"
            if self.tasks[i]:
                row |= {"n_cells": len(self.truth[i]), "n_detected": len(self.detections[i])}
            else:
                counts = self.confusion[i]
                union = counts.sum(0) + counts.sum(1)
                for c, tissue in enumerate(tissue_names(len(union))):
                    row[f"dice_{tissue}"] = float(2 * counts[c, c] / union[c]) if union[c] else math.nan
            rows.append(row)
        return rows


def _split(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    return tuple(np.split(values, np.cumsum(lengths)[:-1])) if len(lengths) else ()


def best_f1(curve: FrocCurve, area_mm2: float) -> dict[str, float]:
    """Return the best F1 over the thresholds of a curve, with its threshold, precision and recall.

    Args:
        curve: False positives are per mm².
        area_mm2: Of all regions of the curve.
    """
    tp = curve.sensitivities * curve.n_truth
    fp = curve.false_positives * area_mm2
    fn = curve.n_truth - tp
    both = 2 * tp + fp + fn
    if not len(tp) or both.max() == 0:
        nothing = 0.0 if curve.n_truth else math.nan  # cells that nobody found, or nothing to find
        return {
            "cell_f1": nothing,
            "cell_threshold": math.nan,
            "cell_precision": math.nan,
            "cell_recall": nothing,
        }
    f1 = np.divide(2 * tp, both, out=np.zeros_like(both), where=both > 0)
    best = int(f1.argmax())
    found, truths = tp[best] + fp[best], tp[best] + fn[best]
    return {
        "cell_f1": float(f1[best]),
        "cell_threshold": float(curve.thresholds[best]),
        "cell_precision": float(tp[best] / found) if found else math.nan,
        "cell_recall": float(tp[best] / truths) if truths else math.nan,
    }


@dataclass
class PatchScorer:
    """Turns maps into :class:`PatchScores`, batch by batch.

    Attributes:
        config: Resolved configuration: threshold, suppression distance, radius, µm per pixel.
    """

    config: Config
    _indices: list[int] = field(default_factory=list)
    _tasks: list[int] = field(default_factory=list)
    _confusion: list[NDArray[np.int64]] = field(default_factory=list)
    _detections: list[NDArray[np.float64]] = field(default_factory=list)
    _truth: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, maps: Maps, batch: Batch, store: PatchStore) -> None:
        """Add a batch.

        Args:
            maps: Logits of the batch.
            batch: Patches in the same order.
            store: Gives the annotated cells.
        """
        n = self.config.num_classes_seg
        counts = None if maps.seg is None else _confusions(batch.masks, maps.seg.argmax(1), n)
        cells = None if maps.det is None else maps.det.float().softmax(1)[:, 1].cpu().numpy()
        for row, index in enumerate(batch.indices):
            is_cell = bool(batch.tasks[row] == 1)
            confusion = np.zeros((n, n), dtype=np.int64)
            found, truth = np.zeros((0, 3)), np.zeros((0, 2))
            if is_cell and cells is not None:
                found = find_peaks(cells[row], self.config.conf, float(self.config.resolved_value("nms")))
                found[:, :2] += 0.5  # annotated points count from the corner of a pixel, peaks are pixels
                truth = store.points(int(index))
            elif not is_cell and counts is not None:
                confusion = counts[row]
            self._indices.append(int(index))
            self._tasks.append(int(is_cell))
            self._confusion.append(confusion)
            self._detections.append(found)
            self._truth.append(truth)

    def extend(self, other: PatchScorer) -> None:
        """Add the batches of another scorer behind one's own."""
        self._indices += other._indices
        self._tasks += other._tasks
        self._confusion += other._confusion
        self._detections += other._detections
        self._truth += other._truth

    def scores(self, store: PatchStore) -> PatchScores:
        """Return the results of all batches added."""
        width, height = self.config.img_size
        n = self.config.num_classes_seg
        return PatchScores(
            names=tuple(store.names[i] for i in self._indices),
            slides=tuple(store.slides[i] for i in self._indices),
            tasks=np.array(self._tasks, dtype=np.int64),
            confusion=np.stack(self._confusion) if self._confusion else np.zeros((0, n, n), dtype=np.int64),
            detections=tuple(self._detections),
            truth=tuple(self._truth),
            area_mm2=width * height * (self.config.mpp / 1000) ** 2,
            radius_px=self.config.radius_px,
        )

    def batch_froc(self, logits: Tensor, batch: Batch) -> float:
        """Return the original's FROC of one batch: false positives per patch, over its own two functions.

        Args:
            logits: [B, 2, H, W].
            batch: The patches; those of tissue are left out.
        """
        from til_mtl.original.detection import batch_froc

        is_cell = batch.tasks == 1
        probability = logits.float().softmax(1)[:, 1].cpu()[is_cell].numpy()
        cells = (batch.masks == 1).float().cpu()[is_cell].numpy()
        return batch_froc(probability, cells, running=self.config.task == "mtl")


def _confusions(truth: Tensor, prediction: Tensor, n: int) -> NDArray[np.int64]:
    """Return pixels of each patch by truth and prediction, [B, n, n]; ignored pixels are left out.

    One count and one copy from the GPU a batch.
    """
    left_out = n * n
    pairs = torch.where(truth < n, truth.long() * n + prediction, left_out).flatten(1)
    first = torch.arange(len(pairs), device=pairs.device).unsqueeze(1) * (left_out + 1)
    counts = torch.bincount((pairs + first).flatten(), minlength=len(pairs) * (left_out + 1))
    return counts.reshape(len(pairs), -1)[:, :left_out].reshape(-1, n, n).cpu().numpy()
