from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spars.errors import DataError
from spars.game.score_table import ScoreTable, table_key
from spars.game.scorers import CountingScorer, NetworkScorer, StubScorer
from spars.lattice import Lattice

LATTICE = Lattice((20, 18, 13), (8, 6, 5), 4)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(50, 30, LATTICE.grid).astype(np.float32)


@pytest.fixture
def scorer() -> CountingScorer:
    return CountingScorer(StubScorer(20, 50))


def direct(volume: np.ndarray) -> np.ndarray:
    w = LATTICE.window
    scores = [
        StubScorer(20, 50)(volume[None, x : x + w[0], y : y + w[1], z : z + w[2]])[0]
        for x, y, z in LATTICE.all_starts()
    ]
    return np.array(scores, np.float32).reshape(LATTICE.shape)


def test_the_full_table_is_the_direct_path(volume: np.ndarray, scorer: CountingScorer) -> None:
    table = ScoreTable(LATTICE, None, scorer, volume, batch=7)
    np.testing.assert_allclose(table.full(), direct(volume), rtol=1e-6)
    assert scorer.n_windows == table.n_computed == table.n_scored == len(LATTICE)
    table.full()
    assert scorer.n_windows == len(LATTICE)


def test_lookups_compute_what_is_missing_once(volume: np.ndarray, scorer: CountingScorer) -> None:
    table = ScoreTable(LATTICE, None, scorer, volume, batch=2)
    expected = direct(volume).ravel()
    asked = np.array([[5, 0], [5, 7]])
    np.testing.assert_allclose(table.lookup(asked), expected[asked], rtol=1e-6)
    assert table.n_scored == scorer.n_windows == 3
    table.lookup(np.array([0, 1, 5]))
    assert table.n_scored == scorer.n_windows == 4
    assert table.lookup(np.array([], np.int64)).shape == (0,)


def test_starts_are_found_on_the_lattice(volume: np.ndarray, scorer: CountingScorer) -> None:
    table = ScoreTable(LATTICE, None, scorer, volume)
    starts = LATTICE.all_starts().reshape(-1, 1, 3)
    np.testing.assert_allclose(table.at(starts).ravel(), direct(volume).ravel(), rtol=1e-6)
    for wrong in ([1, 2, 0], [99, 2, 0], [-4, 2, 0]):
        with pytest.raises(DataError, match=rf"starts at voxel \[{wrong[0]}, 2, 0\]"):
            table.at(np.array([wrong]))


def test_networks_cut_windows_out_themselves(volume: np.ndarray) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveMaxPool3d(1), nn.Flatten())
    network = NetworkScorer(module, batch=5)
    by_start = ScoreTable(LATTICE, None, network, volume).full()
    by_window = ScoreTable(LATTICE, None, CountingScorer(network), volume).full()
    np.testing.assert_allclose(by_start, by_window, rtol=1e-5)


def test_a_table_on_disk_is_read_again(tmp_path, volume: np.ndarray, scorer: CountingScorer) -> None:
    scores = ScoreTable(LATTICE, None, scorer, volume, cache_dir=tmp_path).full()
    again = ScoreTable(LATTICE, None, scorer, volume, cache_dir=tmp_path)
    np.testing.assert_array_equal(again.full(), scores)
    assert again.n_computed == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_another_volume_scorer_or_window_is_another_table(volume: np.ndarray, scorer: CountingScorer) -> None:
    keys = {
        table_key(LATTICE, scorer, volume),
        table_key(LATTICE, scorer, volume + 1),
        table_key(LATTICE, scorer, volume.astype(np.float64)),
        table_key(LATTICE, StubScorer(20, 51), volume),
        table_key(Lattice(LATTICE.grid, (8, 6, 4), 4), scorer, volume),
        table_key(Lattice(LATTICE.grid, LATTICE.window, 2), scorer, volume),
    }
    assert len(keys) == 6


def test_a_stopped_computation_goes_on(tmp_path, volume: np.ndarray) -> None:
    class Stops(CountingScorer):
        def __call__(self, windows):
            if self.n_windows >= 2 * len(LATTICE) // LATTICE.shape[0]:
                raise KeyboardInterrupt
            return super().__call__(windows)

    stopped = ScoreTable(LATTICE, None, Stops(StubScorer(20, 50)), volume, cache_dir=tmp_path, save_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        stopped.full()
    slab = len(LATTICE) // LATTICE.shape[0]
    resumed = ScoreTable(LATTICE, None, StubScorer(20, 50), volume, cache_dir=tmp_path)
    assert resumed.n_scored == 2 * slab
    np.testing.assert_allclose(resumed.full(), direct(volume), rtol=1e-6)
    assert resumed.n_computed == len(LATTICE) - 2 * slab


def _truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _empty(path) -> None:
    path.write_bytes(b"")


def _outside(path) -> None:
    with np.load(path) as arrays:
        key = arrays["key"]
    np.savez(path, scores=np.full(LATTICE.shape, 2, np.float32), key=key)


def _of_another(path) -> None:
    with np.load(path) as arrays:
        scores = arrays["scores"]
    np.savez(path, scores=scores, key="another")


def _pickled(path) -> None:
    np.savez(path, scores=np.array([object()]), key="x")


@pytest.mark.parametrize("damage", [_truncate, _empty, _outside, _of_another, _pickled])
def test_a_damaged_table_is_computed_anew(
    tmp_path, volume: np.ndarray, scorer: CountingScorer, caplog, damage
) -> None:
    first = ScoreTable(LATTICE, None, scorer, volume, cache_dir=tmp_path)
    first.full()
    assert first.path is not None
    damage(first.path)
    table = ScoreTable(LATTICE, None, scorer, volume, cache_dir=tmp_path)
    assert table.n_scored == 0
    assert first.path.name in caplog.text
    np.testing.assert_allclose(table.full(), direct(volume), rtol=1e-6)
    assert ScoreTable(LATTICE, None, scorer, volume, cache_dir=tmp_path).n_scored == len(LATTICE)


def test_scores_alone_make_a_table() -> None:
    scores = np.random.default_rng(0).random(LATTICE.shape).astype(np.float32)
    table = ScoreTable(LATTICE, scores)
    np.testing.assert_array_equal(table.lookup(np.arange(len(LATTICE))), scores.ravel())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda v: ScoreTable(LATTICE, None, StubScorer(1, 0), v[:-1]), "resample the volume"),
        (lambda v: ScoreTable(LATTICE, np.zeros((1, 2, 3))), "lattice's shape"),
        (lambda v: ScoreTable(LATTICE), "no scorer and volume"),
        (lambda v: ScoreTable(LATTICE, None, StubScorer(1, 0), v * np.nan).full(), "NaN or infinity"),
    ],
)
def test_what_cannot_make_a_table_is_refused(volume: np.ndarray, build, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(volume)
