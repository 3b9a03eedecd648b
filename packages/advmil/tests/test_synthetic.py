"""The synthetic cohort: its files, and that they say what the truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from advmil.data.splits import check_split, read_split
from advmil.data.tables import read_cohort
from advmil.prepare.features import _are_regions
from advmil.synthetic import (
    CohortSettings,
    SyntheticCohort,
    draw_directions,
    draw_features,
    generate_cohort,
    plan_slide,
    region_coordinates,
)
from medshared.bags import read_coordinates, read_features


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    settings = CohortSettings(n_patients=40, width=16, n_folds=2, slide_patients=2)
    return generate_cohort(tmp_path_factory.mktemp("cohort"), 5, settings)


def test_table_and_splits_are_the_originals(cohort):
    table = read_cohort(cohort.table)
    assert len(table.patients) == 40
    tests = []
    for fold in range(2):
        split = read_split(cohort.splits.replace("{}", str(fold)))
        check_split(split, table)
        assert [len(split.train), len(split.val), len(split.test)] == [22, 6, 12]
        assert set(split.train) | set(split.val) | set(split.test) == set(table.patients)
        tests.append(split.test)
    assert tests[0] != tests[1]


def test_times_follow_the_risk(cohort):
    """Risk shortens the true time; a censored time is below the true one, an event's is the true one, rounded."""
    truth = cohort.truth
    assert spearmanr(truth["z"], truth["time_true"]).statistic < -0.9
    event = truth["e"] == 1
    assert (np.abs(truth["t"] - truth["time_true"])[event] <= 0.5).all()
    assert (truth["t"] <= truth["time_true"] + 0.5)[~event].all()
    assert 0 < event.mean() < 1
    assert (truth["t"] >= 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(cohort.folder / "truth.csv"), truth, check_exact=False)


def test_share_of_tumour_follows_the_risk(cohort):
    expected = 0.05 + 0.85 * cohort.truth["z"]
    assert (np.abs(cohort.truth["tumour_fraction"] - expected) <= 1 / 16 + 1e-9).all()


def test_bags_show_the_share_of_tumour(cohort):
    """Features along the tumour direction, averaged over regions, tell the true share; so a model can."""
    table = read_cohort(cohort.table)
    drawn = {plan.slide for plan in cohort.to_draw}
    shares = []
    for patient in cohort.truth.to_dict("records"):
        slides = [s for s in table.patients[patient["patient_id"]].slides if s not in drawn]
        if slides:
            bag = np.concatenate([read_features(cohort.features / f"{slide}.pt") for slide in slides])
            regions = (bag @ cohort.directions[0]).reshape(-1, 16).mean(axis=1)
            shares.append(((regions > 1).mean(), patient["tumour_fraction"]))
    measured, true = np.asarray(shares).T
    np.testing.assert_allclose(measured, true, atol=1e-9)


def test_slides_to_be_drawn_belong_to_the_test_part(cohort):
    split = read_split(cohort.splits.replace("{}", "0"))
    assert {plan.slide.rpartition("-")[0] for plan in cohort.to_draw} == set(split.test[:2])
    assert not any((cohort.features / f"{plan.slide}.pt").exists() for plan in cohort.to_draw)


def test_coordinates_are_regions(cohort):
    for path in sorted((cohort.coordinates / "patches").glob("*.h5"))[:5]:
        read = read_coordinates(path)
        assert _are_regions(read.xy)
        assert len(read.xy) == len(read_features(cohort.features / f"{path.stem}.pt"))
        assert (read.attributes["patch_level"], read.attributes["patch_size"]) == (1, 256)


def test_same_seed_same_cohort(tmp_path: Path):
    settings = CohortSettings(n_patients=6, width=4)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate_cohort(tmp_path / name, seed, settings)
    files = {
        n: {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.pt")} for n in "abc"
    }
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_bimodal_times_are_apart(tmp_path: Path):
    """log T minus its mean given the risk has two clusters, log 1 and log 0.4."""
    truth = generate_cohort(tmp_path, 0, CohortSettings(n_patients=200, width=4, bimodal=True)).truth
    rest = np.log(truth["time_true"] / 2000) + 2.2 * truth["z"]
    low = rest < np.log(0.4) / 2
    assert 0.35 < low.mean() < 0.65
    assert abs(rest[low].mean() - np.log(0.4)) < 0.05
    assert abs(rest[~low].mean()) < 0.05


def test_directions_are_orthonormal():
    directions = draw_directions(12, np.random.RandomState(0))
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-12)


def test_features_are_shifted_in_whole_regions():
    rng = np.random.RandomState(3)
    plan = plan_slide("a", 0.5, 0.5, rng)
    directions = draw_directions(8, rng)
    features = draw_features(plan, directions, 100.0, rng)
    shifted = (features @ directions.T > 50).reshape(-1, 16, 2)
    for k, flags in enumerate((plan.tumour, plan.irrelevant)):
        np.testing.assert_array_equal(shifted[:, :, k], np.repeat(flags[:, None], 16, axis=1))


def test_region_coordinates():
    xy = region_coordinates(5)
    assert xy.shape == (80, 2)
    assert len(np.unique(xy, axis=0)) == 80
    assert xy[:5].tolist() == [[0, 0], [1024, 0], [2048, 0], [3072, 0], [0, 1024]]
