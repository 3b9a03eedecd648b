"""Scores of patches: pooled, resampled, written and read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medshared.metrics.detection import Region, froc_curve, froc_score
from til_mtl.batches import Batch
from til_mtl.config import Config
from til_mtl.models.deeplab import Maps
from til_mtl.patch_scores import PatchScorer, PatchScores, best_f1


def test_metrics_equal_those_computed_anew(make_scores):
    scores = make_scores()
    found = scores.metrics()
    counts = scores.confusion.sum(0)
    for c, name in enumerate(("other", "tumor", "stroma")):
        assert found[f"dice_{name}"] == pytest.approx(
            2 * counts[c, c] / (counts[c].sum() + counts[:, c].sum())
        )
    assert found["dice_mean"] == pytest.approx((found["dice_tumor"] + found["dice_stroma"]) / 2)
    cells = np.flatnonzero(scores.tasks == 1)
    regions = [
        Region(scores.detections[i][:, :2], scores.detections[i][:, 2], scores.truth[i]) for i in cells
    ]
    assert found["froc"] == froc_score(froc_curve(regions, 8.0, 0.001024 * len(cells)))


def test_a_resample_equals_a_set_of_its_own(make_scores):
    scores = make_scores()
    rows = np.array([3, 3, 0, 2, 5, 5, 5])
    chosen = PatchScores.join(
        [
            PatchScores(
                names=(scores.names[i],),
                slides=(scores.slides[i],),
                tasks=scores.tasks[[i]],
                confusion=scores.confusion[[i]],
                detections=(scores.detections[i],),
                truth=(scores.truth[i],),
                area_mm2=scores.area_mm2,
                radius_px=scores.radius_px,
            )
            for i in rows
        ]
    )
    np.testing.assert_equal(scores.metrics(rows), chosen.metrics())


def test_scores_survive_the_disk(make_scores, tmp_path):
    scores = make_scores()
    again = PatchScores.read(scores.write(tmp_path / "scores.npz"))
    assert again.names == scores.names
    np.testing.assert_equal(again.metrics(), scores.metrics())
    assert str(again.table()) == str(scores.table())


def test_f1_is_the_best_over_all_thresholds(make_scores):
    scores = make_scores()
    curve = scores.curve()
    area = scores.area_mm2 * 6
    found = best_f1(curve, area)
    tp, fp = curve.sensitivities * curve.n_truth, curve.false_positives * area
    wanted = max(2 * t / (2 * t + f + curve.n_truth - t) for t, f in zip(tp, fp, strict=True))
    assert found["cell_f1"] == pytest.approx(wanted)
    place = list(curve.thresholds).index(found["cell_threshold"])
    assert found["cell_recall"] == pytest.approx(curve.sensitivities[place])


def test_nothing_found_is_zero_and_nothing_to_find_is_undefined():
    empty, cells = np.zeros((0, 3)), np.array([[5.0, 5.0]])
    for truth, wanted in ((cells, 0.0), (np.zeros((0, 2)), math.nan)):
        scores = PatchScores(
            ("p",), ("s",), np.array([1]), np.zeros((1, 3, 3), np.int64), (empty,), (truth,), 0.001, 8.0
        )
        assert scores.metrics()["cell_f1"] == pytest.approx(wanted, nan_ok=True)
        assert scores.metrics()["froc"] == 0


def test_sets_under_other_rules_are_not_joined(make_scores):
    other = PatchScores(**{**make_scores().__dict__, "radius_px": 4.0})
    with pytest.raises(ValueError, match="different patch areas or hit radii"):
        PatchScores.join([make_scores(), other])


class Store:
    names, slides, tasks = ["a", "b"], ["S", "S"], np.array([0, 1])

    def points(self, index: int) -> np.ndarray:
        return np.array([[10.5, 6.5]]) if index == 1 else np.zeros((0, 2))


def test_a_perfect_map_scores_one_everywhere():
    config = Config(img_size=(32, 32), nms=4.0).resolved()
    masks = torch.zeros(2, 32, 32, dtype=torch.int64)
    masks[0, :, 10:20], masks[0, :, 20:], masks[0, 0, 0] = 1, 2, 250
    seg = torch.nn.functional.one_hot(torch.where(masks == 250, 0, masks), 3).permute(0, 3, 1, 2).float() * 9
    det = torch.zeros(2, 2, 32, 32)
    det[:, 0], det[1, 1, 6, 10] = 8.0, 20.0
    scorer = PatchScorer(config)
    scorer.add(Maps(seg, det), Batch(torch.empty(0), masks, torch.tensor([0, 1]), np.array([0, 1])), Store())
    scores = scorer.scores(Store())
    found = scores.metrics()
    assert found["dice_tumor"] == found["dice_stroma"] == found["froc"] == found["cell_f1"] == 1
    assert scores.confusion.sum() == 32 * 32 - 1  # the ignored pixel is left out
    assert scores.area_mm2 == pytest.approx(0.016**2)
    np.testing.assert_array_equal(scores.detections[1][:, :2], [[10.5, 6.5]])
