"""What the networks say about tiles: tissue class and cell probability of every pixel."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from til_mtl.errors import CheckpointError
from til_mtl.til_score import OTHER, STROMA, TUMOR

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from til_mtl.config import Task
    from til_mtl.slides.options import SlideOptions


# Class of the network (0 other, 1 tumour, 2 stroma) → value in segmentation.tif (0 is background).
VALUES = np.array([OTHER, TUMOR, STROMA], np.uint8)


class SlideModel(Protocol):
    """Anything that turns tiles into maps."""

    def __call__(self, tiles: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Predict a few tiles.

        Args:
            tiles: uint8 ``[n, P, P, 3]``.

        Returns:
            Tissue, and the probability of a cell, float32 ``[n, P, P]``. Tissue is either logits or probabilities,
            float32 ``[n, 3, P, P]``, or the classes themselves, uint8 ``[n, P, P]``: 0 other, 1 tumour, 2 stroma.
        """
        ...


def run_model(model: SlideModel, tiles: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Run a model and check what it returns.

    Raises:
        ValueError: Maps that do not fit the tiles.
    """
    tissue, cells = model(tiles)
    if tissue.shape[-2:] != tiles.shape[1:3] or cells.shape != tiles.shape[:3]:
        raise ValueError(
            f"the model returned maps of shape {list(tissue.shape)} and {list(cells.shape)} for tiles of "
            f"shape {list(tiles.shape)}"
        )
    return tissue, cells


def label_map(tissue: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the challenge's labels (1 tumour, 2 stroma, 3 other) of one tile, from classes or probabilities."""
    return VALUES[tissue.argmax(axis=0) if tissue.ndim == 3 else tissue]


class NetworkModel:
    """One multi-task network, or a tissue network and a cell network."""

    def __init__(
        self,
        networks: Sequence[Any],
        normalize: str | Sequence[str] = "none",
        device: torch.device | str = "cpu",
        precision: str = "32",
        *,
        keep_probabilities: bool = False,
    ) -> None:
        """Take the networks over.

        Args:
            networks: `TilNetwork`s; tissue and cells are taken from the first that has them.
            normalize: Of the input, one for all or one a network.
            device: Where they run.
            precision: ``32``, ``16``, ``bf16`` or ``auto``.
            keep_probabilities: Return the probabilities of the tissues instead of the most probable class.

        Raises:
            CheckpointError: Neither of the networks says anything about tissue, or about cells.
        """
        import torch

        from medshared.gpu import resolve_precision

        tasks = [network.task for network in networks]
        for part, task in (("tissue", "seg"), ("cells", "det")):
            if "mtl" not in tasks and task not in tasks:
                raise CheckpointError(
                    f"a TIL score needs tissue and cells, but the checkpoint's task is {', '.join(tasks)} and nothing "
                    f"predicts {part}; give a multi-task checkpoint, or --checkpoint and --det-checkpoint"
                )
        names = [normalize] * len(networks) if isinstance(normalize, str) else list(normalize)
        self._normalize = names
        self._device = torch.device(device)
        self._dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(
            resolve_precision(precision, self._device)
        )
        # A sixth to a quarter faster on CPU and GPU alike.
        layout: Any = torch.contiguous_format if self._device.type == "mps" else torch.channels_last
        self._networks = [network.to(self._device, memory_format=layout).eval() for network in networks]
        self._keep_probabilities = keep_probabilities
        self._lock = threading.Lock()  # slides that are worked on side by side share the networks

    def __call__(self, tiles: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Predict a few tiles; see `SlideModel`."""
        import torch

        from til_mtl.data.loading import to_tensor

        tissue = cells = None
        mixed = (
            torch.autocast(self._device.type, self._dtype)
            if self._dtype is not None
            else contextlib.nullcontext()
        )
        with self._lock, torch.inference_mode(), mixed:
            for network, normalize in zip(self._networks, self._normalize, strict=True):
                if tissue is not None and cells is not None:
                    break
                maps = network.maps(to_tensor(tiles, normalize, self._device))
                tissue = maps.seg if tissue is None else tissue
                cells = maps.det if cells is None else cells
            assert tissue is not None and cells is not None  # noqa: S101, PT018  # checked when it was made
            if self._keep_probabilities:
                shown = tissue.float().softmax(dim=1)
            else:
                shown = tissue.argmax(dim=1).to(torch.uint8)
            # The softmax over two classes is the sigmoid of their difference.
            probability = (cells[:, 1].float() - cells[:, 0].float()).sigmoid()
            return shown.cpu().numpy(), probability.cpu().numpy()


def load_model(options: SlideOptions) -> SlideModel:
    """Load the checkpoints that the options name.

    Raises:
        CheckpointError: No checkpoint, or checkpoints of the wrong tasks.
    """
    from medshared.gpu import select_device
    from til_mtl.models.checkpoint import load_network

    if options.checkpoint is None:
        raise CheckpointError("give --checkpoint: a run's best.pt, or a checkpoint of the original")
    device = select_device(options.device)
    networks, normalizations = [], []
    files: list[tuple[Path, Task | None]] = [
        (options.checkpoint, None if options.det_checkpoint is None else "seg")
    ]
    if options.det_checkpoint is not None:
        files.append((options.det_checkpoint, "det"))
    for path, task in files:
        network, meta = load_network(path, task=task, device=device)
        networks.append(network)
        config: Any = meta.get("config") or {}
        normalizations.append(options.normalize or config.get("normalize", "none"))
    return NetworkModel(
        networks, normalizations, device, options.precision, keep_probabilities=options.save_maps
    )
