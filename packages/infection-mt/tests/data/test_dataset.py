"""The frame store, the sample contract and the order of an epoch."""

import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from infection_mt.config import DataConfig, TransformsConfig
from infection_mt.data import frame_cache
from infection_mt.data.dataset import EpochSampler, FrameDataset, FrameStore, sampler_weights
from infection_mt.data.frames import page_to_image, prepare_image
from infection_mt.data.policy import FramePolicy
from infection_mt.data.stacks import load_stacks
from infection_mt.data.table import build_table
from infection_mt.synthetic import SyntheticParams, generate
from medshared.images import StackError

ALL = FramePolicy(infected_window_hours=None, uninfected_window_hours=None)
SMALL = TransformsConfig(image_size=16)


@pytest.fixture
def stored(stack_files, tmp_path):
    """(stacks, table, store factory) over three small stacks."""
    data = stack_files(
        {"w_s5_b2_p1_.tif": (6, 30, 22), "w_s5_b2_p2_.tif": (4, 30, 22)},
        {"w_s5_c4_p1_.tif": (5, 24, 24)},
        transforms=SMALL,
    )
    stacks = load_stacks(data)
    table = build_table(stacks, ALL, pre_onset="keep")

    def store(**keys):
        return FrameStore(stacks, data.model_copy(update=keys), tmp_path / "cache", num_workers=0)

    return stacks, table, store


def _expected(stacks, table, rows, transforms=SMALL):
    return np.stack(
        [
            prepare_image(
                page_to_image(
                    tifffile.imread(stacks[table.stack_index[i]].path, key=int(table.frame_index[i]))
                ),
                transforms,
            )[:, :, 0]
            for i in rows
        ]
    )


@pytest.mark.parametrize("cache", ["disk", "memory", "off"])
def test_batches_are_gray_and_equal_in_every_mode(stored, cache):
    stacks, table, store = stored
    rows = [14, 0, 7, 7, 3]
    batch = store(cache=cache).batch(table, rows)
    assert batch.shape == (5, 1, 16, 16)
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch[:, 0].numpy(), _expected(stacks, table, rows))
    assert store(cache=cache).batch(table, []).shape == (0, 1, 16, 16)


@pytest.mark.parametrize("cache", ["disk", "off"])
def test_channels_from_other_hours(stored, cache):
    stacks, table, store = stored
    offset = store(cache=cache, channel_offsets_hours=(-1.0, -0.5, 0.0))
    rows = np.arange(len(table))
    batch = offset.batch(table, rows).numpy()
    assert batch.shape == (15, 3, 16, 16)
    plain = _expected(stacks, table, rows)
    for channel, shift in enumerate((-2, -1, 0)):
        source = np.maximum(table.frame_index + shift, 0) + np.array([0, 6, 10])[table.stack_index]
        np.testing.assert_array_equal(batch[:, channel], plain[source])


def test_colours_give_three_channels(tmp_path):
    for folder, shape, kind in (("i", (3, 20, 20, 3), "rgb"), ("u", (3, 20, 20), "minisblack")):
        (tmp_path / folder).mkdir()
        pages = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        tifffile.imwrite(
            tmp_path / folder / f"x_s5_{folder and 'b'}2_p1_{kind}_.tif", pages, photometric=kind
        )
    data = DataConfig(
        infected_dir=tmp_path / "i", uninfected_dir=tmp_path / "u", transforms=SMALL, cache="memory"
    )
    (tmp_path / "u" / "x_s5_b2_p1_minisblack_.tif").rename(tmp_path / "u" / "x_s5_c4_p1_.tif")
    stacks = load_stacks(data)
    table = build_table(stacks, ALL, pre_onset="keep")
    batches = [
        FrameStore(stacks, data.model_copy(update={"cache": c})).batch(table, [0, 3])
        for c in ("memory", "off")
    ]
    assert batches[0].shape == (2, 3, 16, 16)
    assert torch.equal(*batches)
    assert not torch.equal(batches[0][0, 0], batches[0][0, 1])
    assert torch.equal(batches[0][1, 0], batches[0][1, 2])
    shifted = FrameStore(stacks, data.model_copy(update={"channel_offsets_hours": (-1, 0, 1)}))
    with pytest.raises(ValueError, match="needs gray stacks"):
        shifted.batch(table, [0])


