"""Overlapping fields are found with their shift."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from infection_mt.config import Config, DataConfig, SplitConfig
from infection_mt.data import overlap
from infection_mt.data.overlap import (
    find_overlaps,
    measure_overlap,
    read_frame,
)
from infection_mt.data.splits import SIDES, make_split
from infection_mt.data.stacks import load_stacks
from infection_mt.synthetic import SyntheticParams, generate

RNG = np.random.default_rng(11)
SMALL_CELLS = SyntheticParams(
    5, n_pages=2, size=128, n_cells=600, cell_scale=0.3, variant="overlap", overlap_fraction=0.05
)


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """Five neighbouring fields of each of two wells that share 5 % of their width."""
    data = generate(tmp_path_factory.mktemp("overlap"), SMALL_CELLS)
    config = DataConfig(
        infected_dir=data.infected_dir,
        uninfected_dir=data.uninfected_dir,
        split_ratios=(0.5, 0.25, 0.25),
        split_seed=1,
    )
    return config, load_stacks(config)


def test_neighbours_are_found_with_shift_and_area(overlapping):
    _, stacks = overlapping
    pairs = find_overlaps(stacks)
    assert {(p.a, p.b) for p in pairs} == {(i, i + 1) for i in (0, 1, 2, 3, 5, 6, 7, 8)}
    pitch = round(128 * 0.95)
    for pair in pairs:
        assert (pair.overlap.dy, pair.overlap.dx) == (0, pitch)
        assert pair.overlap.area == pytest.approx(1 - pitch / 128)
        assert pair.overlap.correlation > 0.8


def test_separate_fields_do_not_overlap(tmp_path):
    data = generate(tmp_path, SyntheticParams(5, n_pages=2, size=96, n_cells=400, cell_scale=0.3))
    config = DataConfig(infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir)
    assert find_overlaps(load_stacks(config)) == []


@pytest.mark.parametrize("seed", [2, 4, 9])
def test_few_bright_cells_on_others_are_no_overlap(tmp_path, seed):
    """The best of thousands of shifts puts some cells onto others; without `min_support` these seeds gave pairs."""
    data = generate(tmp_path, SyntheticParams(seed=seed, n_pages=1))
    stacks = load_stacks(DataConfig(infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir))
    assert find_overlaps(stacks) == []
    assert find_overlaps(stacks, min_support=0.0) != []


def test_results_are_remembered_on_disk_until_a_file_changes(overlapping, tmp_path, monkeypatch):
    _, stacks = overlapping
    first = find_overlaps(stacks, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    read = []
    monkeypatch.setattr(
        overlap, "read_frame", lambda stack, frame: read.append(stack.path) or read_frame(stack, frame)
    )
    for change, reads in (("none", 0), ("{", 10), ('{"pairs": [{"a": 7}]}', 10), ("order", 10)):
        overlap._find_overlaps.cache_clear()
        if change not in ("none", "order"):
            file.write_text(change)
        asked = stacks[::-1] if change == "order" else stacks
        assert len(find_overlaps(asked, cache_dir=tmp_path)) == len(first) == 8
        assert len(read) == reads, change
        read.clear()
    os.utime(stacks[0].path, ns=(1, 1))
    assert find_overlaps(stacks, cache_dir=tmp_path) == first
    assert len(read) == 10


def _texture(height, width):
    return gaussian_filter(RNG.normal(size=(height, width)), 2)


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_any_shift_is_recovered(dy, dx):
    world = _texture(240, 240)
    a = world[70:170, 70:170]
    b = world[70 + dy : 170 + dy, 70 + dx : 170 + dx]
    noisy = [(1000 * w + 50 * RNG.normal(size=w.shape)).astype(np.float32) for w in (a, 3 * b + 7)]
    found = measure_overlap(*noisy)
    assert found.overlapping
    assert (found.dy, found.dx) == (dy, dx)
    assert found.area == pytest.approx((100 - abs(dy)) * (100 - abs(dx)) / 100**2)


def test_illumination_alone_is_no_overlap():
    ramp = np.linspace(0, 20, 96)[None, :] + np.zeros((96, 1))
    a, b = (ramp + _texture(96, 96) for _ in range(2))
    assert not measure_overlap(a, b).overlapping
    assert not measure_overlap(np.ones((40, 40)), np.ones((40, 40))).overlapping
    with pytest.raises(ValueError, match="one size"):
        measure_overlap(a, b[:50])


def test_shrinking_keeps_the_shift_in_page_pixels():
    world = gaussian_filter(RNG.normal(size=(300, 520)), 8)
    found = measure_overlap(world[:, :300], world[:, 220:], max_side=100)
    assert found.overlapping
    assert abs(found.dx - 220) <= 3
    assert abs(found.dy) <= 3


def test_splits_report_or_keep_together(overlapping):
    data, stacks = overlapping
    warned = make_split(stacks, Config(data=data, split=SplitConfig(overlap="warn")))
    assert any("pairs of overlapping neighbours are divided" in text for text in warned.warnings)
    # Five fields in a row hang together by their overlaps: each well is one group, which cannot fill three sides.
    with pytest.raises(ValueError, match="side has no stack"):
        make_split(stacks, Config(data=data, split=SplitConfig(overlap="group")))
    every_second = [s for s in stacks if int(s.position) % 2 or s.position == "2"]
    apart = make_split(every_second, Config(data=data, split=SplitConfig(overlap="off")))
    assert not any("overlapping" in text for text in apart.warnings)
    assert sum(len(apart[side]) for side in SIDES) == len(every_second)


def test_pages_that_cannot_be_compared_are_left_out(tmp_path, caplog):
    data = generate(tmp_path, SyntheticParams(3, n_pages=1, size=16, variant="nan"))
    config = DataConfig(infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir)
    assert find_overlaps(load_stacks(config)) == []
    assert data.faulty[0].name in caplog.text
