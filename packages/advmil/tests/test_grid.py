"""Grids of runs."""

from __future__ import annotations

import logging

import pytest

from advmil.grid import expand_grid
from medshared.configuration import ConfigError


def test_order_is_the_original_one(golden_json):
    mapping = {"data_split_seed": [0, 1, 2], "gen_noi_noise": ["0-1", "1-1"], "seed": 42}
    runs = expand_grid(mapping, multi_run=True)
    keys = ("data_split_seed", "gen_noi_noise", "seed")
    assert [{key: run.config[key] for key in keys} for run in runs] == golden_json("utilities")["grid"]


def test_third_axis_varies_slowest_and_the_second_fastest():
    runs = expand_grid({"a": [0, 1], "b": [0, 1], "c": [0, 1]}, multi_run=True)
    assert [(r.point["c"], r.point["a"], r.point["b"]) for r in runs] == sorted(
        (r.point["c"], r.point["a"], r.point["b"]) for r in runs
    )
    assert list(runs[0].point) == ["a", "b", "c"]


def test_save_path_names_every_axis_in_file_order():
    mapping = {"save_path": "out/x", "b": [1], "a": ["p", "q"], "c": [True]}
    assert [run.config["save_path"] for run in expand_grid(mapping, multi_run=True)] == [
        "out/x-b_1-a_p-c_True",
        "out/x-b_1-a_q-c_True",
    ]


def test_no_axis_is_one_run_under_its_own_name():
    (run,) = expand_grid({"save_path": "out/x", "seed": 1}, multi_run=True)
    assert run.config == {"save_path": "out/x", "seed": 1}
    assert run.point == {}


def test_without_multi_run_the_first_value_is_used_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        (run,) = expand_grid(
            {"save_path": "out/x", "data_split_seed": [3, 4]}, multi_run=False, label="c.yaml"
        )
    assert run.config == {"save_path": "out/x", "data_split_seed": 3}
    assert "c.yaml: key 'data_split_seed' holds 2 values; only the first, 3, is used" in caplog.text


@pytest.mark.parametrize("multi_run", [True, False])
def test_grid_of_no_run_is_an_error(multi_run):
    with pytest.raises(ConfigError, match="'seed': the list is empty, so the grid has no run"):
        expand_grid({"seed": []}, multi_run=multi_run)
