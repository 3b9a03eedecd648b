"""Image stacks and the array cache."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medshared import images
from medshared.images import ArrayCache, StackError, StackPool, StackReader, count_pages, read_stack_info


def frames(n: int, shape: tuple[int, ...] = (8, 6), dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, *shape)) * 200).astype(dtype)


def stack(path: Path, data: np.ndarray, **options: Any) -> Path:
    photometric = "rgb" if data.shape[-1] in (3, 4) else "minisblack"
    with tifffile.TiffWriter(
        path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("byteorder", "<")
    ) as out:
        for page in data:
            out.write(page, photometric=photometric, contiguous=False, metadata=None, **options)
    return path


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"compression": "zlib"},
    {"compression": "lzw"},
    {"tile": (16, 16)},
    {"rowsperstrip": 2},
    {"bigtiff": True},
    {"bigtiff": True, "rowsperstrip": 1},
    {"byteorder": ">"},
    {"byteorder": ">", "bigtiff": True, "compression": "zlib"},
]


@pytest.mark.parametrize("options", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((20, 18), "uint16"), ((20, 18, 3), "uint8"), ((20, 18), "float32")]
)
def test_layouts(tmp_path: Path, options: dict[str, Any], shape: tuple[int, ...], dtype: str) -> None:
    data = frames(5, shape, dtype)
    path = stack(tmp_path / "a.tif", data, **options)
    assert count_pages(path) == 5
    info = read_stack_info(path)
    assert (info.path, info.n_pages, info.shape, info.dtype) == (path, 5, shape, dtype)
    with StackReader(path) as reader:
        for index in (4, 0, 2):
            np.testing.assert_array_equal(reader.page(index), data[index])
            assert reader.page(index).dtype == dtype


@pytest.mark.parametrize("imagej", [True, False])
def test_contiguous_files(tmp_path: Path, imagej: bool) -> None:
    data = frames(7)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=imagej, photometric="minisblack")
    assert count_pages(str(tmp_path / "a.tif")) == 7
    with StackReader(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.page(6), data[6])


@pytest.mark.parametrize("index", [-1, 3, 99])
def test_page_numbers_outside(tmp_path: Path, index: int) -> None:
    with (
        StackReader(stack(tmp_path / "a.tif", frames(3))) as reader,
        pytest.raises(StackError, match=rf"a\.tif: page {index} was asked for, the file has pages 0 to 2"),
    ):
        reader.page(index)


def test_damaged_pixels_name_file_and_page(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.tif", frames(3), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[1].dataoffsets[0], tiff.pages[1].databytecounts[0]  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\xaa" * size
    path.write_bytes(content)
    with StackReader(path) as reader:
        message = r"a\.tif: page 1 cannot be decoded \(uint16, shape \(8, 6\), compression ADOBE_DEFLATE\): "
        with pytest.raises(StackError, match=message):
            reader.page(1)
        assert reader.page(2).shape == (8, 6)


def test_missing_libraries_say_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stack(tmp_path / "a.tif", frames(2))
    with StackReader(path) as reader:

        def lacks(*_args: Any, **_kwargs: Any) -> Any:
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

        monkeypatch.setattr(tifffile.TiffPage, "asarray", lacks)
        with pytest.raises(
            StackError, match=r'page 1 .*needs imagecodecs: pip install "medshared\[images\]"'
        ):
            reader.page(1)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert count_pages(path) == 2
    with pytest.raises(ImportError, match=r'needs tifffile: pip install "medshared\[images\]"'):
        StackReader(path)


def test_unsupported_pixel_type(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.tif", frames(1))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["BitsPerSample"].overwrite(57)  # type: ignore[union-attr]
    with pytest.raises(StackError, match=r"a\.tif: page 0 has 57 bits"):
        read_stack_info(path)


# The pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(5):
        stack(tmp_path / f"{index}.tif", frames(4, seed=index))
    return tmp_path


def expected(index: int, page: int) -> np.ndarray:
    return frames(4, seed=index)[page]


def test_pool_keeps_the_files_used_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = StackReader.__init__
    monkeypatch.setattr(
        StackReader, "__init__", lambda self, path: (opened.append(Path(path).stem), original(self, path))[1]
    )
    pool = StackPool(max_open=2)
    for index in (0, 1, 0, 2, 0, 1):  # 1 is closed for 2, 2 for 1
        np.testing.assert_array_equal(pool.page(folder / f"{index}.tif", 3), expected(index, 3))
        assert len(pool) <= 2
    assert opened == ["0", "1", "2", "1"]
    pool.close()
    assert len(pool) == 0
    np.testing.assert_array_equal(pool.page(folder / "0.tif", 1), expected(0, 1))
    with pytest.raises(ValueError, match="at least 1"):
        StackPool(0)


def open_files(folder: Path) -> list[str]:
    found: list[Path] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(descriptor.readlink())
    return sorted(path.name for path in found if path.parent == folder)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counting open files needs /proc (Linux)")
def test_pool_closes_what_it_drops(folder: Path) -> None:
    pool = StackPool(max_open=1)
    for _ in range(3):
        for index in range(5):
            pool.page(folder / f"{index}.tif", 0)
    assert open_files(folder) == ["4.tif"]
    pool.close()
    assert open_files(folder) == []


def test_pool_error_does_not_stick(folder: Path) -> None:
    pool = StackPool(1)
    with pytest.raises(StackError, match="no such image stack"):
        pool.page(folder / "x.tif", 0)
    with pytest.raises(StackError, match="pages 0 to 3"):
        pool.page(folder / "0.tif", 9)
    np.testing.assert_array_equal(pool.page(folder / "1.tif", 0), expected(1, 0))
    assert len(pool) == 1


def test_pool_in_threads(folder: Path) -> None:
    pool = StackPool(max_open=2)
    wanted = [(index, page) for index in range(5) for page in range(4)] * 10
    with ThreadPoolExecutor(8) as workers:
        pages = list(workers.map(lambda pair: pool.page(folder / f"{pair[0]}.tif", pair[1]), wanted))
    for (index, page), found in zip(wanted, pages, strict=True):
        np.testing.assert_array_equal(found, expected(index, page))


def check_in_child(pool: StackPool, folder: Path, rounds: int) -> None:
    for _ in range(rounds):
        for index in range(5):
            for page in (3, 0, 2):
                if not np.array_equal(pool.page(folder / f"{index}.tif", page), expected(index, page)):
                    os._exit(1)
    os._exit(0)


def test_pool_after_fork_has_its_own_handles(folder: Path) -> None:
    """Parent and children read the same files at once: shared file positions would mix up the pages."""
    pool = StackPool()
    for index in range(5):
        pool.page(folder / f"{index}.tif", 1)
    with pool._lock:  # held by some thread of the parent while it forks
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=check_in_child, args=(pool, folder, 20)) for _ in range(2)]
        for child in children:
            child.start()
    for _ in range(20):
        for index in range(5):
            np.testing.assert_array_equal(pool.page(folder / f"{index}.tif", 2), expected(index, 2))
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0


def test_pool_pickles_without_handles(folder: Path) -> None:
    pool = StackPool(7)
    pool.page(folder / "0.tif", 0)
    copy = pickle.loads(pickle.dumps(pool))  # noqa: S301
    assert (copy.max_open, len(copy), len(pool)) == (7, 0, 1)
    np.testing.assert_array_equal(copy.page(folder / "0.tif", 2), expected(0, 2))


# The cache


def never() -> np.ndarray:
    raise AssertionError("built although a sound file is there")


@pytest.mark.parametrize(
    "array",
    [
        frames(3),
        np.asfortranarray(frames(3)),
        frames(6)[::2, ::-1],
        np.float64(3.5),
        np.zeros((0, 3), np.float32),
        np.array(["a", "bc"]),
        np.zeros(2, dtype=[("x", "i4"), ("y", "f8")]),
    ],
    ids=["plain", "fortran", "strided", "scalar", "empty", "text", "structured"],
)
def test_cache_round_trip(tmp_path: Path, array: Any) -> None:
    cache = ArrayCache(tmp_path / "new")
    built = cache.get_or_build("k", lambda: array)
    again = cache.get_or_build("k", never)
    for found in (built, again, np.load(cache.path("k"), allow_pickle=False)):
        np.testing.assert_array_equal(found, array)
        assert (found.dtype, found.shape) == (np.asarray(array).dtype, np.shape(array))
    assert not built.flags.writeable
    if built.size:
        assert isinstance(again, np.memmap)
    assert [path.name for path in cache.folder.iterdir()] == [cache.path("k").name]


@given(hnp.arrays(st.sampled_from(["u1", "i8", "f2", "f8", "?"]), hnp.array_shapes(min_dims=0, min_side=0)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cache_of_any_array(tmp_path: Path, array: np.ndarray) -> None:
    cache = ArrayCache(tmp_path)
    cache.path("k").unlink(missing_ok=True)
    assert cache.get_or_build("k", lambda: array).tobytes() == array.tobytes()


def test_keys_have_their_own_readable_files(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    keys = ["a/b c", "a/b_c", "a_b_c", "../../x", "", "é" * 300]
    assert len({cache.path(key) for key in keys}) == len(keys)
    assert all(cache.path(key).parent == tmp_path for key in keys)
    assert cache.path("plate1/s5.tif|size=64").name.startswith("plate1_s5.tif_size_64-")


@pytest.mark.parametrize("damage", ["empty", "header", "short", "long", "garbage", "objects"])
def test_damaged_cache_files_are_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache, array = ArrayCache(tmp_path), frames(3)
    cache.get_or_build("k", lambda: array)
    path = cache.path("k")
    content = path.read_bytes()
    if damage == "objects":
        np.save(path, np.array([None, {}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "header": content[:40],
                "short": content[:-1],
                "long": content + b"x",
                "garbage": b"x" * 500,
            }[damage]
        )
    np.testing.assert_array_equal(cache.get_or_build("k", lambda: array), array)
    assert "built again" in caplog.text
    np.testing.assert_array_equal(cache.get_or_build("k", never), array)


def test_cache_refuses_objects_and_names_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArrayCache(tmp_path)
    with pytest.raises(TypeError, match="Python objects"):
        cache.get_or_build("k", lambda: np.array([None, {}], dtype=object))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full") as caught:
        cache.get_or_build("k", lambda: np.zeros(3))
    assert caught.value.filename == str(cache.path("k"))
    assert list(tmp_path.iterdir()) == []


def build_in_child(folder: Path, value: int, barrier: Any, failures: Any) -> None:
    cache = ArrayCache(folder)
    for turn in range(15):
        barrier.wait(timeout=60)
        found = cache.get_or_build(f"k{turn}", lambda: np.full((40, 1000), value, np.int32))
        if found[0, 0] not in (1, 2) or not (found == found[0, 0]).all():
            failures.value += 1


def test_two_processes_building_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(2), context.Value("i", 0)
    children = [
        context.Process(target=build_in_child, args=(tmp_path, value, barrier, failures)) for value in (1, 2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    assert failures.value == 0
    cache = ArrayCache(tmp_path)
    for turn in range(15):
        assert cache.get_or_build(f"k{turn}", never).max() in (1, 2)
    assert len(list(tmp_path.iterdir())) == 15


def test_a_mapped_array_outlives_its_replacement(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    first = cache.get_or_build("k", lambda: np.ones(1000))
    cache.path("k").unlink()
    second = cache.get_or_build("k", lambda: np.zeros(1000))
    assert (first.sum(), second.sum()) == (1000, 0)


def test_reader_in_threads(tmp_path: Path) -> None:
    data = frames(30, (32, 32))
    path = stack(tmp_path / "a.tif", data, compression="zlib")
    wrong: list[int] = []

    def work(reader: StackReader, start: int) -> None:
        for index in range(start, 30, 4):
            if not np.array_equal(reader.page(index), data[index]):
                wrong.append(index)

    with StackReader(path) as reader:
        threads = [threading.Thread(target=work, args=(reader, start)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_importing_needs_no_image_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert images.__doc__
    assert "tifffile" not in vars(images)


def test_arrays_are_written_part_by_part(tmp_path):
    cache = ArrayCache(tmp_path)
    parts = [np.full((2, 3), value, np.int16) for value in (1, 2)]
    found = cache.get_or_write("k", (4, 3), np.int32, lambda: iter(parts))
    assert isinstance(found, np.memmap)
    assert found.dtype == np.int32
    assert found.tolist() == [[1] * 3] * 2 + [[2] * 3] * 2
    assert cache.get_or_write("k", (4, 3), np.int32, lambda: 1 / 0).tolist() == found.tolist()
    assert np.load(cache.path("k"), allow_pickle=False).tolist() == found.tolist()


@pytest.mark.parametrize("parts", [[], [np.zeros(2)], [np.zeros(3), np.zeros(3)]])
def test_parts_that_do_not_fill_the_array_leave_nothing(tmp_path, parts):
    with pytest.raises(ValueError, match=r"values were given for an array of shape \(4,\)"):
        ArrayCache(tmp_path).get_or_write("k", (4,), np.float64, lambda: iter(parts))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_part_leaves_nothing(tmp_path):
    def parts():
        yield np.zeros(2)
        raise StackError("page 2 is broken")

    with pytest.raises(StackError, match="page 2"):
        ArrayCache(tmp_path).get_or_write("k", (4,), np.float64, parts)
    assert list(tmp_path.iterdir()) == []
