"""What a training script logs once an epoch, under the original's names.

``pooled`` (default): losses are means over the samples of their own task, Dice comes from sums over the whole epoch,
FROC from all patches at once. ``batch`` (the original): every value is the mean of the step values weighted by the
batch size, and a batch without a task counts 0 for it, so that values depend on the sizes of the two sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from medshared.distributed import collected, process_count
from til_mtl.config import TISSUES, Config
from til_mtl.losses import CellTerms, TissueTerms

_STEP_KEYS = {
    "mtl": ("loss_seg", "loss_det", "bce_loss", "dice_loss", "dice3", "froc"),
    "seg": ("loss_seg", "bce_loss", "dice_loss", "dice3"),
    "det": ("loss_det", "bce_loss", "froc"),
}


# What one step adds: terms of both tasks, the loss, the number of samples, the original's FROC.
StepTerms = tuple[TissueTerms | None, CellTerms | None, Tensor, int, float | None]
Other = TypeVar("Other")


class EpochValues:
    """Sums over the steps of one epoch.

    Args:
        config: Resolved configuration.
        device: Where the sums live; nothing is copied from it before the epoch ends.
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        c = config.num_classes_seg
        self.n = {"all": 0, "seg": 0, "det": 0, "froc": 0}
        # Samples times value: loss, bce, dice_loss, dice_total of tissue; loss, bce of cells; Dice by class; FROC.
        self.sums: dict[str, Tensor] = {
            "seg": torch.zeros(4, dtype=torch.float64),
            "det": torch.zeros(2, dtype=torch.float64),
            "total": torch.zeros(1, dtype=torch.float64),
            "seg_dice": torch.zeros(c, dtype=torch.float64),
            "det_dice": torch.zeros(2, dtype=torch.float64),
            "seg_overlap": torch.zeros(2, c, dtype=torch.float64),
            "det_overlap": torch.zeros(2, 2, dtype=torch.float64),
            "froc": torch.zeros(1, dtype=torch.float64),
        }
        self.sums = {key: value.to(self.device) for key, value in self.sums.items()}
        self.confusion = torch.zeros(c, c, dtype=torch.int64, device=self.device)

    def add(
        self,
        tissue: TissueTerms | None,
        cells: CellTerms | None,
        total: Tensor,
        n: int,
        batch_froc: float | None = None,
    ) -> None:
        """Add one step.

        Args:
            tissue: Terms of the batch's tissue patches; null without any.
            cells: Terms of its cell patches; null without any.
            total: The step's loss.
            n: Samples of the batch.
            batch_froc: The original's FROC of the batch, where it is wanted.
        """
        batchwise = self.config.resolved_value("epoch_values") == "batch"
        self.n["all"] += n
        self._sum("total", total.detach().reshape(1), n)
        if tissue is not None:
            weight = n if batchwise else tissue.n
            self.n["seg"] += tissue.n
            values = (tissue.loss, tissue.bce, tissue.dice_loss, tissue.dice_total)
            self._sum("seg", torch.stack([value.detach().double() for value in values]), weight)
            self._sum("seg_dice", tissue.dice.nan_to_num(), weight)
            self._sum("seg_overlap", tissue.sums, 1)
            self.confusion += tissue.confusion
        if cells is not None:
            weight = n if batchwise else cells.n
            self.n["det"] += cells.n
            self._sum("det", torch.stack([cells.loss.detach().double(), cells.bce.detach().double()]), weight)
            self._sum("det_dice", cells.dice.nan_to_num(), weight)
            self._sum("det_overlap", cells.sums, 1)
        if batch_froc is not None:
            self.n["froc"] += 1
            self.sums["froc"] += batch_froc * n

    def _sum(self, key: str, value: Tensor, weight: int) -> None:
        self.sums[key] += value.detach().to(torch.float64) * weight

    def values(self, prefix: str, froc: float | None = None) -> dict[str, float]:
        """Return the epoch's values under the original's names.

        Args:
            prefix: ``train``, ``val`` or ``test``.
            froc: The FROC of the epoch over all patches (TIGER's definition); null without one.

        Returns:
            A value that is not defined (a task without patches, a class without pixels) is NaN.
        """
        batchwise = self.config.resolved_value("epoch_values") == "batch"
        found = self._batch_values() if batchwise else self._pooled_values()
        task = self.config.task
        if task != "seg":
            legacy = self.config.resolved_value("froc") == "legacy"
            if self.n["froc"] and (legacy or froc is None):
                found["froc"] = self.sums["froc"].item() / max(self.n["all"], 1)
            elif froc is not None:
                found["froc"] = froc
        if task != "det":
            found |= self._hard_dice()
        return {f"{prefix}_{name}": value for name, value in found.items()}

    def _pooled_values(self) -> dict[str, float]:
        seg = (self.sums["seg"] / self.n["seg"]).tolist() if self.n["seg"] else [math.nan] * 4
        det = (self.sums["det"] / self.n["det"]).tolist() if self.n["det"] else [math.nan] * 2
        overlap = {key: self.sums[key].cpu() for key in ("seg_overlap", "det_overlap")}
        total = overlap["seg_overlap"].sum(1)
        return self._named(
            loss=self._total_loss(seg[0], det[0]),
            seg=seg,
            det=det,
            dice3=_ratio(2 * total[0].item(), total[1].item()) if self.n["seg"] else math.nan,
            seg_dice=_dice(overlap["seg_overlap"]),
            det_dice=_dice(overlap["det_overlap"]),
        )

    def _total_loss(self, seg: float, det: float) -> float:
        if self.config.task != "mtl":
            return seg if self.config.task == "seg" else det
        # A set that has only one task is judged by that task; a loss that is not a number stays one.
        found = zip(self.config.loss_weights, (seg, det), (self.n["seg"], self.n["det"]), strict=True)
        parts = [weight * value for weight, value, n in found if n]
        return sum(parts) if parts else math.nan

    def _batch_values(self) -> dict[str, float]:
        n = max(self.n["all"], 1)
        seg, det = (self.sums["seg"] / n).tolist(), (self.sums["det"] / n).tolist()
        return self._named(
            loss=self.sums["total"].item() / n,
            seg=seg,
            det=det,
            dice3=seg[3],
            seg_dice=(self.sums["seg_dice"] / n).tolist(),
            det_dice=(self.sums["det_dice"] / n).tolist(),
        )

    def _named(
        self,
        *,
        loss: float,
        seg: list[float],
        det: list[float],
        dice3: float,
        seg_dice: list[float],
        det_dice: list[float],
    ) -> dict[str, float]:
        """Give the values the names that the script of this task logs."""
        if self.config.task == "det":
            names = ("dice_background", "dice_lymphocytes")
            return {"loss": loss, "bce_loss": det[1], **dict(zip(names, det_dice, strict=True))}
        named = {"dice3": dice3, "loss": loss, "bce_loss": seg[1], "dice_loss": seg[2]}
        named |= {
            f"dice_{name}": value for name, value in zip(tissue_names(len(seg_dice)), seg_dice, strict=True)
        }
        if self.config.task == "mtl":
            named |= {"loss_seg": seg[0], "loss_det": det[0]}
        return named

    def _hard_dice(self) -> dict[str, float]:
        """Return Dice of the argmax, pooled over the epoch."""
        counts = self.confusion.cpu().double()
        dice = _dice(torch.stack([counts.diagonal(), counts.sum(0) + counts.sum(1)]))
        names = tissue_names(len(dice))
        hard = {f"dice_hard_{name}": value for name, value in zip(names, dice, strict=True)}
        wanted = [value for value in dice[1:3] if not math.isnan(value)]
        return hard | {"dice_mean": sum(wanted) / len(wanted) if wanted else math.nan}

    def state(self) -> dict[str, Any]:
        """Return what a run that is stopped within an epoch needs to go on."""
        return {"n": dict(self.n), "confusion": self.confusion.cpu()} | {
            "sums": {key: value.cpu() for key, value in self.sums.items()}
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.n = dict(state["n"])
        self.confusion = state["confusion"].to(self.device)
        self.sums = {key: value.to(self.device) for key, value in state["sums"].items()}


def in_order(
    found: Sequence[tuple[StepTerms, Other]], device: torch.device
) -> Sequence[tuple[StepTerms, Other]]:
    """Return what all processes found in turns, in order; a process on its own keeps what it has.

    Args:
        found: Of every batch of this process: its terms, and what goes with them.
        device: Where the terms are needed.
    """
    if process_count() == 1:
        return found
    sent = collected([((*(_moved(term, "cpu") for term in step),), other) for step, other in found])
    return [((*(_moved(term, device) for term in step),), other) for step, other in sent]  # type: ignore[misc]


def _moved(term: Any, device: torch.device | str) -> Any:
    if isinstance(term, tuple):
        return type(term)(*(_moved(each, device) for each in term))
    return term.to(device) if isinstance(term, Tensor) else term


def tissue_names(n: int) -> tuple[str, ...]:
    """Return the names of n tissue classes; beyond the three of the method they are numbered."""
    return (*TISSUES[:n], *(f"class{i}" for i in range(len(TISSUES), n)))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan


def _dice(overlap: Tensor) -> list[float]:
    """Return 2I/U of each class from [2, C] sums; NaN for a class without truth and prediction."""
    # The 1e-8 that the losses add to each union is no pixel.
    return [_ratio(2 * i, u) if u > 0.5 else math.nan for i, u in zip(*overlap.tolist(), strict=True)]
