"""The page directory of a TIFF file, read without any library, and whether its pages are whole."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NoReturn

_EXTENTS = (273, 279, 324, 325)  # StripOffsets, StripByteCounts, TileOffsets, TileByteCounts
_INTEGERS = {3: "H", 4: "I", 16: "Q"}
_OTHER_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull`",
}


class StackError(OSError, ValueError):
    """A stack, or one page of it, that cannot be read; the message names the file and the likely cause."""


def count_pages(path: str | os.PathLike[str]) -> int:
    """Count the pages of a TIFF file from its directory; no pixel is read.

    Every page is checked to lie within the file, so a truncated copy is found here and not in the middle of
    an epoch.

    Args:
        path: a TIFF or BigTIFF file.

    Returns:
        Number of pages, at least 1.

    Raises:
        StackError: when the file is missing, no TIFF, without pages, or cut off.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            return _Directory(handle, path).count()
    except StackError:
        raise
    except FileNotFoundError as error:
        raise StackError(f"{path}: no such image stack") from error
    except IsADirectoryError as error:
        raise StackError(f"{path}: this is a folder, expected a TIFF file") from error
    except OSError as error:
        raise StackError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Directory:
    """The chain of image file directories (IFDs) of a TIFF file."""

    def __init__(self, handle: BinaryIO, path: Path) -> None:
        self.handle = handle
        self.path = path
        self.size = os.fstat(handle.fileno()).st_size
        head = handle.read(16)
        if not head:
            raise StackError(f"{path}: the file is empty; copying or writing it was probably interrupted")
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        magic = struct.unpack(f"{self.order}H", head[2:4])[0] if self.order and len(head) >= 4 else 0
        if magic not in (42, 43):
            kind = next((text for start, text in _OTHER_FORMATS.items() if head.startswith(start[:16])), None)
            found = f"it is {kind}" if kind else f"it starts with {head[:4]!r}"
            raise StackError(f"{path}: this is no TIFF file; {found}")
        self.big = magic == 43
        needed = 16 if self.big else 8
        if len(head) < needed:
            raise StackError(
                f"{path}: cut off after {self.size} bytes, within the header; copy the file again"
            )
        self.first = struct.unpack_from(f"{self.order}{'Q' if self.big else 'I'}", head, needed // 2)[0]

    def count(self) -> int:
        offset, seen = self.first, set[int]()
        while offset:
            if offset in seen:
                raise StackError(
                    f"{self.path}: page {len(seen)} points back to an earlier page; the file is damaged"
                )
            seen.add(offset)
            offset = self._next(offset, page=len(seen) - 1)
        if not seen:
            raise StackError(f"{self.path}: the TIFF file holds no page; writing it was probably interrupted")
        return len(seen)

    def _next(self, offset: int, page: int) -> int:
        """Check one page and return where the next one is described; 0 after the last."""
        number, entry, link = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        (length,) = self._unpack(number, offset, page)
        start = offset + struct.calcsize(number)
        if not 0 < length <= 4096:
            raise StackError(f"{self.path}: page {page} has {length} tags; the file is damaged")
        table = self._read(start, length * entry + struct.calcsize(link), page)
        arrays: dict[int, tuple[int, ...]] = {}
        for position in range(0, length * entry, entry):
            tag, kind = struct.unpack_from(f"{self.order}HH", table, position)
            if tag in _EXTENTS and kind in _INTEGERS:
                arrays[tag] = self._integers(table[position + 4 : position + entry], kind, page)
        for offsets, sizes in ((273, 279), (324, 325)):
            end = max(map(sum, zip(arrays.get(offsets, ()), arrays.get(sizes, ()), strict=False)), default=0)
            if end > self.size:
                self._cut_off(page, end)
        return struct.unpack_from(f"{self.order}{link}", table, length * entry)[0]

    def _integers(self, field: bytes, kind: int, page: int) -> tuple[int, ...]:
        """Read the values of a tag, which lie in the field itself if they fit."""
        number = "Q" if self.big else "I"
        width = struct.calcsize(number)
        (count,) = struct.unpack_from(f"{self.order}{number}", field)
        code = f"{count}{_INTEGERS[kind]}"
        if struct.calcsize(f"={code}") <= width:
            return struct.unpack_from(f"{self.order}{code}", field, width)
        (offset,) = struct.unpack_from(f"{self.order}{number}", field, width)
        return self._unpack(code, offset, page)

    def _unpack(self, code: str, offset: int, page: int) -> tuple[int, ...]:
        return struct.unpack(f"{self.order}{code}", self._read(offset, struct.calcsize(f"={code}"), page))

    def _read(self, offset: int, length: int, page: int) -> bytes:
        if offset + length > self.size:
            self._cut_off(page, offset + length)
        self.handle.seek(offset)
        return self.handle.read(length)

    def _cut_off(self, page: int, end: int) -> NoReturn:
        raise StackError(
            f"{self.path}: page {page} reaches to byte {end:,}, but the file ends at {self.size:,}: "
            "it is cut off (copy it again) or damaged"
        )
