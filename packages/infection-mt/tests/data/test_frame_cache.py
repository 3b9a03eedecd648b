"""Prepared stacks on disk: written page by page, with a list of the pages that cannot be used."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import tifffile

from infection_mt.config import DataConfig, TransformsConfig
from infection_mt.data import frame_cache
from infection_mt.data.dataset import FrameStore
from infection_mt.data.frame_cache import build_frames, load_frames, write_frames
from infection_mt.data.policy import FramePolicy
from infection_mt.data.stacks import load_stacks
from infection_mt.data.table import build_table
from medshared.images import StackError

SMALL = TransformsConfig(image_size=16)
ALL = FramePolicy(infected_window_hours=None, uninfected_window_hours=None)


def write_pages(path: Path, pages, **keys) -> None:
    """Write pages of any shapes into one file."""
    path.parent.mkdir(exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, contiguous=False, **keys)


@pytest.fixture
def stacks_with(tmp_path):
    """(stacks, configuration) of an infected stack of the given pages beside a sound mock stack."""

    def make(pages, **keys):
        rng = np.random.default_rng(1)
        write_pages(tmp_path / "i" / "x_s5_b2_p1_.tif", pages, **keys)
        write_pages(tmp_path / "u" / "x_s5_c4_p1_.tif", rng.random((4, 20, 20), np.float32))
        data = DataConfig(
            infected_dir=tmp_path / "i", uninfected_dir=tmp_path / "u", transforms=SMALL, num_workers=0
        )
        return load_stacks(data), data

    return make


def gray(n: int, side: int = 20) -> list[np.ndarray]:
    return list(np.random.default_rng(0).random((n, side, side), np.float32))


def test_one_page_is_held_at_a_time(stacks_with, tmp_path, monkeypatch):
    stacks, _ = stacks_with(gray(30))
    made: list[weakref.ref] = []
    most = []
    real = frame_cache.prepare_page

    def counted(*arguments):
        image = real(*arguments)
        made.append(weakref.ref(image))
        most.append(sum(ref() is not None for ref in made))
        return image

    monkeypatch.setattr(frame_cache, "prepare_page", counted)
    prepared = write_frames(stacks[0], SMALL, tmp_path / "cache")
    assert len(most) == 30
    assert max(most) <= 3, "the frame before may still be on its way to the file"
    assert isinstance(prepared.frames, np.memmap)
    np.testing.assert_array_equal(prepared.frames, build_frames(stacks[0], SMALL).frames)
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_a_bad_page_is_an_error_only_where_it_is_asked_for(stacks_with, tmp_path, cache):
    pages = gray(5)
    pages[3][2, 2] = np.nan
    stacks, data = stacks_with(pages)
    table = build_table(stacks, ALL, pre_onset="keep")
    for _ in range(2):  # built, then read again
        store = FrameStore(stacks, data.model_copy(update={"cache": cache}), tmp_path / "cache")
        assert store.batch(table, [0, 1, 2, 4]).shape == (4, 1, 16, 16)
        with pytest.raises(StackError, match=r"x_s5_b2_p1_.tif: page 3: 1 of 400 pixels are not finite"):
            store.batch(table, [2, 3])
        store.check([table.subset([0, 1, 2, 4, 5])])
        with pytest.raises(
            StackError, match=r"1 pages that data.frames chooses cannot be used(.|\n)*page 3: 1 of"
        ):
            store.check([table])


def test_channels_at_other_hours_ask_for_their_pages_too(stacks_with, tmp_path):
    pages = gray(5)
    pages[1][:] = np.inf
    stacks, data = stacks_with(pages)
    data = data.model_copy(update={"channel_offsets_hours": (-1.0, -0.5, 0.0)})
    store = FrameStore(stacks, data, tmp_path / "cache")
    table = build_table(stacks, ALL, pre_onset="keep")
    store.check([table.subset([0, 4])])
    with pytest.raises(StackError, match="page 1: 400 of 400"):
        store.check([table.subset([3])])  # its first channel is page 1


def test_the_list_of_bad_pages_belongs_to_the_frames(stacks_with, tmp_path):
    pages = gray(3)
    pages[0][0, 0] = np.nan
    stacks, _ = stacks_with(pages)
    folder = tmp_path / "cache"
    first = write_frames(stacks[0], SMALL, folder)
    assert list(first.bad_pages) == [0]
    assert first.frames[0].max() == 0
    (listing,) = folder.glob("*.json")
    for broken in (None, "{", '{"bad_pages": 3}'):
        listing.unlink() if broken is None else listing.write_text(broken)
        assert list(load_frames(stacks[:1], SMALL, folder, 0)[stacks[0].path].bad_pages) == [0]
        assert listing.exists()


@pytest.mark.parametrize("intensity", ["minmax", "stack"])
def test_a_stack_without_a_usable_page_is_refused(stacks_with, tmp_path, intensity):
    stacks, _ = stacks_with([np.full((8, 8), np.nan, np.float32)] * 2)
    transforms = SMALL.model_copy(update={"intensity": intensity})
    with pytest.raises(StackError, match=r"1 of 2 stacks cannot be used:\n.*page 0: 64 of 64"):
        load_frames(stacks, transforms, tmp_path / "cache", 0)
    assert not list((tmp_path / "cache").glob("*b2_p1*"))


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (np.zeros((10, 10), np.float32), r"shape \(10, 10\) differs from \(20, 20\) of the first page"),
        (np.zeros((20, 20, 3), np.uint8), r"shape \(20, 20, 3\) differs from \(20, 20\)"),
    ],
)
def test_pages_of_another_kind_are_bad_pages(stacks_with, tmp_path, odd, words):
    stacks, data = stacks_with([*gray(2), odd])
    for cache in ("disk", "off"):
        store = FrameStore(stacks, data.model_copy(update={"cache": cache}), tmp_path / "cache")
        table = build_table(stacks, ALL, pre_onset="keep")
        assert store.batch(table, [1]).shape == (1, 1, 16, 16)
        with pytest.raises(StackError, match=rf"page 2: its {words}"):
            store.batch(table, [2])
