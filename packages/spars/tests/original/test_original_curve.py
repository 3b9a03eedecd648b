from __future__ import annotations

import math

import pytest

from spars.original.curve import CURVE_COLUMNS, summarise, write_curve


def test_undefined_values_are_empty_cells(tmp_path) -> None:
    row = dict.fromkeys(CURVE_COLUMNS, 1) | {"dice": math.nan, "mean_episode_length": None}
    write_curve(tmp_path / "curve.csv", [row])
    assert (tmp_path / "curve.csv").read_text() == ",".join(CURVE_COLUMNS) + "\n1,1,1,1,1,,1,\n"


def test_an_empty_run_has_no_means() -> None:
    assert summarise([])["dice_mean"] is None
    assert summarise([])["env_steps"] == 0


def test_undefined_dice_does_not_enter_the_mean() -> None:
    curve = [
        {"env_steps": 32, "dice": float("nan"), "last_reward": 1},
        {"env_steps": 64, "dice": 0.5, "last_reward": -1},
        {"env_steps": 96, "dice": None, "last_reward": 1},
    ]
    found = summarise(curve)  # type: ignore[arg-type]
    assert (found["dice_mean"], found["dice_sd_population"], found["dice_last"]) == (0.5, 0.0, 0.5)
    assert found["reward_mean"] == pytest.approx(1 / 3)
