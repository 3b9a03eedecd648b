"""Every configuration key, its default and its meaning; the keys are the flags of the original's scripts.

Keys that the original did not have are marked *new*. Unknown keys are errors. ``faithful: true`` restores the
behaviour that the original's numbers depend on; a single switch that a configuration sets explicitly wins over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from til_mtl.limits import parse_duration

Task = Literal["mtl", "seg", "det"]
PatchTask = Literal["segmentation", "detection"]
TASKS: dict[str, tuple[PatchTask, ...]] = {
    "mtl": ("segmentation", "detection"),
    "seg": ("segmentation",),
    "det": ("detection",),
}
TISSUES = ("other", "tumor", "stroma")  # classes 0, 1, 2 of the tissue map
IGNORE_INDEX = 250  # label of pixels that nobody annotated
STAGES = ("conv1", "layer1", "layer2", "layer3")

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Limit = Annotated[float, Field(ge=0)] | NotNegative  # a float is a share of the batches, an int a count


class Config(BaseModel):
    """One training run of the multi-task network or of one of the single-task networks."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # --- the run
    task: Task = "mtl"  # new: mtl = MTL/main.py, seg = STL/Seg_main.py, det = STL/det_main.py
    faithful: bool = False  # new: the original's behaviour for every switch below that is null
    seed_everything: NotNegative = 1234  # of Python, NumPy and torch
    log_dir: Path = Path("logs")  # runs go to <log_dir>/default/version_<k>
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"  # the original always wrote TensorBoard files
    deterministic: bool = False  # refuse operations whose results vary from run to run
    benchmark: bool = False  # let cuDNN try its algorithms; faster, not repeatable

    # --- data
    data_dir: Path | None = None  # root with segmentation/ and detection/; null = the working directory
    fold_seg: str | None = None  # new: <root>/segmentation/<fold>/{train,val,test}_{img,mask}
    fold_det: str | None = None  # new: the same for detection
    val_split: Share = 0.2  # of the slides, where there is no folder val
    test_split: Share = 0.0  # of the slides, where there is no folder test
    seed: NotNegative = 42  # of the split
    img_size: tuple[Positive, Positive] = (256, 256)  # width, height; other patches are resized
    mask_resample: Literal["nearest", "bicubic"] | None = None  # null = nearest; faithful: bicubic
    normalize: Literal["none", "lunit", "imagenet"] = "none"  # of the input, after division by 255
    augment: Literal["none", "d4", "d4+stain"] = "none"  # d4: flips and quarter turns; stain: H&E jitter
    batch_size: Positive = 5  # patches of a step
    sampling: Literal["shuffle", "balanced"] = "shuffle"  # new: balanced = both tasks alike in every batch
    shuffle: bool = True  # the training set
    drop_last: bool = False  # leave out an incomplete last training batch
    num_workers: NotNegative | None = None  # threads that decode patches; null = CPUs, at most 20
    pin_memory: bool = True  # page-locked memory for copies to the GPU; ignored on CPU
    cache: Literal["memory", "disk", "off"] = "memory"  # new: decoded patches between epochs
    cache_dir: Path | None = None  # new: folder of cache: disk

    # --- network
    encoder: str = "resnet50"  # with the original's checkpoint keys; or a timm network with features
    pretrained: str = "none"  # new: a checkpoint, imagenet, or none; the original had an absolute path
    freeze_encoder: bool = True  # no gradients for conv1 … freeze_until
    freeze_until: Literal["conv1", "layer1", "layer2", "layer3"] = "layer3"  # new: last frozen stage
    freeze_bn: bool | None = None  # new: frozen stages keep their norms fixed; null = true; faithful: false
    cache_features: bool = False  # new: compute the frozen encoder once a patch; needs freeze_bn, no augment
    aspp_rates: tuple[Positive, Positive, Positive] = (6, 12, 18)  # new: dilations of the three 3x3 branches
    num_classes_seg: Annotated[int, Field(ge=2)] = 3  # classes of the tissue map
    num_classes_det: Annotated[int, Field(ge=2)] = 2  # background and cell

    # --- losses
    loss_weights: tuple[Weight, Weight] = (0.13, 0.87)  # tissue, cells; only for mtl
    balancing: Literal["fixed", "uncertainty"] = "fixed"  # new: uncertainty = learned log-variances
    exact_labels: bool | None = None  # new: labels 0/1, ignored pixels left out; null = true; faithful: false
    det_dice: Weight = 0.0  # new: weight of the cells' Dice loss, which the original computes and drops
    train_froc: bool | None = None  # new: the original's FROC in training too; null = false; faithful: true
    froc: Literal["tiger", "legacy"] | None = None  # new: what is logged as froc; faithful: legacy
    conf: Annotated[float, Field(ge=0, le=1)] = 0.1  # new: probability from which a peak is a detection
    nms: Weight | None = None  # new: suppression distance in px; null = 12; faithful: 18
    radius_px: Weight = 8.0  # new: hit radius of the FROC
    mpp: Annotated[float, Field(gt=0)] = 0.5  # new: µm per px of the patches, for areas in mm²
    epoch_values: Literal["pooled", "batch"] | None = None  # new: null = pooled; faithful: mean over batches

    # --- optimisation
    lr: Annotated[float, Field(gt=0)] = 0.001  # of Adam
    weight_decay: Weight = 0.001  # L2, also on norms and biases, as the original's Adam has it
    t_max: Positive = 60  # epochs of a half-wave of the cosine schedule
    max_epochs: NotNegative = 300  # the original forces 300
    min_epochs: NotNegative | None = None  # max_time waits for them
    max_steps: int = -1  # optimiser steps; -1 = no limit
    min_steps: NotNegative | None = None  # max_time waits for them
    max_time: str | None = None  # DD:HH:MM:SS
    accumulate_grad_batches: Positive = 1  # batches of one update
    gradient_clip_val: Weight | None = None  # null = no clipping
    gradient_clip_algorithm: Literal["norm", "value"] = "norm"  # of all gradients together, or each value
    monitor: str = "val_loss"  # epoch value that selects the checkpoint: val_loss, val_dice_mean, val_froc, …
    check_val_every_n_epoch: Positive = 1  # epochs between validations
    val_check_interval: Limit = 1.0  # share of an epoch, or batches, between validations
    num_sanity_val_steps: int = 2  # validation batches before the first epoch; -1 = all
    limit_train_batches: Limit = 1.0  # share or count of the batches of an epoch
    limit_val_batches: Limit = 1.0  # the same for validation
    limit_test_batches: Limit = 1.0  # the same for the test set
    overfit_batches: Limit = 0.0  # train and validate on the same few batches
    fast_dev_run: bool | int = False  # that many batches of one epoch, without checkpoints, as a trial

    # --- machine
    device: str | None = None  # new: auto, cpu, cuda, cuda:N, mps; null = from gpus, accelerator and devices
    accelerator: str | None = None  # auto, cpu, gpu, cuda or mps
    devices: str | int | None = None  # 1, or the number of a device as text
    gpus: str | int | None = None  # 0 = CPU
    strategy: str | None = None  # accepted; a run uses one device
    sync_batchnorm: bool = False  # accepted; a run uses one device
    precision: Literal["32", "16", "bf16", "auto"] = "32"  # 16 and bf16 compute mixed
    channels_last: bool | None = None  # new: memory layout; null = on CUDA only
    compile: bool = False  # new: torch.compile
    detect_anomaly: bool = False  # say which operation made a NaN; slow
    log_every_n_steps: Positive = 50  # accepted; values are logged once a validation
    enable_progress_bar: bool = True  # show progress on a terminal
    enable_checkpointing: bool = True  # write checkpoints
    save_every_n_epochs: Positive = 1  # new: epochs between two last.pt; a stopped run goes on from there
    enable_model_summary: bool = True  # log the number of trainable parameters

    @model_validator(mode="before")
    @classmethod
    def _plain_precision(cls, values: Any) -> Any:
        """Take 32, 16 and Lightning's longer names for the same."""
        if isinstance(values, dict) and "precision" in values:
            text = str(values["precision"]).removesuffix("-true").removesuffix("-mixed")
            return values | {"precision": text}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.cache == "disk" and self.cache_dir is None:
            raise ValueError("cache: disk needs cache_dir, a folder for the decoded patches")
        if self.cache_features:
            if not self.freeze_encoder or self.freeze_until != "layer3":
                raise ValueError("cache_features needs freeze_encoder: true with freeze_until: layer3")
            if self.resolved_value("freeze_bn") is False:
                raise ValueError(
                    "cache_features needs freeze_bn: true: with norms in training mode features change"
                )
            if self.augment != "none":
                raise ValueError("cache_features needs augment: none: an augmented patch is new every time")
        if self.max_time is not None:
            parse_duration(self.max_time)
        if self.sampling == "balanced" and self.task == "mtl" and self.batch_size < 2:
            raise ValueError("sampling: balanced needs a batch_size of at least 2, one patch of each task")
        return self

    def resolved_value(self, key: str) -> Any:
        """Return a switch with null replaced by what it means."""
        value = getattr(self, key)
        return SWITCHES[key][self.faithful] if value is None and key in SWITCHES else value

    def resolved(self) -> Config:
        """Return a copy whose switches all have a value."""
        return self.model_copy(update={key: self.resolved_value(key) for key in SWITCHES})


# Key → (default, faithful value).
SWITCHES: dict[str, tuple[Any, Any]] = {
    "mask_resample": ("nearest", "bicubic"),
    "freeze_bn": (True, False),
    "exact_labels": (True, False),
    "train_froc": (False, True),
    "froc": ("tiger", "legacy"),
    "nms": (12.0, 18.0),
    "epoch_values": ("pooled", "batch"),
}
