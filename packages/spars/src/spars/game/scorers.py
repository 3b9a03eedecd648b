"""Scorers: what says how likely a window holds tumour.

A scorer takes windows and returns one number in [0, 1] for each. The game, the tables and the baselines know no
network: they call a scorer, so tests run without one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spars.errors import DataError
from spars.original.resize import nearest_sources

if TYPE_CHECKING:
    import torch
    from torch import nn

Size = tuple[int, int, int]
Floats = NDArray[np.floating[Any]]  # float32 or float64

# Input voxels that a processor takes at once: one stretched window of the original, or some hundred native ones.
_CPU_VOXELS = 1 << 24
# Bytes of activations for one input voxel of the original's network (8 channels, twice, and what comes after).
_BYTES_PER_VOXEL = 160


class Scorer(Protocol):
    """A function of windows with a name for caches.

    Attributes:
        key: Text that differs between scorers that give different scores.
    """

    @property
    def key(self) -> str:
        """Return the name."""
        ...

    def __call__(self, windows: NDArray[np.float32]) -> Floats:
        """Return the scores ``[n]`` in [0, 1] of windows ``[n, wx, wy, wz]``."""
        ...


def check_windows(windows: NDArray[Any]) -> None:
    """Refuse windows that are not ``[n, wx, wy, wz]`` or hold no voxel.

    Raises:
        DataError: saying what was found.
    """
    if windows.ndim != 4 or 0 in windows.shape[1:]:
        raise DataError(
            f"windows must be [n, wx, wy, wz] with at least one voxel, found {list(windows.shape)}; "
            "does the window leave the volume?"
        )


class NetworkScorer:
    """Scores by a classifier: the probability of its class 1.

    Windows are stretched to the network's input by the game's nearest-neighbour rule, or go in as they are. The
    network is put on the device in evaluation mode, in which windows do not influence each other.

    Args:
        module: network ``[n, 1, x, y, z]`` → logits ``[n, 2]``.
        target_size: input size in voxels, or ``"native"`` for the window's own size.
        device: where it runs.
        batch: windows scored at once, at most; fewer where memory asks for it.
        fast: score the original's network by its exact acceleration where that applies.
    """

    def __init__(
        self,
        module: nn.Module,
        target_size: Size | Literal["native"] = "native",
        *,
        device: str | torch.device = "cpu",
        batch: int = 64,
        fast: bool = True,
    ) -> None:
        import torch

        self.device = torch.device(device)
        self.module = module.to(self.device).eval()
        self.target_size = target_size
        self._target: Size | None = None if isinstance(target_size, str) else target_size
        self.batch = batch
        self.fast = fast
        self._placed: tuple[NDArray[Any], torch.Tensor] | None = None
        self._accelerated: dict[Size, nn.Module] = {}
        self._indices: dict[tuple[int, int], torch.Tensor] = {}
        self._key: str | None = None

    @property
    def key(self) -> str:
        """SHA-256 of the weights, the network's name and the input size."""
        if self._key is None:
            digest = hashlib.sha256(f"{type(self.module).__name__} {self.target_size}".encode())
            for name, tensor in sorted(self.module.state_dict().items()):
                array = tensor.detach().cpu().numpy()
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            self._key = digest.hexdigest()
        return self._key

    def __call__(self, windows: NDArray[np.float32]) -> Floats:
        """Return the scores ``[n]`` of windows ``[n, wx, wy, wz]`` in the network's precision."""
        import torch

        check_windows(windows)
        size = (int(windows.shape[1]), int(windows.shape[2]), int(windows.shape[3]))
        n = self._batch_size(size)
        with torch.inference_mode():
            parts = [
                self._scores(torch.from_numpy(np.ascontiguousarray(windows[i : i + n])).to(self.device))
                for i in range(0, len(windows), n)
            ]
        return torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)

    def score_starts(self, volume: NDArray[Any], starts: NDArray[np.int64], window: Size) -> Floats:
        """Return the scores ``[n]`` of windows of a volume, cut out on the device.

        Args:
            volume: ``[X, Y, Z]``; it stays on the device until another one comes.
            starts: lowest corners in voxels, ``[n, 3]``, all windows inside the volume.
            window: size in voxels.
        """
        import torch

        n = self._batch_size(window)
        with torch.inference_mode():
            blocks = self._on_device(volume).unfold(0, window[0], 1).unfold(1, window[1], 1)
            blocks = blocks.unfold(2, window[2], 1)
            corners = torch.from_numpy(np.ascontiguousarray(starts)).to(self.device)
            parts = []
            for i in range(0, len(starts), n):
                x, y, z = corners[i : i + n].unbind(1)
                parts.append(self._scores(blocks[x, y, z]))
        return torch.cat(parts).cpu().numpy() if parts else np.zeros(0, np.float32)

    def _on_device(self, volume: NDArray[Any]) -> torch.Tensor:
        import torch

        if self._placed is None or self._placed[0] is not volume:
            array = np.ascontiguousarray(volume, np.float32)
            self._placed = (volume, torch.tensor(array).to(self.device))
        return self._placed[1]

    def _scores(self, crops: torch.Tensor) -> torch.Tensor:
        import torch

        parameter = next(self.module.parameters(), None)
        crops = crops.to(torch.float32 if parameter is None else parameter.dtype)
        return torch.softmax(self._logits(crops), dim=1)[:, 1]

    def _logits(self, crops: torch.Tensor) -> torch.Tensor:
        size = (crops.shape[1], crops.shape[2], crops.shape[3])
        fast = self._fast_net(size) if self.fast and self._target is not None else None
        return self.module(self._stretched(crops).unsqueeze(1)) if fast is None else fast(crops)

    def _fast_net(self, size: Size) -> nn.Module | None:
        """Return the accelerated network for windows of a size, where the network is the original's.

        It takes windows one by one, so that a GPU is better off with the plain network.
        """
        from spars.models.fast_net import FastNet
        from spars.models.net import Net

        if self.device.type != "cpu" or not isinstance(self.module, Net) or self._target is None:
            return None
        if size not in self._accelerated:
            self._accelerated[size] = FastNet(self.module, size, self._target)
        return self._accelerated[size]

    def _stretched(self, crops: torch.Tensor) -> torch.Tensor:
        if self._target is not None:
            for axis, target in enumerate(self._target, start=1):
                crops = crops.index_select(axis, self._index(crops.shape[axis], target))
        return crops

    def _index(self, n: int, target: int) -> torch.Tensor:
        import torch

        if (n, target) not in self._indices:
            self._indices[n, target] = torch.from_numpy(nearest_sources(n, target)).to(self.device)
        return self._indices[n, target]

    def _batch_size(self, window: Size) -> int:
        import torch

        voxels = int(np.prod(window if self._target is None else self._target))
        most = _CPU_VOXELS // voxels
        if self.device.type == "cuda":
            most = torch.cuda.mem_get_info(self.device)[0] // (2 * _BYTES_PER_VOXEL * voxels)
        return max(1, min(self.batch, most))


