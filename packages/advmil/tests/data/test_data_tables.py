"""The table of slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advmil.data.tables import Cohort, read_cohort
from advmil.errors import DataError

HEADER = "pathology_id,patient_id,e,t\n"
COUNTS = {
    "nlst": (1222, 447, 160, 14, 1517, 2701, 6),
    "tcga_brca": (1041, 978, 132, 1, 852.5, 8605, 4),
    "tcga_lgg": (834, 486, 114, 1, 683.5, 6423, 17),
}


def write(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "cohort.csv"
    path.write_text(header + rows)
    return path


def test_slides_of_a_patient_keep_the_order_of_the_table(tmp_path: Path) -> None:
    cohort = read_cohort(write(tmp_path, "007,1,1,20\nb,2,0,30.5\n006,1,1,20\n"))
    assert list(cohort.patients) == ["1", "2"]
    assert cohort.patients["1"].slides == ("007", "006")
    assert (cohort.patients["1"].event, cohort.patients["2"].time) == (1, 30.5)
    assert (cohort.min_time, cohort.max_time) == (20.0, 30.5)


def test_outcomes_follow_the_given_order(tmp_path: Path) -> None:
    cohort = read_cohort(write(tmp_path, "a,1,1,20\nb,2,0,30\nc,3,1,40\n"))
    event, time = cohort.outcomes(["3", "1"])
    assert event.tolist() == [1, 1]
    assert time.tolist() == [40.0, 20.0]
    with pytest.raises(DataError, match=r"lacks 1 of the patients asked for \(9\)"):
        cohort.outcomes(["1", "9"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1,1,20\n\na,2,0,30\n", r"cohort.csv:4: column 'pathology_id': 'a' is already in row 2"),
        ("a,1,2,20\n", r"cohort.csv:2: column 'e': expected 0 \(censored\) or 1 \(death observed\), found 2"),
        ("a,1,1,20\n\nb,2,1,0\n", r"cohort.csv:4: column 't': expected days above 0, found 0"),
        ("a,1,1,20\nb,2,1,-3\n", r"cohort.csv:3: column 't': expected days above 0, found -3"),
        ("a,1,1,inf\n", r"cohort.csv:2: column 't': expected days above 0, found inf"),
        ("a,1,1,nan\n", r"cohort.csv:2: column 't': expected a number"),
        ("a,1,1,20\nb,2,0,9\nc,1,0,20\n", r"cohort.csv:4: patient 1 has e=0, t=20 here but e=1, t=20 in line 2"),
        ("a,1,1,20\nb,1,1,21\n", r"cohort.csv:3: patient 1 has e=1, t=21 here but e=1, t=20 in line 2"),
        ("a,1,1\n", r"cohort.csv:2: 3 cells where the header names 4"),
        ("a,,1,20\n", r"cohort.csv:2: column 'patient_id': the cell is empty"),
        ("", r"the table holds no slide, only a header"),
    ],
)  # fmt: skip
def test_bad_tables_name_the_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cohort(write(tmp_path, rows))


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"required columns \['pathology_id'\] are missing"):
        read_cohort(write(tmp_path, "a,1,1,20\n", header="slide,patient_id,e,t\n"))
    with pytest.raises(DataError, match="no such table of slides: set path_label"):
        read_cohort(tmp_path / "none.csv")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"s{k},{k},1,0\n" for k in range(15))
    with pytest.raises(DataError, match="… and 5 more"):
        read_cohort(write(tmp_path, rows))


@pytest.mark.parametrize("name", COUNTS)
def test_published_tables_have_the_published_counts(reference_data: Path, name: str) -> None:
    slides, patients, events, shortest, median, longest, most = COUNTS[name]
    cohort: Cohort = read_cohort(reference_data / "advmil" / "table" / f"{name}_path_full.csv")
    assert (len(cohort.slides), len(cohort.patients)) == (slides, patients)
    event, time = cohort.outcomes(list(cohort.patients))
    assert event.sum() == events
    assert (time.min(), np.median(time), time.max()) == (shortest, median, longest)
    assert cohort.max_time == longest
    per_patient = [len(patient.slides) for patient in cohort.patients.values()]
    assert (sum(per_patient), max(per_patient)) == (slides, most)
