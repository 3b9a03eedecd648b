"""The model of a cohort against the simulation of its workers, and the protocol against workers that die."""

from __future__ import annotations

import math

import pytest

from medshared import scaling
from medshared.scaling import LEASE_REQUESTS, Storage, Work, forecast, saturation, simulate

STORAGE = Storage(bytes_per_s=1e9, requests_per_s=5000, latency_s=5e-4)
COMPUTING = Work(2000, compute_s=30, read_bytes=6e7, written_bytes=1e7, spread=0.5, startup_s=10)
READING = Work(2000, compute_s=5, read_bytes=4e8, spread=0.3, startup_s=5)
ASKING = Work(20000, compute_s=0.2, read_bytes=1e5, spread=0.3, startup_s=5)


@pytest.mark.parametrize("work", [COMPUTING, READING, ASKING], ids=["computing", "reading", "asking"])
@pytest.mark.parametrize("workers", [1, 8, 64, 1000])
def test_model_and_simulation_agree(work: Work, workers: int) -> None:
    said, seen = forecast(work, STORAGE, workers), simulate(work, STORAGE, workers)
    assert (seen.done == 1).all()
    assert seen.twice_at_once == 0
    assert said.seconds == pytest.approx(seen.seconds, rel=0.2)
    if work.items >= 10 * workers:  # there is a time in which all are at work
        assert said.items_per_s == pytest.approx(seen.items_per_s, rel=0.1)


@pytest.mark.parametrize(
    ("work", "limit", "most"),
    [
        (READING, "bytes", STORAGE.bytes_per_s / READING.read_bytes),
        (ASKING, "requests", STORAGE.requests_per_s / LEASE_REQUESTS),
    ],
)
def test_shared_storage_is_the_end_of_growth(work: Work, limit: str, most: float) -> None:
    rates = [forecast(work, STORAGE, n).items_per_s for n in (1, 2, 4, 8, 1000)]
    assert rates == sorted(rates)
    assert forecast(work, STORAGE, 1000).limit == limit
    assert 0.98 * most <= rates[-1] <= most * 1.001
    assert forecast(work, STORAGE, 1).limit == "workers"
    assert forecast(COMPUTING, STORAGE, 64).efficiency > 0.9


@pytest.mark.parametrize("work", [READING, ASKING], ids=["reading", "asking"])
def test_where_it_saturates(work: Work) -> None:
    """Well below the knee twice the workers do twice the work, well above it no more; the simulation agrees."""
    knee, limit = saturation(work, STORAGE)
    assert limit == forecast(work, STORAGE, 1000).limit
    below, above = max(1, round(knee / 4)), round(3 * knee)
    for rate in (
        lambda n: forecast(work, STORAGE, n).items_per_s,
        lambda n: simulate(work, STORAGE, n).items_per_s,
    ):
        assert rate(2 * below) > 1.75 * rate(below)
        assert rate(2 * above) < 1.05 * rate(above)
    assert saturation(COMPUTING, STORAGE)[0] > 400


def test_a_single_worker_takes_what_the_parts_take() -> None:
    storage, work = Storage(1e8, 100, 0.01), Work(10, 2.0, 1e8, 1e8, startup_s=7)
    seconds = 10 * (2 + 2 + LEASE_REQUESTS * (0.01 + 0.01)) + 7
    assert forecast(work, storage, 1).seconds == pytest.approx(seconds)
    assert simulate(work, storage, 1).seconds == pytest.approx(seconds, rel=1e-6)


def test_more_jobs_than_workers_even_out() -> None:
    """Items of unequal size dealt out once leave workers idle at the end; smaller jobs keep them busy."""
    work = Work(10000, compute_s=100, spread=0.8, startup_s=10)
    once, finer = (simulate(work, STORAGE, 64, shards) for shards in (64, 512))
    assert finer.seconds < 0.97 * once.seconds
    for shards, seen in ((64, once), (512, finer)):
        assert forecast(work, STORAGE, 64, shards).seconds == pytest.approx(seen.seconds, rel=0.1)


def test_workers_that_die() -> None:
    work = Work(20000, compute_s=60, read_bytes=1e6, spread=0.5, startup_s=5)
    seen = simulate(work, STORAGE, 1000, deaths_per_hour=2, stale_s=600, seed=1)
    assert seen.deaths > 100
    assert seen.twice_at_once == 0
    assert seen.done.max() == 1
    assert seen.left == int((seen.done == 0).sum()) <= seen.deaths
    assert seen.lost_s > 0
    calm = simulate(work, STORAGE, 1000, seed=1)
    assert calm.seconds < seen.seconds
    assert simulate(work, STORAGE, 1000, deaths_per_hour=2, stale_s=600, seed=1).seconds == seen.seconds


def test_the_simulation_sees_a_broken_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are taken from living workers: items are in two hands, and the count says so."""
    monkeypatch.setattr(scaling._Cohort, "is_alive", lambda self, lock: False)
    work = Work(200, compute_s=1000, startup_s=0)
    monkeypatch.setattr(scaling._Cohort, "job", _everybody_does_everything)
    seen = simulate(work, STORAGE, 4, stale_s=1)
    assert seen.twice_at_once + int((seen.done > 1).sum()) > 0


def _everybody_does_everything(self, worker, shard):
    for item in range(self.work.items):
        yield from self.do(item, worker)


def test_leases_alone_keep_items_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs over the same items, as when an array is submitted twice: each item is done once."""
    monkeypatch.setattr(scaling._Cohort, "job", _everybody_does_everything)
    seen = simulate(Work(400, compute_s=10, spread=0.5), STORAGE, 1000)
    assert (seen.done == 1).all()
    assert seen.twice_at_once == 0


def test_bad_numbers() -> None:
    for call in (forecast, simulate):
        with pytest.raises(ValueError, match="at least 1, found 0"):
            call(COMPUTING, STORAGE, 0)
    assert math.isinf(scaling._exponential(scaling._Cohort(COMPUTING, STORAGE, 1, 1, 0.0, 1.0, 0)))
