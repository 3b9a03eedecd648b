"""No patient is ever on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.data.records import Record
from aespa.data.splitting import split_by_patient
from aespa.errors import DataError
from aespa.synthetic import draw_arrays


def records(patients):
    return [Record(str(i), str(p), Path(), (), ()) for i, p in enumerate(patients)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda p: len(set(p)) > 1),
    st.floats(0.01, 0.49),
    st.integers(0, 99),
)
def test_patients_stay_together_and_nothing_is_lost(patients, fraction, seed):
    items = records(patients)
    kept, held = split_by_patient(items, fraction, seed)
    assert kept
    assert held
    assert not {r.patient for r in kept} & {r.patient for r in held}
    assert sorted(kept + held, key=lambda r: int(r.name)) == items
    share = len({r.patient for r in held}) / len(set(patients))
    assert abs(share - fraction) <= max(0.5, 1 - fraction * len(set(patients))) / len(set(patients)) + 1e-9
    # The order of the images does not matter, only who the patients are.
    again, _ = split_by_patient(items[::-1], fraction, seed)
    assert {r.patient for r in again} == {r.patient for r in kept}


def test_arrays_split_like_records():
    arrays = draw_arrays(10, 16, 0)
    kept, held = split_by_patient(arrays, 0.4, seed=3)
    assert (len(kept), len(held)) == (6, 4)
    assert not set(kept.patients) & set(held.patients)
    _, same = split_by_patient(arrays, 0.4, seed=3)
    assert same.names == held.names
    assert {split_by_patient(arrays, 0.4, seed=s)[1].names for s in range(10)} != {held.names}
    everything, nothing = split_by_patient(arrays, 0, seed=3)
    assert (len(everything), len(nothing)) == (10, 0)


def test_impossible_shares_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        split_by_patient(records([1, 2]), 1.0, 0)
    with pytest.raises(DataError, match="of 1 patients leaves none to train on"):
        split_by_patient(records([1, 1]), 0.2, 0)
