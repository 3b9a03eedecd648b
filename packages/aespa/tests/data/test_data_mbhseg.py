"""Slices of head CT: every rater keeps a column, every class can be the object."""

from __future__ import annotations

from aespa.config import Config
from aespa.data.arrays import load_arrays
from aespa.data.records import find_records
from aespa.prepare.mbhseg import process_mbhseg
from aespa.synthetic import write_mbhseg


def test_mbhseg_lists_slices_by_case_and_one_record_a_class(tmp_path):
    assert process_mbhseg(write_mbhseg(tmp_path / "raw", 2, 0, seed=0), tmp_path) == 0
    settings = Config(dataset="MBHSeg-Binary", data_path=tmp_path / "MBHSeg-Binary")
    records = find_records(settings, "train")
    assert [record.name for record in records[:2]] == ["ID_train000/slice_1", "ID_train000/slice_2"]
    assert [path and path.name for path in records[-1].raters] == [f"slice_6_r{r}.npy" for r in (1, 2, 3)] + [
        None
    ]
    assert records[-1].files == (records[-1].image, *records[-1].raters[:3])
    settings = Config(dataset="MBHSeg-Multiclass", data_path=tmp_path / "MBHSeg-Multi")
    every = find_records(settings, "train")
    assert len(every) == 5 * len(records)
    assert [record.target_class for record in every[:6]] == [1, 2, 3, 4, 5, 1]
    assert len({record.name for record in every}) == len(every)
    only = find_records(settings.model_copy(update={"target_class": 3}), "train")
    assert {record.target_class for record in only} == {3}
    assert [record.image for record in only] == [record.image for record in every[::5]]


def test_missing_raters_keep_their_column(tmp_path):
    assert process_mbhseg(write_mbhseg(tmp_path / "raw", 4, 0, seed=1), tmp_path) == 0
    arrays = load_arrays(
        Config(dataset="MBHSeg-Binary", data_path=tmp_path / "MBHSeg-Binary", image_size=32), "train"
    )
    assert arrays.rater_ids == ("1", "2", "3", "4")
    by_case = {
        patient: arrays.present[arrays.patients.index(patient)].tolist() for patient in arrays.patients
    }
    assert by_case["ID_train000"] == [True, True, True, True]
    assert by_case["ID_train001"] == [True, True, True, False]
    assert by_case["ID_train003"] == [True, False, True, False]
    assert not arrays.masks[~arrays.present].any()
    assert not arrays.valid[~arrays.present].any()
    assert (arrays.valid <= arrays.present).all()