def test_prepared_frames_are_read_again_only_when_something_changed(stored, monkeypatch):
    _, table, store = stored
    store().batch(table, [0])
    opened: list[str] = []
    real = frame_cache.StackReader
    monkeypatch.setattr(frame_cache, "StackReader", lambda path: opened.append(path.name) or real(path))
    store().batch(table, range(15))
    assert opened == []
    for change in (
        {"crop_border_pixels": 2},
        {"image_size": 12},
        {"intensity": "percentile"},
        {"crop_border_fraction": 0.1},
    ):
        store(transforms=SMALL.model_copy(update=change)).batch(table, [0])
        assert len(opened) == 3
        opened.clear()
    store(transforms=SMALL.model_copy(update={"random_flip": False})).batch(table, [0])
    assert opened == []
    path = table.stacks[1].path
    tifffile.imwrite(path, np.zeros((4, 30, 22), np.uint16), photometric="minisblack")
    assert store().batch(table, [7]).max() == 0
    assert opened == [path.name]


def test_a_batch_decodes_only_its_pages(stored, monkeypatch):
    _, table, store = stored
    off = store(cache="off")
    asked: list[tuple[str, int]] = []
    real = off._pool.page
    monkeypatch.setattr(off._pool, "page", lambda path, i: asked.append((path.name, i)) or real(path, i))
    off.batch(table, [2, 12])
    assert asked == [("w_s5_b2_p1_.tif", 2), ("w_s5_c4_p1_.tif", 2)]


def test_a_batch_copies_only_its_frames(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "u").mkdir()
    for path in (tmp_path / "i" / "x_s5_b2_p1_.tif", tmp_path / "u" / "x_s5_c4_p1_.tif"):
        tifffile.imwrite(path, np.random.default_rng(0).integers(0, 9, (40, 8, 8)).astype(np.uint8))
    transforms = TransformsConfig(image_size=64)
    data = DataConfig(infected_dir=tmp_path / "i", uninfected_dir=tmp_path / "u", transforms=transforms)
    stacks = load_stacks(data)
    table = build_table(stacks, ALL, pre_onset="keep")
    store = FrameStore(stacks, data, tmp_path / "cache")
    store.prepare()
    assert all(isinstance(prepared.frames, np.memmap) for prepared in store._frames.values())
    tracemalloc.start()
    store.batch(table, [3, 50])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 64 * 64 * 2 + 20_000 < 40 * 64 * 64


def test_pages_beyond_a_stack_are_clamped(stored):
    stacks, table, store = stored
    beyond = replace(table, frame_index=table.frame_index + 100)
    for cache in ("disk", "off"):
        batch = store(cache=cache).batch(beyond, [0])
        assert torch.equal(batch, store(cache=cache).batch(table, [5]))
    np.testing.assert_array_equal(store().page(stacks[0], 99), tifffile.imread(stacks[0].path, key=5))
    np.testing.assert_array_equal(store().page(stacks[0], -1), tifffile.imread(stacks[0].path, key=0))


@pytest.mark.parametrize("cache", ["disk", "memory", "off"])
def test_bad_pages_are_named(tmp_path, cache):
    data = generate(tmp_path / "nan", SyntheticParams(2, n_pages=4, size=16, variant="nan"))
    config = DataConfig(
        infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir, transforms=SMALL, cache=cache
    )
    stacks = load_stacks(config)
    table = build_table(stacks, ALL, pre_onset="keep")
    store = FrameStore(stacks, config, tmp_path / "cache", num_workers=0)
    bad = table.subset(table.stack_index == [s.path for s in stacks].index(data.faulty[0]))
    with pytest.raises(StackError, match=rf"{data.faulty[0].name}: page 2: 2 of 256 pixels are not finite"):
        store.batch(bad, [2])


def test_a_truncated_stack_is_named_before_anything_is_decoded(tmp_path):
    data = generate(tmp_path, SyntheticParams(2, n_pages=4, size=16, variant="truncated"))
    with pytest.raises(StackError, match=data.faulty[0].name):
        load_stacks(DataConfig(infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir))


@pytest.mark.parametrize("intensity", ["percentile", "stack"])
def test_other_scalings(stored, intensity):
    _, table, store = stored
    transforms = SMALL.model_copy(update={"intensity": intensity})
    batches = [store(cache=c, transforms=transforms).batch(table, range(15)) for c in ("disk", "off")]
    assert torch.equal(*batches)
    assert not torch.equal(batches[0], store().batch(table, range(15)))


