"""What the classifier sees of the volumes when voxel labels say what a crop holds.

Every draw depends on the seed, the epoch and the batch only, so that a run that goes on from a checkpoint sees what it
would have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from medshared.distributed import Share
from medshared.gpu import derive_seed
from medshared.shared_layers import computing
from spars.classifier_metrics import Value, decision_metrics
from spars.config import ClassifierConfig
from spars.crops import CropSource, body_level
from spars.data.grid import GridCase, load_grid_cases
from spars.data.layout import find_cases
from spars.data.splits import choose_cases
from spars.errors import DataError

if TYPE_CHECKING:
    from spars.crops import Region

logger = logging.getLogger(__name__)

Target = tuple[int, int, int] | Literal["native"]


@dataclass(frozen=True)
class ClassifierData:
    """The volumes of one training, on the grid.

    Attributes:
        train: Cases that train.
        val: Cases on which the epoch is chosen.
    """

    train: list[GridCase]
    val: list[GridCase]


def load_classifier_data(config: ClassifierConfig) -> ClassifierData:
    """Find, split and read the volumes; all stay in memory as float32 on the grid.

    Args:
        config: Resolved configuration.

    Raises:
        DataError: A set is empty, a file cannot be used.
    """
    chosen = choose_cases(config, find_cases(config.data_dir))
    for part in ("train", "val"):
        if not chosen[part]:
            raise DataError(f"the split has no {part} cases; the classifier needs both train and val")
    return ClassifierData(
        load_grid_cases(chosen["train"], config, config.workers),
        load_grid_cases(chosen["val"], config, config.workers),
    )


def crop_source(case: GridCase, config: ClassifierConfig, *, labelled: bool = True) -> CropSource:
    """Return where the crops of a case come from.

    Args:
        case: On the grid.
        config: Resolved configuration.
        labelled: Use its voxel labels.

    Raises:
        DataError: It has none.
    """
    if labelled and case.label is None:
        raise DataError(
            f"{case.name}: no voxel labels, which label_source: mask needs; set label_source: csv to train on one "
            "label for each volume"
        )
    region: Region = config.negative_region or "body"
    return CropSource(
        case.image,
        case.label if labelled else None,
        config.crop_size,
        min_tumour_voxels=config.min_tumour_voxels,
        negative_region=region,
        body_above=body_level(config.hu_window),
        name=case.name,
    )


def as_input(windows: np.ndarray, target_size: Target, device: torch.device | str) -> Tensor:
    """Return windows ``[n, x, y, z]`` as the network's input ``[n, 1, …]``, stretched as the game stretches them.

    Args:
        windows: float32.
        target_size: What they are stretched to (nearest voxel); ``native`` = not at all.
        device: Where to.
    """
    batch = torch.from_numpy(windows)[:, None].to(device)
    return batch if target_size == "native" else interpolate(batch, size=tuple(target_size), mode="nearest")


def batch_logits(network: nn.Module, windows: np.ndarray, target: Target, device: torch.device) -> Tensor:
    """Return the logits of all windows of a batch, ``[n, 2]``; of several processes each computes its share of them.

    Args:
        network: The classifier.
        windows: float32 ``[n, x, y, z]``, the same ones in every process.
        target: What they are stretched to.
        device: Where the network is.
    """
    share = Share.of(len(windows))
    with computing(share):
        return share.gather(network(as_input(share.take(windows), target, device)))


def scheduled(n: int, wanted: int, epoch: int, index: int, seed: int) -> list[int]:
    """Return which of ``n`` cases make a batch: the shuffled cases one after the other, shuffled anew when used up.

    Args:
        n: Number of cases.
        wanted: Cases of a batch.
        epoch: 0-based.
        index: 0-based batch of the epoch.
        seed: Of the shuffling.
    """
    places = range(index * wanted, (index + 1) * wanted)
    rounds = {place // n for place in places}
    order = {
        each: np.random.default_rng(derive_seed(seed, "order", epoch, each)).permutation(n) for each in rounds
    }
    return [int(order[place // n][place % n]) for place in places]


def score_in_batches(network: nn.Module, inputs: Sequence[np.ndarray], target: Target, size: int) -> Tensor:
    """Return the logits of many windows, float32 ``[n, 2]`` on the CPU, in evaluation mode.

    Every process of a training must call it: each computes its share of each batch.

    Args:
        network: The classifier; its mode is put back.
        inputs: float32 windows ``[n, x, y, z]``.
        target: What they are stretched to.
        size: Windows of a batch.
    """
    before = network.training
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        parts = [
            batch_logits(network, np.asarray(inputs[i : i + size]), target, device).float().cpu()
            for i in range(0, len(inputs), size)
        ]
    network.train(before)
    return torch.cat(parts)


class CropTask:
    """Crops of both classes, told apart by cross entropy.

    Args:
        data: The volumes.
        config: Resolved configuration.

    Raises:
        DataError: A case without labels; no tumour in any training case.
    """

    def __init__(self, data: ClassifierData, config: ClassifierConfig) -> None:
        self.config = config
        self.target: Target = config.target_size or "native"
        self.sources = [crop_source(case, config) for case in data.train]
        if not any(source.has_positives for source in self.sources):
            raise DataError(
                f"none of the {len(self.sources)} training cases has {config.min_tumour_voxels} tumour voxels (label "
                "2): the classifier needs cases of both classes; check labels, label_map and the split"
            )
        self.windows, self.classes = self._validation(data.val)
        for value, name in ((1, "positive"), (0, "negative")):
            if not (self.classes == value).any():
                logger.warning("no %s validation crop: the AUC is undefined and the last epoch is kept", name)

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return self.config.train_batches or max(1, len(self.sources) // self.config.batch_size)

    def loss(
        self, network: nn.Module, epoch: int, index: int, device: torch.device
    ) -> tuple[Tensor, int, int]:
        """Return the loss of one training batch, how many crops were called right, and how many there were.

        Args:
            network: In training mode.
            epoch: 0-based.
            index: 0-based batch.
            device: Where the network is.
        """
        config = self.config
        chosen = scheduled(len(self.sources), config.batch_size, epoch, index, config.seed)
        rng = np.random.default_rng(derive_seed(config.seed, "crops", epoch, index))
        drawn = [self.sources[i].draw(config.crop_no, rng) for i in chosen]
        windows = np.concatenate([crops for crops, _ in drawn])
        classes = torch.from_numpy(np.concatenate([classes for _, classes in drawn])).to(device)
        logits = batch_logits(network, windows, self.target, device)
        right = int((logits.detach().argmax(1) == classes).sum())
        return cross_entropy(logits, classes), right, len(classes)

    def validate(self, network: nn.Module) -> dict[str, Value]:
        """Return ``loss`` and the metrics of the fixed validation crops.

        Args:
            network: The classifier.
        """
        batch = self.config.batch_size * self.config.crop_no
        logits = score_in_batches(network, self.windows, self.target, batch)  # type: ignore[arg-type]
        classes = torch.from_numpy(self.classes)
        loss = float(cross_entropy(logits.double(), classes))
        return {"loss": loss, **decision_metrics(logits.double().softmax(1)[:, 1].numpy(), self.classes)}

    def _validation(self, cases: Sequence[GridCase]) -> tuple[np.ndarray, np.ndarray]:
        """Draw the one set that every epoch is measured on; the original draws a new one each time."""
        config = self.config
        total = config.val_batches * config.batch_size * config.crop_no
        each = -(-total // len(cases))
        drawn = []
        for case in cases:
            rng = np.random.default_rng(derive_seed(config.seed, "validation", case.name))
            drawn.append(crop_source(case, config).draw(each, rng))
        return np.concatenate([crops for crops, _ in drawn]), np.concatenate(
            [classes for _, classes in drawn]
        )
