"""Permuted labels, and synthetic bags for real tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from advmil.data.tables import read_cohort
from advmil.errors import DataError
from advmil.synthetic import CohortSettings, SyntheticCohort, generate_cohort
from advmil.synthetic_tables import cohort_from_table, draw_risk, permute_labels
from medshared.bags import read_features
from medshared.files import write_npz


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    return generate_cohort(tmp_path_factory.mktemp("cohort"), 1, CohortSettings(n_patients=60, width=4))


def test_outcomes_are_shuffled_within_their_part(cohort, tmp_path: Path):
    """Each part keeps its outcomes, its patients do not; patients of no part keep theirs; the link is gone."""
    before = read_cohort(cohort.table)
    names = list(before.patients)
    parts = (names[:30], names[30:45])
    signal = dict(zip(cohort.truth["patient_id"], cohort.truth["tumour_fraction"], strict=True))
    left = permute_labels(cohort.table, parts, tmp_path / "permuted.csv", 0, signal)
    after = read_cohort(tmp_path / "permuted.csv")

    def outcome(table, patients):
        return [(table.patients[p].event, table.patients[p].time) for p in patients]

    for part in parts:
        assert sorted(outcome(after, part)) == sorted(outcome(before, part))
        assert outcome(after, part) != outcome(before, part)
    assert outcome(after, names[45:]) == outcome(before, names[45:])
    assert [p.slides for p in after.patients.values()] == [p.slides for p in before.patients.values()]
    assert max(left) < 0.2
    risk = [signal[p] for p in parts[0]]
    true, permuted = ([t.patients[p].time for p in parts[0]] for t in (before, after))
    assert spearmanr(risk, true).statistic < -0.5
    assert abs(spearmanr(risk, permuted).statistic) < 0.25


def real_table(folder: Path) -> tuple[Path, str]:
    """A table like the published ones: several slides a patient, rows of a patient not adjacent."""
    rng = np.random.RandomState(0)
    patients = [f"{i}" for i in range(20)]
    times, events = rng.randint(10, 3000, 20).astype(float), rng.randint(0, 2, 20)
    rows = [(f"s{k}-{p}", p, events[i], times[i]) for k in range(2) for i, p in enumerate(patients)]
    frame = pd.DataFrame(rows, columns=["pathology_id", "patient_id", "e", "t"])
    frame.to_csv(folder / "real.csv", index=False)
    for fold, cut in enumerate((12, 11)):
        write_npz(
            folder / f"real-fold{fold}.npz",
            train_patients=np.asarray(patients[:cut]),
            val_patients=np.asarray(patients[cut:15]),
            test_patients=np.asarray(patients[15:]),
        )
    return folder / "real.csv", str(folder / "real-fold{}.npz")


def test_bags_for_a_real_table(tmp_path: Path):
    table, splits = real_table(tmp_path)
    made = cohort_from_table(tmp_path / "bags", table, splits, 0, 3, CohortSettings(width=6))
    cohort = read_cohort(table)
    for patient in cohort.patients.values():
        for slide in patient.slides:
            features = read_features(made.features / f"{slide}.pt")
            assert features.shape[1] == 6
            assert len(features) % 16 == 0
            assert (made.coordinates / "patches" / f"{slide}.h5").is_file()
    truth = made.truth.set_index("patient_id")
    assert truth["n_slides"].tolist() == [2] * 20
    assert truth["t"].tolist() == [patient.time for patient in cohort.patients.values()]
    with pytest.raises(DataError):
        cohort_from_table(tmp_path / "more", table, splits, 9, 3)


def test_risk_fits_what_is_known(tmp_path: Path):
    """Early deaths have a high risk; a censored patient's is at most that of a death at the same time."""
    cohort = read_cohort(real_table(tmp_path)[0])
    z = draw_risk(cohort, np.random.RandomState(0))
    event, time = cohort.outcomes(list(cohort.patients))
    assert ((z >= 0) & (z <= 1)).all()
    assert spearmanr(z[event == 1], time[event == 1]).statistic < -0.9


@pytest.mark.parametrize("name", ["nlst", "tcga_brca", "tcga_lgg"])
def test_risk_of_published_tables(reference_data: Path, name):
    cohort = read_cohort(reference_data / "advmil" / "table" / f"{name}_path_full.csv")
    event, time = cohort.outcomes(list(cohort.patients))
    z = draw_risk(cohort, np.random.RandomState(0))
    assert spearmanr(z[event == 1], time[event == 1]).statistic < -0.9
