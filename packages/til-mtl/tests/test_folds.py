"""Mean and standard deviation over folds."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from til_mtl.config import Config
from til_mtl.folds import fold_config, write_fold_summary


def result(**metrics):
    return {"metrics": {"val": metrics}}


def test_rows_and_means(tmp_path):
    results = {1: result(froc=0.25, dice_mean=0.5), 2: result(froc=0.75, dice_mean=0.5)}
    results[1]["metrics"]["test"] = {"froc": 0.125}
    summary = write_fold_summary(tmp_path, results)
    assert summary["val"]["froc"]["mean"] == 0.5
    assert summary["val"]["froc"]["std"] == 0.25
    assert summary["val"]["dice_mean"]["std"] == 0
    assert summary["test"]["froc"]["values"] == [0.125]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    table = pd.read_csv(tmp_path / "folds.csv")
    assert table[["fold", "set"]].to_numpy().tolist() == [[1, "val"], [1, "test"], [2, "val"]]


@pytest.mark.parametrize("absent", [None, math.nan, "missing"])
def test_a_fold_without_a_value_is_left_out_of_its_mean(absent, tmp_path):
    """Null is what results.json makes of NaN; a fold whose patches have no cells has no FROC at all."""
    first = result(dice_mean=0.5) if absent == "missing" else result(dice_mean=0.5, froc=absent)
    summary = write_fold_summary(tmp_path, {1: first, 2: result(dice_mean=0.7, froc=0.25)})
    assert summary["val"]["froc"]["mean"] == 0.25
    assert summary["val"]["dice_mean"]["mean"] == pytest.approx(0.6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_against_numpy(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("folds")
    summary = write_fold_summary(folder, {k: result(froc=value) for k, value in enumerate(values, 1)})
    assert summary["val"]["froc"]["mean"] == pytest.approx(np.mean(values))
    assert summary["val"]["froc"]["std"] == pytest.approx(np.std(values), abs=1e-12)


@pytest.mark.parametrize(
    ("task", "folders"),
    [("mtl", ("fold2", "fold2")), ("seg", ("fold2", None)), ("det", (None, "fold2"))],
)
def test_a_fold_sets_the_folders_of_the_tasks_that_are_trained(task, folders):
    found = fold_config(Config(task=task), 2)
    assert (found.fold_seg, found.fold_det) == folders
