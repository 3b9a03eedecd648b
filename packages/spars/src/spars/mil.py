"""Training from one label for each volume: the score of a volume is pooled from those of its windows.

This is the weak supervision that the method claims; the original chooses its crops with the voxel mask. With z the
difference of a window's two logits, so that its score is p = σ(z), the volume's probability is

* ``max``: σ(max z);
* ``top-k``: σ(mean of the k largest z);
* ``lse``: σ((1/r)·log mean exp(r·z)), r = 4: between mean and maximum;
* ``noisy-or``: 1 − Π(1 − p): tumour somewhere, were windows independent. With dozens of windows it is near 1 from the
  start, and learns least reliably of the four.

A network that cannot tell windows apart yet picks its k at random and may never begin to learn. So in the first steps
every window carries its volume's label: windows without tumour then occur with both labels, those with tumour with one.
The weight of that loss falls to 0 while that of the pooled one rises to 1.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from medshared.gpu import derive_seed
from spars.classifier_data import (
    ClassifierData,
    Target,
    batch_logits,
    crop_source,
    scheduled,
    score_in_batches,
)
from spars.classifier_metrics import Value, decision_metrics
from spars.config import ClassifierConfig
from spars.errors import DataError

logger = logging.getLogger(__name__)

Pooling = Literal["max", "top-k", "noisy-or", "lse"]
SHARPNESS = 4.0  # r of lse
WARM_STEPS = 80  # of training until the pooled loss counts alone
_VALIDATION = 2  # times as many windows of a validation case as of a training one


def pool_logits(z: Tensor, pooling: Pooling, k: int = 4) -> Tensor:
    """Pool the windows of each volume.

    Args:
        z: Logit differences ``[volumes, windows]``.
        pooling: How.
        k: Windows that count with ``top-k``, at most all.

    Returns:
        The volumes' logits ``[volumes]``; σ of them is the probability of tumour.
    """
    if pooling == "max":
        return z.amax(1)
    if pooling == "top-k":
        return z.topk(min(k, z.shape[1]), dim=1).values.mean(1)
    if pooling == "lse":
        return (torch.logsumexp(SHARPNESS * z, 1) - np.log(z.shape[1])) / SHARPNESS
    if pooling == "noisy-or":
        # −log Π(1 − p) = Σ softplus(z) = s; the logit of 1 − e^−s is log(e^s − 1), for large s simply s.
        s = softplus(z).sum(1)
        return s + torch.log(-torch.expm1(-s).clamp(max=-torch.finfo(s.dtype).tiny))
    raise ValueError(f"pooling must be max, top-k, noisy-or or lse, found {pooling!r}")


class BagTask:
    """Volumes of both classes, told apart by the pooled scores of windows drawn from them.

    Half of every batch are volumes with tumour; voxel labels are never looked at.

    Args:
        data: The volumes.
        labels: 0 or 1 by case name, of all training and validation cases.
        config: Resolved configuration.

    Raises:
        DataError: A class has no training case.
    """

    def __init__(self, data: ClassifierData, labels: Mapping[str, int], config: ClassifierConfig) -> None:
        self.config = config
        self.target: Target = config.target_size or "native"
        if config.negative_region == "liver":
            raise DataError(
                "negative_region: liver needs voxel labels, which label_source: csv does without; set body or volume"
            )
        self.sources = [crop_source(case, config, labelled=False) for case in data.train]
        self.classes = {
            value: [i for i, case in enumerate(data.train) if labels[case.name] == value] for value in (0, 1)
        }
        for value, name in ((1, "with"), (0, "without")):
            if not self.classes[value]:
                raise DataError(
                    f"no training case {name} tumour among {len(self.sources)}: image-level labels teach nothing "
                    f"unless both 0 and 1 occur; add cases {name} tumour to the training part of the split"
                )
        self.val_labels = np.array([labels[case.name] for case in data.val])
        if len(set(self.val_labels.tolist())) < 2:
            logger.warning(
                "validation cases are all of one class: the AUC is undefined and the last epoch is kept"
            )
        self.val_windows = np.concatenate(
            [
                crop_source(case, config, labelled=False).draw_windows(
                    _VALIDATION * config.mil_crops,
                    np.random.default_rng(derive_seed(config.seed, "validation", case.name)),
                )
                for case in data.val
            ]
        )

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return self.config.train_batches or max(1, len(self.sources) // self.config.batch_size)

    def loss(
        self, network: nn.Module, epoch: int, index: int, device: torch.device
    ) -> tuple[Tensor, int, int]:
        """Return the loss of one training batch, how many volumes were called right, and how many there were.

        Args:
            network: In training mode.
            epoch: 0-based.
            index: 0-based batch.
            device: Where the network is.
        """
        config = self.config
        chosen: list[int] = []
        for value, n in ((1, (config.batch_size + 1) // 2), (0, max(1, config.batch_size // 2))):
            among = self.classes[value]
            seed = derive_seed(config.seed, "class", value)
            chosen += [among[i] for i in scheduled(len(among), n, epoch, index, seed)]
        rng = np.random.default_rng(derive_seed(config.seed, "windows", epoch, index))
        windows = np.concatenate([self.sources[i].draw_windows(config.mil_crops, rng) for i in chosen])
        targets = torch.tensor([float(i in self.classes[1]) for i in chosen], device=device)
        logits = batch_logits(network, windows, self.target, device)
        z = self._pooled(logits, len(chosen))
        right = int(((z.detach() > 0) == (targets > 0)).sum())
        loss = binary_cross_entropy_with_logits(z, targets)
        pooled = min(1.0, (epoch * self.n_batches + index) / WARM_STEPS)
        if pooled < 1:
            single = logits[:, 1] - logits[:, 0]
            of_windows = binary_cross_entropy_with_logits(single, targets.repeat_interleave(config.mil_crops))
            loss = pooled * loss + (1 - pooled) * of_windows
        return loss, right, len(chosen)

    def validate(self, network: nn.Module) -> dict[str, Value]:
        """Return ``loss`` and the metrics of the validation volumes, from one fixed set of windows of each.

        Args:
            network: The classifier.
        """
        batch = self.config.batch_size * self.config.mil_crops
        logits = score_in_batches(network, self.val_windows, self.target, batch)  # type: ignore[arg-type]
        z = self._pooled(logits.double(), len(self.val_labels))
        loss = float(binary_cross_entropy_with_logits(z, torch.from_numpy(self.val_labels).double()))
        return {"loss": loss, **decision_metrics(z.sigmoid().numpy(), self.val_labels)}

    def _pooled(self, logits: Tensor, n: int) -> Tensor:
        z = (logits[:, 1] - logits[:, 0]).reshape(n, -1)
        return pool_logits(z, self.config.mil_pooling, self.config.mil_top_k)
