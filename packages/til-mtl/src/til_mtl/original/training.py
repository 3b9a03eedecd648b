"""The original's training module under its name, for code that loads its checkpoints or calls its steps.

The scripts of this package train with :class:`til_mtl.trainer.Trainer`, which computes the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from til_mtl.config import Config, Task
from til_mtl.epoch_values import EpochValues
from til_mtl.losses import cell_loss, tissue_loss, total_loss
from til_mtl.models.build import build_network
from til_mtl.models.deeplab import Maps
from til_mtl.original.detection import batch_froc


class SemSegment(nn.Module):
    """``SemSegment`` of ``MTL/main.py`` (``mtl``), ``STL/Seg_main.py`` (``seg``) and ``STL/det_main.py`` (``det``).

    Args:
        task: Which script's module.
        faithful: The original's labels with an epsilon and its step values; by default the corrected ones.
        **keys: Keys of :class:`til_mtl.config.Config`, such as ``lr`` and ``pretrained``.

    Attributes:
        net: The network; the keys of a checkpoint's ``state_dict`` begin with ``net.``.
        logged: Values of the last step, under the original's names.
    """

    def __init__(self, task: Task = "mtl", *, faithful: bool = False, **keys: Any) -> None:
        super().__init__()
        self.config = Config(task=task, faithful=faithful, **keys).resolved()
        self.net = build_network(self.config)
        self.logged: dict[str, float] = {}

    def forward(self, x: Tensor) -> Any:
        """Map images [B, 3, H, W] to the raw logits of the network."""
        return self.net(x)

    def training_step(self, batch: Sequence[Any], batch_idx: int = 0) -> Tensor:
        """Return the loss of a batch (image, mask[, names]); ``mtl`` needs a letter "s" or "d" a sample."""
        return self._step("train", batch)

    def validation_step(self, batch: Sequence[Any], batch_idx: int = 0) -> Tensor:
        """Return the loss of a batch, logged as ``val_…``."""
        return self._step("val", batch)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """Return Adam over the trainable parameters, and its cosine schedule."""
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.config.t_max)]

    def _step(self, prefix: str, batch: Sequence[Any]) -> Tensor:
        image, mask = batch[0], batch[1].long()
        if mask.ndim == 4:
            mask = mask.squeeze(1)
        task = self.config.task
        names = list(batch[2]) if len(batch) > 2 else [{"seg": "s", "det": "d"}.get(task, "?")] * len(image)
        maps: Maps = self.net.maps(image)
        exact = bool(self.config.exact_labels)
        rows = {kind: [i for i, name in enumerate(names) if name == kind] for kind in "sd"}
        tissue = cells = None
        if maps.seg is not None and rows["s"]:
            per_sample = task == "mtl"
            tissue = tissue_loss(
                maps.seg[rows["s"]], mask[rows["s"]], exact=exact, per_sample_dice=per_sample
            )
        if maps.det is not None and rows["d"]:
            weight = self.config.det_dice
            cells = cell_loss(maps.det[rows["d"]], mask[rows["d"]], exact=exact, dice_weight=weight)
        loss = total_loss(tissue, cells, self.config.loss_weights if task == "mtl" else (1.0, 1.0))
        values = EpochValues(self.config.model_copy(update={"froc": "legacy"}), loss.device)
        froc = None
        if maps.det is not None:
            probability = maps.det[rows["d"]].detach().float().softmax(1)[:, 1].cpu().numpy()
            truth = (mask[rows["d"]] == 1).float().cpu().numpy()
            froc = batch_froc(probability, truth, running=task == "mtl")
        values.add(tissue, cells, loss, len(image), froc)
        self.logged = values.values(prefix)
        return loss
