"""The original's network classes under their names.

``MTL/`` and ``STL/`` of the original each have a ``DeepLabv3Plus``, an ``ASPP`` and an ``ASPP_Bottleneck``. The
pyramids are one class here: with two class numbers they are those of ``MTL/``, with one those of ``STL/``.
``DeepLabv3Plus`` is the multi-task network, ``DeepLabv3PlusSTL`` the single-task one.
"""

from __future__ import annotations

from til_mtl.models.aspp import ASPP, ASPP_Bottleneck
from til_mtl.models.blocks import BasicBlock, Bottleneck, make_layer
from til_mtl.models.deeplab import MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus

__all__ = [
    "ASPP",
    "ASPP_Bottleneck",
    "BasicBlock",
    "Bottleneck",
    "DeepLabv3Plus",
    "DeepLabv3PlusSTL",
    "make_layer",
]


class DeepLabv3Plus(MultiTaskDeepLabv3Plus):
    """``MTL/DeepLabv3_plus.py``: (tissue, cells) from images."""


class DeepLabv3PlusSTL(SingleTaskDeepLabv3Plus):
    """``STL/DeepLabv3_plus.py``: one task; the original's only argument is ``num_classes_seg``.

    Args:
        num_classes_seg: 3 for tissue, 2 for cells; the task follows from it.
    """

    def __init__(self, num_classes_seg: int = 3, **options) -> None:
        options.setdefault("task", "det" if num_classes_seg == 2 else "seg")
        super().__init__(num_classes_seg, **options)
