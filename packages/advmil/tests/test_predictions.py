"""Predictions beside what is known of the patients: units, round trip, joining."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from advmil.predictions import Predictions, from_arrays, join_predictions


def continuous(patients=("a", "b", "c"), draws: int | None = 4, unit: float = 100.0) -> Predictions:
    rng = np.random.default_rng(len(patients))
    n = len(patients)
    return Predictions(
        kind="continuous",
        patients=tuple(patients),
        t=rng.random(n).astype(np.float32),
        e=np.arange(n) % 2,
        days=rng.random(n) * 100,
        point=rng.random(n).astype(np.float32),
        unit_days=unit,
        end_time=1.0,
        samples=None if draws is None else rng.random((n, draws)).astype(np.float32),
        fake_scores=rng.random(n).astype(np.float32),
    )


def discrete(patients=("a", "b"), edges=(0.0, 10.0, 20.0)) -> Predictions:
    hazards = np.array([[0.5, 0.5], [0.1, 0.2]], dtype=np.float32)[: len(patients)]
    survival = np.cumprod(1 - hazards, axis=1)
    n = len(patients)
    return Predictions(
        kind="discrete",
        patients=tuple(patients),
        t=np.zeros(n, np.float32),
        e=np.ones(n, np.int64),
        days=np.full(n, 5.0),
        point=survival.sum(axis=1),
        unit_days=float("nan"),
        end_time=1.0,
        hazards=hazards,
        edges=np.array(edges),
    )


@pytest.mark.parametrize("predictions", [continuous(), continuous(draws=None), discrete()])
def test_round_trip_through_a_file(predictions):
    buffer = io.BytesIO()
    np.savez(buffer, **predictions.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        found = from_arrays(dict(file))
    for name, value in vars(predictions).items():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert np.array_equal(other, value)
            assert other.dtype == value.dtype
        elif name == "unit_days":
            assert np.isclose(other, value, equal_nan=True)
        else:
            assert other == value, name


def test_risk_is_high_where_the_time_or_the_survival_is_short():
    assert continuous().risk == pytest.approx(-continuous().point)
    assert discrete().risk[0] > discrete().risk[1]
    cox = replace(continuous(), kind="cox")
    assert cox.risk == pytest.approx(cox.point)
    assert cox.point_days is None
    assert cox.samples_days is None


def test_survival_is_the_product_of_surviving_each_bin():
    assert discrete().survival == pytest.approx(np.array([[0.5, 0.25], [0.9, 0.72]]))
    with pytest.raises(ValueError, match="a continuous model has no survival"):
        _ = continuous().survival


def test_the_table_is_in_days():
    table = continuous().table(level=0.5)
    assert table["predicted_days"].to_numpy() == pytest.approx(continuous().point * 100.0)
    low, high = np.quantile(continuous().samples * 100.0, [0.25, 0.75], axis=1)
    assert table["predicted_days_low"].to_numpy() == pytest.approx(low)
    assert table["predicted_days_high"].to_numpy() == pytest.approx(high)
    assert list(discrete().table()) == ["patient_id", "event", "days", "risk"]


def test_joining_keeps_every_patient():
    parts = continuous(("a", "b", "c")), continuous(("d", "e"))
    joined = join_predictions(parts)
    assert joined.patients == ("a", "b", "c", "d", "e")
    assert np.array_equal(joined.samples, np.concatenate([part.samples for part in parts]))
    assert len(joined) == 5


def test_draws_are_left_out_where_a_part_has_none_of_a_value():
    joined = join_predictions([continuous(), replace(continuous(("d", "e")), fake_scores=None)])
    assert joined.fake_scores is None


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "nothing to join"),
        ([continuous(), continuous(("c", "d"))], "the sets share patients"),
        ([continuous(), continuous(("d",), unit=50.0)], "different units"),
        ([continuous(), replace(continuous(("d",)), kind="cox")], "models of different kinds"),
        ([continuous(), continuous(("d",), draws=5)], r"different numbers of draws a patient: \['4', '5'\]"),
        ([continuous(), continuous(("d",), draws=None)], "different numbers of draws"),
        ([discrete(("a",)), discrete(("b",), edges=(0.0, 11.0, 20.0))], "different time bins"),
    ],
)
def test_what_cannot_be_joined(parts, message):
    with pytest.raises(ValueError, match=message):
        join_predictions(parts)
