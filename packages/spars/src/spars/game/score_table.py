"""All window scores of a volume: computed once, in batches or as they are needed, and kept on disk."""

from __future__ import annotations

import hashlib
import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from medshared.files import write_npz
from medshared.process import progress as progress_bar
from spars.errors import DataError
from spars.game.scorers import Floats, Scorer
from spars.lattice import Lattice

log = logging.getLogger(__name__)


class ScoreTable:
    """The scores of a volume's windows, a number a lattice position.

    Positions do not influence each other and the volume does not change, so a game that reads the table is the game
    that runs the classifier at every step.

    Args:
        lattice: the window positions; its grid is the volume's size.
        scores: known scores, ``lattice.shape``, NaN where not yet known; ``None`` = none is known. A contiguous
            array is used, not copied.
        scorer: what computes missing scores; ``None`` where all are known.
        volume: the volume, ``lattice.grid``, in the scorer's unit; ``None`` where all are known.
        cache_dir: folder for the table's file; ``None`` = kept in memory only.
        batch: windows cut out at once.
        save_seconds: a table with a file is saved this often while it is being computed.

    Attributes:
        n_computed: Windows that this object sent to the scorer.

    Raises:
        DataError: when shapes do not agree, or nothing can compute the scores that are missing.
    """

    def __init__(
        self,
        lattice: Lattice,
        scores: Floats | None = None,
        scorer: Scorer | None = None,
        volume: NDArray[Any] | None = None,
        *,
        cache_dir: str | Path | None = None,
        batch: int = 256,
        save_seconds: float = 20.0,
    ) -> None:
        if volume is not None and volume.shape != lattice.grid:
            raise DataError(
                f"the volume has {list(volume.shape)} voxels, the lattice is for {list(lattice.grid)}; "
                "resample the volume to full_image_size first"
            )
        if scores is not None and scores.shape != lattice.shape:
            raise DataError(
                f"scores must have the lattice's shape {list(lattice.shape)}, found {list(scores.shape)}"
            )
        self.lattice = lattice
        self.scorer = scorer
        self.volume = volume
        self.batch = batch
        self.save_seconds = save_seconds
        self.n_computed = 0
        self.path: Path | None = None
        self._places = [_places(axis, size) for axis, size in zip(lattice.axes, lattice.grid, strict=True)]
        self.scores: Floats = np.full(lattice.shape, np.nan, np.float32)
        if scores is not None:
            self.scores = np.ascontiguousarray(scores)
        if scorer is None or volume is None:
            if np.isnan(self.scores).any():
                raise DataError("the table lacks scores and has no scorer and volume to compute them with")
        elif cache_dir is not None:
            self._key = table_key(lattice, scorer, volume)
            self.path = Path(cache_dir) / f"scores-{self._key[:32]}.npz"
            self._read(self.path)

    @property
    def n_scored(self) -> int:
        """Windows whose score is known."""
        return int(np.count_nonzero(~np.isnan(self.scores)))

    def lookup(self, flat: NDArray[np.int64]) -> Floats:
        """Return the scores ``[...]`` of flat lattice indices ``[...]``, computing those that are not yet known."""
        flat = np.asarray(flat)
        table = self.scores.reshape(-1)
        found = table[flat]
        missing = np.isnan(found)
        if missing.any():
            self._compute(np.unique(flat[missing]))
            found = self.scores.reshape(-1)[flat]
        return found

    def at(self, starts: NDArray[np.int64]) -> Floats:
        """Return the scores ``[...]`` of windows by their lowest corner ``[..., 3]`` in voxels.

        Raises:
            DataError: naming a start that is not on the lattice.
        """
        starts = np.asarray(starts)
        index = np.stack(
            [place.take(starts[..., axis], mode="clip") for axis, place in enumerate(self._places)], axis=-1
        )
        wrong = ((index < 0) | (starts < 0)).any(axis=-1)
        if wrong.any():
            first = starts[wrong].reshape(-1, 3)[0].tolist()
            raise DataError(f"no window of this table starts at voxel {first}; is it on the lattice?")
        return self.lookup(self.lattice.flat(index))

    def full(self, progress: bool = False) -> Floats:
        """Compute every score that is missing, slab by slab along the first axis, and return the table.

        A table with a file is saved on the way, so that a stopped computation goes on where it was.

        Args:
            progress: show a progress bar.

        Returns:
            The scores, ``lattice.shape``.
        """
        slabs = np.arange(len(self.lattice)).reshape(self.lattice.shape[0], -1)
        before, saved = self.n_computed, time.monotonic()
        for slab in progress_bar(slabs, description="window scores") if progress else slabs:
            missing = slab[np.isnan(self.scores.reshape(-1)[slab])]
            if len(missing):
                self._compute(missing)
                if time.monotonic() - saved >= self.save_seconds:
                    self.save()
                    saved = time.monotonic()
        if self.n_computed > before:
            self.save()
        return self.scores

    def save(self) -> None:
        """Write what is known to the table's file, if it has one."""
        if self.path is not None:
            write_npz(self.path, scores=self.scores, key=self._key)

    def _compute(self, flat: NDArray[np.int64]) -> None:
        if self.scorer is None or self.volume is None:  # scores were given and one of them was erased
            raise DataError("the table lacks scores and has no scorer and volume to compute them with")
        starts = self.lattice.starts(self.lattice.unflat(flat))
        table = self.scores.reshape(-1)
        on_device = getattr(self.scorer, "score_starts", None)
        windows = sliding_window_view(self.volume, self.lattice.window)
        for i in range(0, len(flat), self.batch):
            part = starts[i : i + self.batch]
            if on_device is not None:
                scores = on_device(self.volume, part, self.lattice.window)
            else:
                scores = self.scorer(windows[tuple(part.T)].astype(np.float32, copy=False))
            if not np.isfinite(scores).all():
                raise DataError(
                    f"the scorer gave NaN or infinity for the window at voxel "
                    f"{part[~np.isfinite(scores)][0].tolist()}; check the volume and the weights"
                )
            table[flat[i : i + self.batch]] = scores
        self.n_computed += len(flat)

    def _read(self, path: Path) -> None:
        if not path.is_file():
            return
        try:
            with np.load(path, allow_pickle=False) as arrays:
                scores, key = arrays["scores"], str(arrays["key"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s: damaged score table, computed anew (%s)", path, error)
            return
        known = scores[~np.isnan(scores)] if np.issubdtype(scores.dtype, np.floating) else None
        if key != self._key or scores.shape != self.lattice.shape or known is None:
            log.warning("%s: not the score table that its name says, computed anew", path)
        elif ((known < 0) | (known > 1)).any():
            log.warning("%s: scores outside [0, 1], computed anew", path)
        else:
            self.scores = np.where(np.isnan(self.scores), scores, self.scores).astype(self.scores.dtype)


def _places(axis: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the lattice index of every start from 0 to the grid's size, −1 where there is none."""
    places = np.full(size + 1, -1, np.int64)
    places[axis] = np.arange(len(axis))
    return places


def table_key(lattice: Lattice, scorer: Scorer, volume: NDArray[Any]) -> str:
    """Return what tells one table from another: SHA-256 over volume, scorer, window, grid and step."""
    axes = [axis.tolist() for axis in lattice.axes]
    digest = hashlib.sha256(f"{lattice.grid} {lattice.window} {axes} {scorer.key}".encode())
    digest.update(f"{volume.dtype} {volume.shape}".encode())
    digest.update(np.ascontiguousarray(volume).tobytes())
    return digest.hexdigest()
