"""The original's training and evaluation of the classifier: one epoch of each."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from spars.errors import TrainingError
from spars.original.crops import crop_classes

logger = logging.getLogger(__name__)


class BatchSource(Protocol):
    """Where batches come from, e.g. :class:`spars.original.dataset.NIfTIDataset`."""

    def get_data_batch(self, batch_size: int, start_file_no: int, end_file_no: int) -> tuple[Tensor, Tensor]:
        """Return crops ``[n, 1, X, Y, Z]`` and their stretched tumour masks."""
        ...


@dataclass(frozen=True)
class Confusion:
    """Counts over all batches of an evaluation.

    Attributes:
        true_positives: Crops with tumour that were called so.
        true_negatives: Crops without that were called so.
        false_positives: Crops without tumour that were called positive.
        false_negatives: Crops with tumour that were missed.
        last_accuracy: Share of right answers in the last batch, which the original prints as its accuracy.
    """

    true_positives: int
    true_negatives: int
    false_positives: int
    false_negatives: int
    last_accuracy: float

    @property
    def accuracy(self) -> float:
        """Share of right answers over all batches."""
        right = self.true_positives + self.true_negatives
        return right / (right + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float | None:
        """Share of tumour among the positive answers; None without any."""
        return _share(self.true_positives, self.false_positives)

    @property
    def sensitivity(self) -> float | None:
        """Share of the crops with tumour that were found; None without any."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def specificity(self) -> float | None:
        """Share of the crops without tumour that were called so; None without any."""
        return _share(self.true_negatives, self.false_positives)

    def lines(self, *, faithful: bool = False) -> list[str]:
        """Return the original's printed block.

        Args:
            faithful: The accuracy is the last batch's and undefined shares read 0; else it is that of all batches and
                they read "undefined".
        """

        def show(value: float | None) -> str:
            return f"{value:.4f}" if value is not None else "0.0000" if faithful else "undefined"

        counts = ("true_positives", "true_negatives", "false_positives", "false_negatives")
        return [
            *(f"{name}: {getattr(self, name)}" for name in counts),
            f"Accuracy: {self.last_accuracy if faithful else self.accuracy:.2f}",
            "Confusion Matrix",
            f"Precision: {show(self.precision)}",
            f"Sensitivity: {show(self.sensitivity)}",
            f"Specificity: {show(self.specificity)}",
        ]


def train_network(
    net: nn.Module,
    dataset: BatchSource,
    optimizer: torch.optim.Optimizer,
    *,
    epoch: int = 1,
    no_of_batches: int = 6,
    batch_size: int = 4,
    start_file_no: int = 0,
    end_file_no: int = 24,
    device: str | torch.device = "cpu",
    faithful: bool = False,
) -> float:
    """Train for one epoch: cross entropy of the two logits, mean over the crops of a batch.

    Args:
        net: The classifier.
        dataset: Where batches come from; volumes are drawn with replacement.
        optimizer: Of the classifier's parameters; the original's is Adam with learning rate 0.001.
        epoch: Its number, from 1, for the log.
        no_of_batches: Batches, and steps.
        batch_size: Volumes of a batch.
        start_file_no: First case that may be drawn.
        end_file_no: One past the last.
        device: Where the classifier is.
        faithful: As the original: a crop is positive where the largest value of its stretched mask is exactly 1; else
            where any value is positive.

    Returns:
        Mean loss over the batches.

    Raises:
        TrainingError: The loss is no longer a finite number.
    """
    logger.info("epoch: %d", epoch)
    net.train()
    criterion = nn.CrossEntropyLoss()
    total = 0.0
    for index in range(no_of_batches):
        images, labels = dataset.get_data_batch(batch_size, start_file_no, end_file_no)
        logger.info("iter: %d", index)
        logger.debug("images %s, labels %s", tuple(images.shape), tuple(labels.shape))
        classes = crop_classes(labels, faithful=faithful).to(device)
        optimizer.zero_grad()
        loss = criterion(net(images.float().to(device)), classes)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {epoch}, batch {index}: the loss is {value}; lower lr, or look for NaN in the images"
            )
        loss.backward()
        optimizer.step()
        total += value
    mean = total / no_of_batches
    logger.info("Epoch %d - Average Training Loss: %.4f", epoch, mean)
    return mean


@torch.no_grad()
def evaluate_network(
    net: nn.Module,
    dataset: BatchSource,
    *,
    no_of_batches: int = 4,
    batch_size: int = 4,
    start_file_no: int = 24,
    end_file_no: int = 40,
    device: str | torch.device = "cpu",
    faithful: bool = False,
) -> Confusion:
    """``test_network``: evaluate on batches that are drawn anew, and log the original's block of lines.

    Args:
        net: The classifier; left in evaluation mode.
        dataset: Where batches come from.
        no_of_batches: Batches.
        batch_size: Volumes of a batch.
        start_file_no: First case that may be drawn.
        end_file_no: One past the last.
        device: Where the classifier is.
        faithful: Classes as in :func:`train_network`, and the lines as the original prints them.

    Returns:
        The counts over all batches.
    """
    logger.info("Evaluating the network")
    net.eval()
    counts = torch.zeros(2, 2, dtype=torch.int64)  # [class, answer]
    last = 0.0
    for _ in range(no_of_batches):
        images, labels = dataset.get_data_batch(batch_size, start_file_no, end_file_no)
        classes = crop_classes(labels, faithful=faithful)
        answers = net(images.float().to(device)).argmax(1).cpu()
        counts += torch.bincount(2 * classes + answers, minlength=4).reshape(2, 2)
        last = float((classes == answers).double().mean())
    (tn, fp), (fn, tp) = counts.tolist()
    found = Confusion(tp, tn, fp, fn, last)
    for line in found.lines(faithful=faithful):
        logger.info("%s", line)
    return found


test_network = evaluate_network  # the original's name, under which pytest would take it for a test
test_network.__test__ = False  # type: ignore[attr-defined]


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None
