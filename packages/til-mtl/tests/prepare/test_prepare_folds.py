"""Folds: by patient, alike in sources and in kinds of annotations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from til_mtl.data.tiger import patient_of, source_of
from til_mtl.errors import DataError
from til_mtl.prepare.folds import assign_folds


def cohort(tcga=23, rumc=7, jb=5):
    slides = {}
    for k in range(tcga):
        slides[f"TCGA-A1-{k:04d}-01Z-00-DX1.A"] = {"segmentation"} if k % 3 else {"segmentation", "detection"}
        if k % 4 == 0:
            slides[f"TCGA-A1-{k:04d}-01Z-00-DX2.B"] = {"segmentation"}
    slides |= {f"TC_S01_P{k:06d}_C0001_B10{k}": {"detection"} for k in range(rumc)}
    return slides | {f"{100 + k}{side}": {"detection"} for k in range(jb) for side in "SB"}


@settings(max_examples=40, deadline=None)
@given(folds=st.integers(2, 6), seed=st.integers(0, 99), test=st.sampled_from([0.0, 0.2, 0.4]))
def test_patients_stay_together_and_sources_are_spread(folds, seed, test):
    slides = cohort()
    dealt = assign_folds(slides, folds, seed, test)
    assert set(dealt) == set(slides)
    by_patient = {}
    for slide, fold in dealt.items():
        assert by_patient.setdefault(patient_of(slide), fold) == fold
    for source in ("TCGA", "RUMC", "JB"):
        mine = [
            fold
            for patient, fold in by_patient.items()
            if source_of(next(s for s in slides if patient_of(s) == patient)) == source
        ]
        counts = np.bincount(mine, minlength=folds + 1)
        assert counts[0] == round(test * len(mine))
        assert np.ptp(counts[1:]) <= 1
    totals = np.bincount(list(by_patient.values()), minlength=folds + 1)[1:]
    assert np.ptp(totals) <= 1
    assert assign_folds(slides, folds, seed, test) == dealt


def test_kinds_of_annotations_are_spread():
    slides = cohort(tcga=24, rumc=0, jb=0)
    dealt = assign_folds(slides, 4, 0)
    both = [fold for slide, fold in dealt.items() if "detection" in slides[slide]]
    assert np.ptp(np.bincount(both, minlength=5)[1:]) <= 1


def test_seeds_differ_and_slides_do_not_depend_on_their_order():
    slides = cohort()
    assert assign_folds(slides, 5, 1) != assign_folds(slides, 5, 2)
    assert assign_folds(dict(reversed(slides.items())), 5, 1) == assign_folds(slides, 5, 1)


@pytest.mark.parametrize(
    ("folds", "text"), [(1, "at least 2 are needed"), (9, "there are only 3 patients to deal")]
)
def test_impossible_folds_are_refused(folds, text):
    with pytest.raises(DataError, match=text):
        assign_folds(cohort(3, 0, 0), folds)
