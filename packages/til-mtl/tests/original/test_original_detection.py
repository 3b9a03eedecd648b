"""The original's detection and FROC, against its own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from medshared.metrics.detection import Region, froc_curve, froc_score, sensitivity_at
from til_mtl.original import detection
from til_mtl.peaks import find_peaks


@pytest.fixture(scope="module")
def golden(golden_json, golden_npz):
    return golden_json("froc"), golden_npz("froc")


@pytest.mark.parametrize("image", range(4))
def test_points_are_the_originals(golden, image):
    _, arrays = golden
    probability = arrays["prob_maps"][image]
    found = detection.extract_predictions(probability, 0.1)
    expected = arrays[f"extract.{image}"]
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    assert (np.diff(found[:, 2]) <= 0).all()
    for name, threshold, distance in (("nms18", 0.1, 18), ("nms12", 0.3, 12)):
        expected = arrays[f"{name}.{image}"]
        np.testing.assert_array_equal(find_peaks(probability, threshold, distance), expected)
        listed = detection.extract_predictions(probability, threshold)
        np.testing.assert_array_equal(detection.non_max_supression_distance(listed, distance), expected)
    cells = find_peaks(arrays["gt_masks"][image].astype(float), 0.1, 18)
    np.testing.assert_array_equal(cells[:, :2], arrays[f"gt_points.{image}"][:, :2])


def _points(arrays):
    preds = [arrays[f"nms18.{i}"] for i in range(4)]
    gts = [arrays[f"gt_points.{i}"] for i in range(4)]
    return preds, gts


def test_faithful_counts_and_curve(golden):
    values, arrays = golden
    preds, gts = _points(arrays)
    expected = arrays["counts_r4_r8"]
    for i in range(4):
        for j, radius in enumerate((4, 8)):
            counts = [
                detection.count_tp_fp_fn(preds[i], gts[i], t, radius, faithful=True)
                for t in detection.THRESHOLDS
            ]
            np.testing.assert_array_equal(counts, expected[i, j])
    sensitivity, false_positives = detection.FROC(preds, gts, faithful=True)
    np.testing.assert_allclose(sensitivity, arrays["froc_sens"], rtol=1e-12)
    np.testing.assert_allclose(false_positives, arrays["froc_fppi"], rtol=1e-12)
    score = detection.compute_froc_score(false_positives, sensitivity, faithful=True)
    assert score == pytest.approx(values["froc_score.batch.original"], rel=1e-12)


def test_batch_scores(golden):
    values, arrays = golden
    maps, cells = arrays["prob_maps"], arrays["gt_masks"].astype(float)
    prefixes = [detection.batch_froc(maps[:k], cells[:k]) for k in range(1, 5)]
    assert prefixes == pytest.approx(values["froc_score.running_prefixes"], rel=1e-12)
    assert detection.batch_froc(maps, cells) == pytest.approx(values["froc_score.batch.original"], rel=1e-12)
    running = detection.batch_froc(maps, cells, running=True)
    assert running == pytest.approx(values["froc_score.mtl.original"], rel=1e-12)
    assert detection.batch_froc(maps[:0], cells[:0]) == 0.0


CORNERS = (
    "crossed_pairs",
    "exactly_at_radius",
    "just_outside",
    "no_cells",
    "no_predictions",
    "nothing",
    "one_prediction_two_cells",
    "threshold_equal",
    "two_predictions_one_cell",
)


@pytest.mark.parametrize("name", CORNERS)
def test_corner_cases(golden, name):
    case = golden[0][f"corner.{name}"]
    for t in (0.0, 0.5, 1.0):
        expected = case[f"t{t}"]
        faithful = detection.count_tp_fp_fn(case["pred"], case["gt"], t, 8, faithful=True)
        assert list(faithful) == expected["corrected_legacy"]
        if expected["original"] != "IndexError":
            assert list(faithful) == expected["original"]
        tp, fp, fn = detection.count_tp_fp_fn(case["pred"], case["gt"], t, 8)
        assert [tp, fn, fp] == expected["corrected_one_to_one"]
    if "tiger_froc_area_0.01mm2" in case:
        pred, gt = (np.reshape(np.asarray(case[k], float), (-1, 3)) for k in ("pred", "gt"))
        curve = froc_curve([Region(pred[:, :2], pred[:, 2], gt[:, :2])], 8, 0.01)
        assert froc_score(curve) == pytest.approx(case["tiger_froc_area_0.01mm2"], rel=1e-12)


@pytest.mark.parametrize("name", ["all_zero", "decreasing", "few_false_positives", "ties"])
def test_interpolation(golden, name):
    case = golden[0][f"interp.{name}"]
    score = detection.compute_froc_score(case["fps"], case["sens"], [1, 2], faithful=True)
    assert score == pytest.approx(case["original"], rel=1e-12)
    assert detection.compute_froc_score(case["fps"], case["sens"]) == pytest.approx(
        case["original"], rel=1e-12
    )


def test_evaluation_places_are_used_by_default():
    fps, sens = [100.0, 0.0], [1.0, 0.0]
    assert detection.compute_froc_score(fps, sens, [25.0]) == pytest.approx(0.25)
    assert detection.compute_froc_score(fps, sens, [25.0], faithful=True) != pytest.approx(0.25)


def test_tiger_curve_of_the_same_points(golden):
    values, arrays = golden
    preds, gts = _points(arrays)
    regions = [Region(p[:, :2], p[:, 2], g[:, :2]) for p, g in zip(preds, gts, strict=True)]
    expected = values["tiger.corrected"]
    curve = froc_curve(regions, expected["radius_px"], expected["area_mm2"])
    np.testing.assert_array_equal(curve.thresholds, arrays["tiger.thresholds"])
    np.testing.assert_allclose(curve.sensitivities, arrays["tiger.tpr"], rtol=1e-12)
    np.testing.assert_allclose(curve.false_positives, arrays["tiger.fp_per_mm2"], rtol=1e-12)
    np.testing.assert_allclose(sensitivity_at(curve), expected["sensitivities"], rtol=1e-12)
    assert froc_score(curve) == pytest.approx(expected["score"], rel=1e-12)


def test_a_perfect_detector_with_square_cells_is_not_perfect_in_the_original():
    """The original takes truth from masks by suppression of equal values: squares give more points than cells."""
    rng = np.random.default_rng(0)
    cells = np.zeros((256, 256))
    centres = []
    while len(centres) < 20:
        x, y = rng.integers(12, 244, 2)
        if all(np.hypot(x - a, y - b) > 20 for a, b in centres):
            centres.append((x, y))
            cells[y - 8 : y + 8, x - 8 : x + 8] = 1
    truth = find_peaks(cells, 0.1, 18)
    assert len(truth) > 20
    perfect = np.array([(x, y, 1.0) for x, y in centres])
    sensitivity, _ = detection.FROC([perfect], [truth], faithful=True)
    assert sensitivity[0] < 0.9
