"""The original's collection of segmentation losses, which none of its scripts uses, under its names.

Values are the original's except where it is wrong; ``faithful=True`` of `FocalTversky_loss`, `BinaryDiceLoss`,
`DiceLoss` and `DiceBCELoss` restores that.
"""

from til_mtl.loss_library_counts import (
    AsymLoss,
    FocalTversky_loss,
    IoULoss,
    SoftDiceLoss,
    SSLoss,
    TverskyLoss,
    get_tp_fp_fn,
    softmax_helper,
    sum_tensor,
)
from til_mtl.loss_library_dice import (
    BinaryDiceLoss,
    DiceBCELoss,
    DiceLoss,
    GDiceLoss,
    GDiceLossV2,
    diceloss,
    flatten,
    make_one_hot,
    mIoULoss,
    to_one_hot,
)

__all__ = [
    "AsymLoss",
    "BinaryDiceLoss",
    "DiceBCELoss",
    "DiceLoss",
    "FocalTversky_loss",
    "GDiceLoss",
    "GDiceLossV2",
    "IoULoss",
    "SSLoss",
    "SoftDiceLoss",
    "TverskyLoss",
    "diceloss",
    "flatten",
    "get_tp_fp_fn",
    "mIoULoss",
    "make_one_hot",
    "softmax_helper",
    "sum_tensor",
    "to_one_hot",
]
