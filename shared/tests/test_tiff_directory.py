"""Page counts and what is wrong with a file, without decoding it."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medshared.images import StackError, StackReader, count_pages, read_stack_info


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


@given(n=st.integers(1, 12), options=st.sampled_from(LAYOUTS), share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_page_count_agrees_and_every_truncation_is_found(
    tmp_path: Path, n: int, options: dict[str, Any], share: float
) -> None:
    path = stack(tmp_path / "a.tif", frames(n, (16, 16)), **options)
    with tifffile.TiffFile(path) as oracle:
        assert count_pages(path) == len(oracle.pages) == n
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StackError, match=r"a\.tif: .*(cut off|empty|no TIFF|no page)"):
        count_pages(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; copying or writing it was probably interrupted"),
        (b"II*\0\0\0\0\0", "the TIFF file holds no page"),
        (b"MM\0*\0\0\0\0", "the TIFF file holds no page"),
        (b"II+\0\x08\0\0\0" + bytes(8), "the TIFF file holds no page"),
        (b"II*\0\x08", "cut off after 5 bytes, within the header"),
        (b"II+\0\x08\0\0\0", "cut off after 8 bytes, within the header"),
        (b"II", r"this is no TIFF file; it starts with b'II'"),
        (b"\x89PNG\r\n\x1a\n0000", "this is no TIFF file; it is a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a pointer of Git LFS; run `git lfs pull`"),
        (b"hello", r"this is no TIFF file; it starts with b'hell'"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(20), "page 0 has 0 tags; the file is damaged"),
        (
            b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 256, 3, 1, 5, 8),
            "page 1 points back to an earlier page",
        ),
        (
            b"II*\0\xff\xff\0\0" + bytes(20),
            r"page 0 reaches to byte 65,537, but the file ends at 28: it is cut off",
        ),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    for read in (count_pages, read_stack_info, StackReader):
        with pytest.raises(StackError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, ValueError)


def test_missing_folder_and_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StackError, match=r"x\.tif: no such image stack"):
        count_pages(tmp_path / "x.tif")
    with pytest.raises(StackError, match="this is a folder"):
        count_pages(tmp_path)

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StackError, match=r"x\.tif: cannot be read: Input/output error"):
        count_pages(tmp_path / "x.tif")