class StubScorer:
    """Scores by the mean: ``sigmoid((mean − b) / a)``, for tests and examples without a network.

    Args:
        a: width of the transition in the volume's unit.
        b: mean that scores 0.5.
        target_size: take the mean of the window stretched to that size, in which voxels may count unequally.
    """

    def __init__(self, a: float, b: float, target_size: Size | None = None) -> None:
        self.a = a
        self.b = b
        self.target_size = target_size

    @property
    def key(self) -> str:
        """The parameters."""
        return f"stub {self.a} {self.b} {self.target_size}"

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores ``[n]`` of windows ``[n, wx, wy, wz]``."""
        check_windows(windows)
        means = windows.astype(np.float64)
        for axis in (3, 2, 1):  # the last axis first: each turn leaves one axis less
            means = means @ self._weights(means.shape[axis], axis - 1)
        # The logistic function that does not overflow.
        return np.asarray(0.5 * (1 + np.tanh((means - self.b) / (2 * self.a))), np.float64)

    def _weights(self, n: int, axis: int) -> NDArray[np.float64]:
        if self.target_size is None:
            return np.full(n, 1 / n)
        target = self.target_size[axis]
        return np.bincount(nearest_sources(n, target), minlength=n) / target


class CountingScorer:
    """Passes windows to another scorer and counts them.

    Args:
        scorer: the scorer to count for.

    Attributes:
        n_windows: Windows scored so far.
        n_calls: Calls so far.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.n_windows = 0
        self.n_calls = 0

    @property
    def key(self) -> str:
        """The key of the scorer inside."""
        return self.scorer.key

    def __call__(self, windows: NDArray[np.float32]) -> Floats:
        """Return the scores ``[n]`` of windows ``[n, wx, wy, wz]``."""
        self.n_windows += len(windows)
        self.n_calls += 1
        return self.scorer(windows)
