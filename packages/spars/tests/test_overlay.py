"""Surfaces in millimetres, and pages that need nothing else."""

from __future__ import annotations

import re
import sys
from collections import Counter

import numpy as np
import pytest
from matplotlib.image import imread

from spars import overlay
from spars.errors import DataError
from spars.overlay import draw_surfaces, find_surface, write_overlay, write_overlays


def ball(radius: float = 6, size: int = 20) -> np.ndarray:
    axis = np.arange(size) - (size - 1) / 2
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) <= radius**2


def volume_of(surface) -> float:
    """Volume inside by the divergence theorem; closed surfaces only."""
    a, b, c = (surface.points[surface.triangles[:, k]] for k in range(3))
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6))


def is_closed(surface) -> bool:
    edges = np.sort(surface.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return set(Counter(map(tuple, edges.tolist())).values()) == {2}


def test_a_surface_encloses_the_volume_of_its_mask():
    mask = ball()
    affine = np.diag([0.8, 1.0, 2.5, 1.0])
    surface = find_surface(mask, affine)
    assert is_closed(surface)
    assert volume_of(surface) == pytest.approx(mask.sum() * 2.0, rel=0.05)


def test_a_surface_lies_where_the_affine_says():
    angle = 0.4
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] @= np.diag([-0.7, 1.2, 2.0])
    affine[:3, 3] = [-40, 12, 300]
    mask = np.zeros((9, 8, 7), np.bool_)
    mask[2:5, 0:3, 6] = True  # touches two borders
    surface = find_surface(mask, affine)
    voxels = (np.c_[surface.points, np.ones(len(surface.points))] @ np.linalg.inv(affine).T)[:, :3]
    np.testing.assert_allclose(voxels.min(axis=0), [1.5, -0.5, 5.5], atol=1e-6)
    np.testing.assert_allclose(voxels.max(axis=0), [4.5, 2.5, 6.5], atol=1e-6)
    assert is_closed(surface)


def test_large_masks_are_meshed_coarsely_and_stay_in_place(monkeypatch):
    fine = find_surface(ball(14, 34), np.eye(4))
    monkeypatch.setattr(overlay, "_MOST_VOXELS", 3000)
    coarse = find_surface(ball(14, 34), np.eye(4))
    assert len(coarse.triangles) < len(fine.triangles) / 3
    assert is_closed(coarse)
    np.testing.assert_allclose(coarse.points.mean(axis=0), 16.5, atol=0.7)
    assert volume_of(coarse) == pytest.approx(volume_of(fine), rel=0.2)


def test_an_empty_mask_has_an_empty_surface(tmp_path):
    surface = find_surface(np.zeros((4, 4, 4), np.bool_), np.eye(4))
    assert (surface.points.shape, surface.triangles.shape) == ((0, 3), (0, 3))
    page = write_overlay(tmp_path / "a.html", {"segmentation": surface}, "case").read_text()
    assert "nothing was segmented" in page
    assert draw_surfaces({"segmentation": surface}, "case").get_suptitle() == "case: nothing was segmented"


def test_a_mask_has_three_axes():
    with pytest.raises(DataError, match=r"three axes, found shape \[4, 4\]"):
        find_surface(np.ones((4, 4), np.bool_), np.eye(4))


def test_game_runs_get_the_original_files(tmp_path, caplog):
    truth, prediction = ball(6), ball(5)
    caplog.set_level("INFO")
    files = write_overlays(tmp_path, prediction, truth, np.eye(4), "liver_5")
    assert [path.name for path in files] == [
        "final_predictions_3d.html",
        "final_predictions_3d.png",
        "predicted_and_ground_truth_labels_3d.html",
        "predicted_and_ground_truth_labels_3d.png",
    ]
    assert f"Number of voxels with cancer: {prediction.sum()}" in caplog.text
    for path in (files[0], files[2]):
        page = path.read_text()
        assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?https?:", page)
        assert "Plotly.newPlot" in page
    assert "tumour (truth)" not in files[0].read_text().split("Plotly.newPlot")[-1]
    assert "tumour (truth)" in files[2].read_text().split("Plotly.newPlot")[-1]
    assert imread(files[3]).std() > 0.05
    assert len(write_overlays(tmp_path / "b", prediction, None, np.eye(4), "liver_5")) == 2


@pytest.mark.parametrize("module", ["plotly.graph_objects", "skimage.measure"])
def test_without_the_extra_the_hint_says_what_to_install(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'spars\[overlay\]'"):
        write_overlays(tmp_path, ball(), None, np.eye(4), "liver_5")
    assert not list(tmp_path.iterdir())