@pytest.mark.slow
def test_processes_build_the_same_frames(stored, monkeypatch, tmp_path):
    stacks, table, store = stored
    serial = store(cache="memory").batch(table, range(15))
    monkeypatch.setattr(frame_cache, "_PARALLEL_FROM_PIXELS", 0)
    parallel = FrameStore(stacks, store().data, tmp_path / "other", num_workers=2)
    assert torch.equal(parallel.batch(table, range(15)), serial)


def _first_batch(store, table):
    return store.batch(table, [0, 14]).numpy().tobytes()


@pytest.mark.parametrize("cache", ["disk", "memory", "off"])
def test_a_store_travels_to_other_processes(stored, cache):
    _, table, store = stored
    here = store(cache=cache)
    expected = _first_batch(here, table)
    copy = pickle.loads(pickle.dumps(here))  # noqa: S301
    assert _first_batch(copy, table) == expected
    if cache == "disk":
        assert len(pickle.dumps(here)) < 20_000
        with get_context("fork").Pool(1) as pool:
            assert pool.apply(_first_batch, (here, table)) == expected


def test_disk_cache_needs_a_folder(stored):
    stacks, _, store = stored
    with pytest.raises(ValueError, match="cache_dir"):
        FrameStore(stacks, store().data)


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(stored, workers):
    _, table, store = stored
    dataset = FrameDataset(table, store())
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    images, labels, meta = next(iter(loader))
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert labels.tolist() == [1, 1, 1, 1]
    assert meta["frame_index"].tolist() == [0, 1, 2, 3]
    assert sum(len(batch[1]) for batch in loader) == len(dataset) == 15
    image, label, one = dataset[9]
    assert (label, one["frame_index"]) == (1, 3)
    assert torch.equal(image, dataset.__getitems__([0, 9])[1][0])


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 5))
def test_an_epoch_holds_every_sample_once(n, batch_size, shuffle, drop_last, epoch):
    sampler = EpochSampler(n, batch_size, seed=3, shuffle=shuffle, drop_last=drop_last)
    batches = list(sampler.batches(epoch))
    assert len(batches) == len(sampler)
    found = np.concatenate(batches or [np.empty(0, np.int64)])
    assert len(set(found.tolist())) == len(found) == (n - n % batch_size if drop_last else n)
    assert all(len(b) == batch_size for b in (batches if drop_last else batches[:-1]))
    if not shuffle:
        assert found.tolist() == list(range(len(found)))
    for skip in (0, 1, len(batches)):
        for a, b in zip(sampler.batches(epoch, skip=skip), batches[skip:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_orders_follow_seed_and_epoch():
    def order(seed, epoch):
        return EpochSampler(200, 7, seed=seed).order(epoch).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_weighted_draws_balance_the_classes():
    labels = np.array([1] * 900 + [0] * 100)
    sampler = EpochSampler(1000, 32, seed=0, weights=sampler_weights(labels))
    drawn = np.concatenate(list(sampler.batches(1)))
    assert len(drawn) == 1000
    assert abs(labels[drawn].mean() - 0.5) < 0.05
    assert max(Counter(drawn.tolist()).values()) > 1
    zero = EpochSampler(3, 1, seed=0, weights=[0, 1, 0])
    assert set(zero.order(0).tolist()) == {1}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"n": 0}, "at least one sample"),
        ({"batch_size": 0}, "batch size"),
        ({"weights": [1.0]}, "expected 5 numbers"),
        ({"weights": [1, 1, 1, 1, -1]}, "≥ 0"),
        ({"weights": [0] * 5}, "not all 0"),
    ],
)
def test_bad_samplers(keys, words):
    with pytest.raises(ValueError, match=words):
        EpochSampler(**{"n": 5, "batch_size": 2, **keys})


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 9, 20])
def test_no_batch_of_one_frame_unless_asked_for(batch_size, drop_last):
    sampler = EpochSampler(9, batch_size, seed=1, drop_last=drop_last)
    batches = list(sampler.batches(1))
    assert len(batches) == len(sampler)
    seen = np.concatenate(batches) if batches else np.array([])
    if not drop_last:
        assert sorted(seen.tolist()) == list(range(9))
        assert min(map(len, batches)) > 1 or batch_size == 1
    else:
        assert all(len(batch) == batch_size for batch in batches)
