"""Multi-page TIFF stacks that stay open, and arrays cached on disk.

A stack is one file whose pages are the frames of a time series or the planes of a volume. Pages are counted
from the file's directory without any library; decoding needs the extra: ``pip install "medshared[images]"``.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from medshared.files import atomic_open
from medshared.tiff_directory import StackError, count_pages

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "ArrayCache",
    "StackError",
    "StackInfo",
    "StackPool",
    "StackReader",
    "count_pages",
    "read_stack_info",
]

logger = logging.getLogger(__name__)

_INSTALL = 'pip install "medshared[images]"'


@dataclass(frozen=True)
class StackInfo:
    """What a stack holds.

    Attributes:
        path: the file.
        n_pages: number of pages.
        shape: of the first page: (height, width), with channels (height, width, channels) or as stored.
        dtype: of the first page, as a NumPy name such as ``"uint16"``.
    """

    path: Path
    n_pages: int
    shape: tuple[int, ...]
    dtype: str


def _import_tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(f"reading image stacks needs tifffile: {_INSTALL}") from error
    return tifffile


def read_stack_info(path: str | os.PathLike[str]) -> StackInfo:
    """Return page count, and shape and dtype of the first page.

    Args:
        path: a TIFF file.

    Returns:
        The description.

    Raises:
        StackError: as `count_pages`, and when the pixels have a type that NumPy lacks.
    """
    with StackReader(path) as reader:
        return reader.info


class StackReader:
    """One open stack. Threads may share it; processes must not (see `StackPool`).

    Attributes:
        info: page count, shape and dtype.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file.

        Args:
            path: a TIFF file.

        Raises:
            StackError: as `read_stack_info`.
            ImportError: with the command to install what is missing.
        """
        path = Path(path)
        n_pages = count_pages(path)
        tifffile = _import_tifffile()
        try:
            self._tiff = tifffile.TiffFile(path)
        except Exception as error:
            raise StackError(f"{path}: cannot be opened as TIFF: {error}") from error
        try:
            # Reads of several threads must not move the file position under each other.
            self._tiff.filehandle.set_lock(True)
            first = self._tiff.pages[0]
            if first.dtype is None:
                raise StackError(
                    f"{path}: page 0 has {first.bitspersample} bits of sample format {first.sampleformat}, "
                    "which NumPy has no type for; save the stack as 8 or 16 bit"
                )
            self.info = StackInfo(path, n_pages, tuple(first.shape), str(first.dtype))
        except BaseException as error:
            self._tiff.close()
            if isinstance(error, Exception) and not isinstance(error, StackError):
                raise StackError(f"{path}: page 0 cannot be read: {error}") from error
            raise

    @property
    def n_pages(self) -> int:
        """Number of pages."""
        return self.info.n_pages

    def page(self, i: int) -> npt.NDArray[Any]:
        """Decode one page.

        Args:
            i: page number from 0.

        Returns:
            The pixels as stored: (height, width) or (height, width, channels), any integer or float type.

        Raises:
            StackError: naming file and page.
        """
        path, n_pages = self.info.path, self.info.n_pages
        if not 0 <= i < n_pages:
            raise StackError(f"{path}: page {i} was asked for, the file has pages 0 to {n_pages - 1}")
        page: Any = None
        try:
            with self._tiff.filehandle.lock:  # the one that tifffile holds while it reads pixels
                page = self._tiff.pages[i]
            return page.asarray(maxworkers=1)  # one: data-loading workers are the parallel part
        except Exception as error:
            raise StackError(f"{path}: page {i} cannot be decoded{_page_hint(page, error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _page_hint(page: Any, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    described = ""
    if page is not None:
        compression = getattr(page.compression, "name", page.compression)
        described = f" ({page.dtype}, shape {tuple(page.shape)}, compression {compression})"
    if "imagecodecs" in reason:
        return f"{described}: its compression needs imagecodecs: {_INSTALL}"
    return f"{described}: {reason}; the file is probably damaged, copy or export it again"


class StackPool:
    """Keeps the stacks used last open, in every process its own handles.

    The pool may be sent to other processes or inherited by a fork, as data-loading workers do: handles are
    opened where they are used.
    """

    def __init__(self, max_open: int = 64) -> None:
        """Make an empty pool.

        Args:
            max_open: most files open at once in one process.
        """
        if max_open < 1:
            raise ValueError(f"max_open must be at least 1, found {max_open}")
        self.max_open = max_open
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, StackReader] = OrderedDict()
        self._users: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"max_open": self.max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.max_open = state["max_open"]
        self._start()

    def page(self, path: str | os.PathLike[str], i: int) -> npt.NDArray[Any]:
        """Decode one page, opening the file only if it is not open yet.

        Args:
            path: a TIFF file.
            i: page number from 0.

        Returns:
            As `StackReader.page`.

        Raises:
            StackError: naming file and page.
        """
        if os.getpid() != self._process:
            # A forked handle shares its file position with the parent's: it must not be used here.
            inherited = list(self._readers.values())
            self._start()
            for reader in inherited:
                with contextlib.suppress(Exception):
                    reader.close()
        key = os.fspath(path)
        with self._lock:
            reader = self._readers.get(key)
            if reader is None:
                self._make_room()
                reader = self._readers[key] = StackReader(path)
            self._readers.move_to_end(key)
            self._users[key] = self._users.get(key, 0) + 1
        try:
            return reader.page(i)
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]

    def _make_room(self) -> None:
        """Close the files used longest ago, leaving those that another thread reads right now."""
        idle = [key for key in self._readers if key not in self._users]
        for key in idle[: max(0, len(self._readers) - self.max_open + 1)]:
            self._readers.pop(key).close()

    def close(self) -> None:
        """Close all files of this process; the pool can be used again."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

    def __len__(self) -> int:
        """Return the number of files that are open in this process."""
        return len(self._readers) if os.getpid() == self._process else 0


