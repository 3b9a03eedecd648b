"""How long a cohort takes on one to a thousand workers, and where more of them stop helping.

Two answers to the same question: a closed queueing network solved exactly (mean value analysis, M. Reiser and
S. Lavenberg, Journal of the ACM 27, 1980), which takes microseconds, and a simulation of workers that lease items from
a shared folder event by event, with items of unequal size, jobs that start, and workers that die.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

# Requests to a file server for an item that is read, made and recorded, counted with strace: files looked up, opened,
# made, renamed and removed, flushed, locked.
LEASE_REQUESTS = 40
SKIP_REQUESTS = 4  # for one that is done already: lock, sidecar, output, input
CHUNK_BYTES = 8e6  # so much at a time a worker reads or writes before others have their turn


@dataclass(frozen=True)
class Work:
    """Work on the items of a cohort.

    Attributes:
        items: Their number.
        compute_s: Seconds a worker decodes and computes for the mean item.
        read_bytes: Read from the shared storage for an item.
        written_bytes: Written to it.
        spread: Standard deviation of the items' size over its mean; sizes are log-normal.
        startup_s: Seconds until a job does its first item: imports, weights, device.
    """

    items: int
    compute_s: float
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    spread: float = 0.0
    startup_s: float = 0.0


@dataclass(frozen=True)
class Storage:
    """File storage that all workers share.

    Attributes:
        bytes_per_s: All workers together.
        requests_per_s: Opened, made, renamed and removed files, all workers together.
        latency_s: A request's time when nobody else asks.
    """

    bytes_per_s: float = 1e9
    requests_per_s: float = 5000.0
    latency_s: float = 5e-4


@dataclass(frozen=True)
class Forecast:
    """What the model says for a number of workers.

    Attributes:
        workers: Their number.
        items_per_s: Throughput while all are at work.
        seconds: For the cohort, with the start of the jobs and the wait for the last of them.
        efficiency: Throughput over that of as many workers without shared storage.
        limit: What holds it back most: ``workers``, ``bytes`` or ``requests``.
    """

    workers: int
    items_per_s: float
    seconds: float
    efficiency: float
    limit: str


def forecast(work: Work, storage: Storage, workers: int, shards: int | None = None) -> Forecast:
    """Return the throughput and duration of a cohort from the model.

    Args:
        work: What is to be done.
        storage: Where the files are.
        workers: Jobs that run at a time, one item at a time each.
        shards: Parts that the items are dealt into, each one job of an array; by default one a worker.

    Raises:
        ValueError: when a number is below 1.
    """
    shards = shards or workers
    if min(workers, shards, work.items) < 1:
        raise ValueError(
            f"workers, shards and items must be at least 1, found {workers}, {shards}, {work.items}"
        )
    demands = _demands(work, storage)
    alone = work.compute_s + LEASE_REQUESTS * storage.latency_s
    waiting = dict.fromkeys(demands, 0.0)
    rate = 0.0
    for n in range(1, workers + 1):
        times = {name: demand * (1 + waiting[name]) for name, demand in demands.items()}
        rate = n / (alone + sum(times.values()))
        waiting = {name: rate * times[name] for name in demands}
    efficiency = rate * alone / workers
    use = {name: rate * demand for name, demand in demands.items()} | {"workers": rate * alone / workers}
    rounds = math.ceil(shards / workers)
    seconds = (
        work.items / rate
        + rounds * work.startup_s
        + _tail(work, workers, shards, alone + sum(demands.values()))
    )
    return Forecast(workers, rate, seconds, efficiency, max(use, key=lambda name: use[name]))


def saturation(work: Work, storage: Storage) -> tuple[float, str]:
    """Return the number of workers from which the shared storage sets the pace, and what of it does.

    It is the knee of the two bounds on the throughput of a closed network: below it n workers do nearly n times as much
    as one, above it more of them change nothing.

    Args:
        work: What is to be done.
        storage: Where the files are.
    """
    demands = _demands(work, storage)
    slowest = max(demands, key=lambda name: demands[name])
    alone = work.compute_s + LEASE_REQUESTS * storage.latency_s
    return (alone + sum(demands.values())) / demands[slowest], slowest


def _demands(work: Work, storage: Storage) -> dict[str, float]:
    """Return the seconds that an item keeps each part of the storage busy."""
    return {
        "bytes": (work.read_bytes + work.written_bytes) / storage.bytes_per_s,
        "requests": LEASE_REQUESTS / storage.requests_per_s,
    }


def _tail(work: Work, workers: int, shards: int, item_s: float) -> float:
    """Return the seconds in which some workers have nothing left to do; the others wait for nobody then.

    The last of W jobs is as long as the largest of W sums of log-normal sizes, which are nearly log-normal themselves
    (L. Fenton, IRE Transactions on Communications Systems 8, 1960); where there are more jobs than workers, they even
    out, and the end comes late by part of a job that has just begun.
    """
    if workers == 1:
        return 0.0
    share = work.items / shards  # items a job
    dealt = _longest(work, workers) - work.items / workers
    if shards <= workers:
        return item_s * max(0.0, dealt)
    rounds = math.ceil(shards / workers) * share - work.items / workers  # jobs cannot be cut
    return item_s * max(0.0, min(rounds + dealt, share / 2 + work.spread * math.sqrt(max(share, 1.0))))


def _longest(work: Work, workers: int) -> float:
    """Return how many mean items the worker with the most has to do, where all are dealt out at the beginning."""
    share = math.ceil(work.items / workers)  # items cannot be cut
    jobs = min(workers, math.ceil(work.items / share))
    variance = math.log1p(work.spread**2 / share)
    largest = (
        NormalDist().inv_cdf(0.5264 ** (1 / jobs)) if jobs > 1 else 0.0
    )  # of so many normal deviates, on average
    return share * math.exp(math.sqrt(variance) * largest - variance / 2)


# ------------------------------------------------------------------ simulation


@dataclass
class Simulated:
    """What a simulation came to.

    Attributes:
        seconds: Until the last job ended.
        items_per_s: Throughput from a tenth to nine tenths of the items done.
        done: Times that each item was finished.
        twice_at_once: Items that two workers held at one time; a protocol that works has none.
        deaths: Workers that were killed.
        lost_s: Seconds of work on items that their worker did not live to finish.
        left: Items that no job of the array finished, because the lease of a dead worker on another machine was not yet
            stale; the collecting job does them.
        use: Busy share of the storage's ``bytes`` and ``requests``.
    """

    seconds: float
    items_per_s: float
    done: np.ndarray
    twice_at_once: int
    deaths: int
    lost_s: float
    left: int
    use: dict[str, float]


class _Server:
    """One thing at a time, first come, first served."""

    def __init__(self) -> None:
        self.free_at = self.busy_s = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when it is done."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy_s += seconds
        return self.free_at


@dataclass
class _Lock:
    worker: int
    life: int
    renewed: float


class _KilledError(Exception):
    """Thrown into a worker that dies."""


class _Cohort:
    """The shared folder and the workers of one simulation."""

    def __init__(
        self,
        work: Work,
        storage: Storage,
        workers: int,
        shards: int,
        deaths_per_hour: float,
        stale_s: float,
        seed: int,
    ) -> None:
        self.work, self.storage, self.stale_s = work, storage, stale_s
        self.rng = np.random.default_rng(seed)
        self.sizes = _sizes(work, self.rng)
        self.queue = deque(range(shards))
        self.shards, self.death_rate = shards, deaths_per_hour / 3600
        self.bytes, self.requests = _Server(), _Server()
        self.locks: dict[int, _Lock] = {}
        self.lives = [0] * workers
        self.done = np.zeros(work.items, np.int64)
        self.finished: list[float] = []
        self.twice = self.deaths = 0
        self.lost_s = self.now = 0.0

    # Each step of a worker yields the moment at which it goes on.

    def ask(self, count: int) -> Generator[float]:
        """Requests one after the other."""
        served = self.requests.serve(self.now, count / self.storage.requests_per_s)
        yield served + count * self.storage.latency_s

    def move(self, n_bytes: float) -> Generator[float]:
        while n_bytes > 0:
            yield self.bytes.serve(self.now, min(n_bytes, CHUNK_BYTES) / self.storage.bytes_per_s)
            n_bytes -= CHUNK_BYTES

    def is_alive(self, lock: _Lock) -> bool:
        return self.lives[lock.worker] == lock.life

    def take(self, item: int, worker: int) -> Generator[float, None, bool]:
        """The lock of an item: made where there is none, taken over where its owner is dead and it shows."""
        yield from self.ask(4)
        lock = self.locks.get(item)
        if lock is not None:
            same_machine = lock.worker == worker
            stale = not self.is_alive(lock) and (same_machine or self.now - lock.renewed > self.stale_s)
            if not stale:
                return False
        self.locks[item] = _Lock(worker, self.lives[worker], self.now)
        return True

    def do(self, item: int, worker: int) -> Generator[float, None, bool]:
        yield from self.ask(SKIP_REQUESTS)
        if self.done[item]:
            return True
        if not (yield from self.take(item, worker)):
            return False
        started = self.now
        try:
            yield from self.ask(SKIP_REQUESTS)
            if self.done[item]:  # by another worker, between the first look and the lock
                self.locks.pop(item, None)
                return True
            size = self.sizes[item]
            yield from self.ask(4)
            yield from self.move(self.work.read_bytes * size)
            yield self.now + self.work.compute_s * size
            yield from self.move(self.work.written_bytes * size)
            yield from self.ask(LEASE_REQUESTS - 2 * SKIP_REQUESTS - 8)
            owner = self.locks.get(item)
            # Another owner by now would mean that both did the item.
            self.twice += owner is None or (owner.worker, owner.life) != (worker, self.lives[worker])
            self.done[item] += 1
            self.finished.append(self.now)
            self.locks.pop(item, None)
        except _KilledError:
            self.lost_s += self.now - started
            if item in self.locks:
                self.locks[item].renewed = self.now
            raise
        return True

    def job(self, worker: int, shard: int) -> Generator[float]:
        """One job of the array; what another worker holds is tried once more at the end."""
        yield self.now + self.work.startup_s
        held: list[int] = []
        for item in range(shard, self.work.items, self.shards):
            if not (yield from self.do(item, worker)):
                held.append(item)
        for item in held:
            yield from self.do(item, worker)

    def worker(self, worker: int) -> Generator[float]:
        while self.queue:
            shard = self.queue.popleft()
            try:
                yield from self.job(worker, shard)
            except _KilledError:
                # The array task is queued again and may be started on any machine.
                self.deaths += 1
                self.lives[worker] += 1
                self.queue.append(shard)


def _sizes(work: Work, rng: np.random.Generator) -> np.ndarray:
    if work.spread <= 0:
        return np.ones(work.items)
    variance = math.log1p(work.spread**2)
    return rng.lognormal(-variance / 2, math.sqrt(variance), work.items)


def simulate(
    work: Work,
    storage: Storage,
    workers: int,
    shards: int | None = None,
    *,
    deaths_per_hour: float = 0.0,
    stale_s: float = 600.0,
    seed: int = 0,
) -> Simulated:
    """Simulate jobs of an array that lease items from a shared folder, event by event.

    Args:
        work: What is to be done.
        storage: Where the files are.
        workers: Jobs that run at a time.
        shards: Jobs of the array; by default one a worker.
        deaths_per_hour: Kills of each worker; its job is queued again.
        stale_s: Seconds without a sign of life after which another machine takes a lease over.
        seed: Of sizes and deaths.

    Raises:
        ValueError: when a number is below 1.
    """
    shards = shards or workers
    if min(workers, shards, work.items) < 1:
        raise ValueError(
            f"workers, shards and items must be at least 1, found {workers}, {shards}, {work.items}"
        )
    cohort = _Cohort(work, storage, workers, shards, deaths_per_hour, stale_s, seed)
    running = {w: cohort.worker(w) for w in range(workers)}
    events = [(0.0, w) for w in range(workers)]  # each worker has one to come
    dies_at = [_exponential(cohort) for _ in range(workers)]
    end = 0.0
    while events:
        cohort.now, worker = heapq.heappop(events)
        try:
            if cohort.now >= dies_at[worker]:
                cohort.now = dies_at[worker]
                dies_at[worker] += _exponential(cohort)
                at = running[worker].throw(_KilledError)
            else:
                at = next(running[worker])
        except StopIteration:
            end = max(end, cohort.now)
            if cohort.queue:  # a job that was queued again finds this worker
                running[worker] = cohort.worker(worker)
                heapq.heappush(events, (cohort.now, worker))
            continue
        # A worker that dies before its step is over is told at that moment.
        heapq.heappush(events, (min(at, max(dies_at[worker], cohort.now)), worker))
    times = np.sort(cohort.finished)
    low, high = len(times) // 10, len(times) * 9 // 10
    steady = (
        (high - low) / (times[high] - times[low]) if high > low and times[high] > times[low] else math.nan
    )
    use = {
        name: float(server.busy_s / end)
        for name, server in (("bytes", cohort.bytes), ("requests", cohort.requests))
    }
    left = int((cohort.done == 0).sum())
    return Simulated(end, float(steady), cohort.done, cohort.twice, cohort.deaths, cohort.lost_s, left, use)


def _exponential(cohort: _Cohort) -> float:
    return float(cohort.rng.exponential(1 / cohort.death_rate)) if cohort.death_rate else math.inf
