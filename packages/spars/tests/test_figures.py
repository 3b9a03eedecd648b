"""Pictures show the numbers they were given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.image import imread

from spars.figures import (
    CLASSIFIER_PANELS,
    GAME_PANELS,
    ShownCase,
    draw_curves,
    draw_dice_over_share,
    draw_methods,
    draw_montage,
    draw_probability,
    draw_win_rates,
    save_figure,
)


def shown(**changes) -> ShownCase:
    """A box of 4 × 6 × 2 voxels in 12 × 16 × 8, found one voxel further along the first axis."""
    truth = np.zeros((12, 16, 8), np.bool_)
    truth[2:6, 4:10, 3:5] = True
    image = np.where(truth, 10, 60).astype(np.int16)
    keys = {
        "name": "liver_1",
        "image": image,
        "spacing": (1.0, 1.0, 2.5),
        "prediction": np.roll(truth, 1, axis=0),
        "truth": truth,
        "probability": np.roll(truth, 1, axis=0) * 0.7,
    }
    return ShownCase(**{**keys, **changes})


def test_only_panels_with_numbers_are_drawn():
    rows = [
        {"iteration": 1, "mean_score1": 0.2, "mean_score2": 0.1, "dice": None},
        {"iteration": 2, "mean_score1": 0.4, "mean_score2": math.nan, "dice": None},
    ]
    figure = draw_curves(rows, GAME_PANELS, "iteration")
    (axis,) = figure.axes
    first, second = axis.lines
    assert first.get_xydata().tolist() == [[1, 0.2], [2, 0.4]]
    assert second.get_xydata().tolist() == [[1, 0.1]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["learner", "opponent"]


def test_no_number_no_figure():
    assert draw_curves([{"epoch": 0, "val_auc": None}], CLASSIFIER_PANELS, "epoch") is None
    assert draw_curves([], GAME_PANELS, "iteration") is None


def test_the_mean_of_a_long_curve_runs_through_its_middle():
    rows = [{"iteration": k, "dice": 0.01 * k} for k in range(100)]
    _, mean = draw_curves(rows, GAME_PANELS, "iteration").axes[0].lines
    points = mean.get_xydata()
    assert len(points) == 96
    np.testing.assert_allclose(points[:, 1], 0.01 * points[:, 0])


def test_shares_of_games_add_up_to_one():
    rows = [
        {"iteration": 0, "wins": 6, "draws": 2, "losses": 2},
        {"iteration": 30, "wins": 0, "draws": 0, "losses": 0},
    ]
    (axis,) = draw_win_rates(rows).axes
    heights = np.array([[bar.get_height() for bar in bars] for bars in axis.containers])
    np.testing.assert_allclose(heights, [[0.6, 0], [0.2, 0], [0.2, 0]])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "30"]


def test_every_patient_is_a_point_and_the_diamond_is_their_mean():
    values = {"agent": {"a": 0.2, "b": 0.6, "c": 0.1}, "all_positive": {"a": 0.05}}
    (axis,) = draw_methods(values, "agent").axes
    points = [each.get_offsets() for each in axis.collections]
    assert sorted(np.asarray(points[0])[:, 0]) == [0.1, 0.2, 0.6]
    np.testing.assert_allclose(points[1], [[0.3, 1]])
    np.testing.assert_allclose(points[3], [[0.05, 0]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["agent", "all positive"]


def test_budgets_of_one_method_are_joined():
    points = [("agent", 0.2, 0.5, 0.1), ("agent", 0.05, 0.3, None), ("score_map", 1.0, 0.6, 0.1)]
    (axis,) = draw_dice_over_share(points).axes
    lines = {each.get_label(): each.lines[0] for each in axis.containers}
    assert lines["agent"].get_xydata().tolist() == [[0.05, 0.3], [0.2, 0.5]]
    assert lines["agent"].get_linestyle() == "-"
    assert lines["score map"].get_xydata().tolist() == [[1.0, 0.6]]
    low, high = axis.get_xlim()
    assert low < 0.05 < 1 < high


def test_planes_go_through_the_most_tumour():
    case = shown()
    x, y, z = case.middle
    assert case.truth[x].sum() == case.truth.sum(axis=(1, 2)).max()
    assert case.truth[:, y].any()
    assert case.truth[:, :, z].any()
    nothing = np.zeros_like(case.truth)
    found = shown(truth=None).middle
    assert case.prediction[found[0]].any()
    assert shown(truth=nothing, prediction=nothing).middle == (6, 8, 4)


def test_outlines_lie_around_the_masks():
    figure = draw_montage([shown(), shown(truth=None)])
    axial, coronal, sagittal = figure.axes[:3]
    truth, found = axial.collections
    assert _extent(truth) == pytest.approx((1.5, 5.5, 3.5, 9.5), abs=0.01)
    assert _extent(found) == pytest.approx((2.5, 6.5, 3.5, 9.5), abs=0.01)
    assert len(figure.axes[3].collections) == 1
    # Slices are 2.5 mm apart: planes along the third axis are stretched.
    assert (axial.get_aspect(), coronal.get_aspect(), sagittal.get_aspect()) == (1, 2.5, 2.5)
    for axis in (axial, coronal, sagittal):  # one square field of view of 20 mm
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert right - left == pytest.approx((high - low) * axis.get_aspect())
    assert axial.get_xlim() == pytest.approx((-4.5, 15.5))
    assert axial.images[0].get_array().shape == (16, 12)
    assert coronal.images[0].get_array().shape == (8, 12)
    assert sagittal.images[0].get_array().shape == (8, 16)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tumour (truth)", "segmentation"]


def _extent(contour) -> tuple[float, float, float, float]:
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    return (*(f(points[:, 0]) for f in (min, max)), *(f(points[:, 1]) for f in (min, max)))


def test_outlines_at_the_border_are_closed():
    mask = np.ones((4, 4, 4), np.bool_)
    case = shown(image=np.zeros((4, 4, 4)), truth=mask, prediction=mask, probability=None)
    (contour, _) = draw_montage([case]).axes[0].collections
    (path,) = contour.get_paths()
    assert np.array_equal(path.vertices[0], path.vertices[-1])


def test_a_probability_map_lies_over_the_slice():
    figure = draw_probability(shown())
    layer = figure.axes[0].images[1].get_array()
    assert layer.max() == pytest.approx(0.7)
    assert layer.mask.sum() == layer.size - 24
    with pytest.raises(ValueError, match="liver_1: has no probability map"):
        draw_probability(shown(probability=None))


def test_a_figure_is_saved_whole_and_always_alike(tmp_path):
    first = save_figure(tmp_path / "figures" / "a.png", draw_montage([shown()]))
    second = save_figure(tmp_path / "b.png", draw_montage([shown()]))
    assert first.read_bytes() == second.read_bytes()
    assert imread(first).std() > 0.1