class ArrayCache:
    """Arrays that are expensive to make, kept as ``.npy`` files and mapped into memory.

    Several processes may build the same array at once: each writes its own temporary file, and whichever is
    moved into place last stays. A file that is cut off or damaged is built again.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Name the folder; it is created with the first array.

        Args:
            folder: where the files lie.
        """
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Return the file of a key: its readable beginning and a hash of all of it."""
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", key)[:40].strip("._")
        return self.folder / f"{readable or 'array'}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"

    def get_or_build(self, key: str, build: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return the array of a key, building it if there is no sound file.

        Args:
            key: everything that the array depends on, e.g. file, size, date and settings.
            build: makes the array; any dtype except objects.

        Returns:
            A read-only ``numpy.memmap`` (an ordinary read-only array if it has no elements).

        Raises:
            TypeError: when the array holds Python objects.
            OSError: naming the file when it cannot be written.
        """
        import numpy as np

        path = self.path(key)
        found = self._open(path)
        if found is not None:
            return found
        array = np.asarray(build())
        return self._write(path, array.shape, array.dtype, [array])

    def get_or_write(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        parts: Callable[[], Iterable[npt.NDArray[Any]]],
    ) -> npt.NDArray[Any]:
        """Return the array of a key, writing it part by part if there is no sound file.

        Memory holds one part at a time, however large the array is.

        Args:
            key: as for `get_or_build`.
            shape: of the whole array.
            dtype: of the whole array; the parts are converted to it.
            parts: yields what the array holds, in order along its first axis: ``array[0]``, ``array[1]``, …,
                or slices of several of them.

        Returns:
            As `get_or_build`.

        Raises:
            ValueError: when the parts do not make up the shape; nothing is written then.
            TypeError: for Python objects.
            OSError: naming the file when it cannot be written.
        """
        import numpy as np

        path = self.path(key)
        found = self._open(path)
        return found if found is not None else self._write(path, shape, np.dtype(dtype), parts())

    def _write(
        self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike, parts: Iterable[npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        import numpy as np

        dtype = np.dtype(dtype)
        if dtype.hasobject:
            raise TypeError(f"{path}: an array of Python objects (dtype {dtype}) cannot be cached")
        expected, written = math.prod(shape), 0
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with atomic_open(path, "wb") as handle:
            np.lib.format.write_array_header_2_0(handle, header)
            for part in parts:
                part = np.ascontiguousarray(part, dtype)
                # Not ndarray.tofile, which hides the reason when the disk is full.
                handle.write(part.reshape(-1).view(np.uint8).data)
                written += part.size
            if written != expected:
                raise ValueError(
                    f"{path}: {written} values were given for an array of shape {shape} ({expected})"
                )
        found = self._open(path)
        if found is None:
            raise OSError(f"{path}: the file changed right after it was written; is the disk sound?")
        return found

    def _open(self, path: Path) -> npt.NDArray[Any] | None:
        """Map the file if its size is what its header says."""
        import numpy as np

        try:
            with path.open("rb") as handle:
                major, _ = np.lib.format.read_magic(handle)
                read = (
                    np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(handle)
                start = handle.tell()
                size = os.fstat(handle.fileno()).st_size
        except FileNotFoundError:
            return None
        except (ValueError, OSError, EOFError) as error:
            logger.warning("%s is damaged and will be built again: %s", path, error)
            return None
        count = int(np.prod(shape, dtype=np.int64))
        if size != start + count * dtype.itemsize or dtype.hasobject:
            logger.warning("%s has %d bytes, not what its header says; it will be built again", path, size)
            return None
        order = "F" if fortran else "C"
        if not count:
            empty = np.empty(shape, dtype, order)
            empty.flags.writeable = False
            return empty
        return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
