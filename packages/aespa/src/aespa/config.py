"""Every configuration key, its default and its meaning; the keys are the flags of the original's scripts.

Keys that the original did not have are marked *new*. Unknown keys are errors. ``faithful: true`` gives every switch
that is null the value that the original's numbers depend on; a switch that a configuration sets explicitly wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["AESPA", "SPA", "SAM"]
DatasetName = Literal["LIDC", "REFUGE", "MBHSeg-Binary", "MBHSeg-Multiclass", "folders"]
DATASETS: tuple[str, ...] = ("LIDC", "REFUGE", "MBHSeg-Binary", "MBHSeg-Multiclass", "folders")
Encoder = Literal["tiny", "vit_b", "vit_l", "vit_h"]
Block = Literal["sam", "efficient"]
ClickOrder = Literal["xy", "yx"]
Update = Literal["per_batch", "per_round", "alternating"]

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Class = Annotated[int, Field(ge=1, le=5)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Config(BaseModel):
    """One run: the data, the network, how it is trained and how it is evaluated."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # --- the run
    mode: Mode = "AESPA"  # AESPA follows a rater, SPA proposes clusters; new: SAM = plain, no preferences
    faithful: bool = False  # new: the original's behaviour for every switch below that is null
    exp_name: str = "msa_test_isic"  # name of the run; its folder adds the time
    log_root: Path = Path("logs_new")  # new: folder of the runs
    seed: NotNegative = 0  # new: of weights, order, clicks, raters and latents; the original sets none
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"  # new: metrics.csv is always written

    # --- data
    dataset: DatasetName | None = None  # layout of data_path; needed
    data_path: Path = Path("../data")  # folder of the data set
    image_size: Positive = 256  # side of the network's input, a multiple of the patch (16; tiny: 8)
    subset: Positive | None = None  # new: only that many images of each split, evenly spaced
    val_fraction: Share = 0.0  # new: of training patients, choose the checkpoint; 0 = test split
    structure: Literal["cup", "disc"] = "cup"  # new: what REFUGE's raters outlined
    crop: bool | None = None  # new: REFUGE: crop around the disc; null = true; faithful: false
    target_class: Class | None = None  # new: MBHSeg-Multiclass: one class; null = each in turn
    lidc_index: Path | None = None  # new: .npy of positions in the listing of slices, instead of the rule
    cache: Literal["memory", "disk", "off"] = "memory"  # new: resized images between epochs
    cache_dir: Path | None = None  # new: folder of cache: disk; null = <data_path>/.aespa_cache
    w: NotNegative = 4  # threads that decode images; the original ignored it

    # --- network
    encoder: Encoder = "vit_b"  # size of the image encoder; new: tiny for trials on a CPU
    sam_ckpt: Path | None = None  # weights of SAM or MedSAM to start from; null = random
    pretrain: Path | None = None  # whole-model checkpoint to start from
    weights: Path | None = None  # checkpoint to evaluate or to show
    n_components: Positive = 16  # Gaussians of the preference distribution
    num_samples: Positive = 48  # SPA: latents an image; AESPA always takes the mean
    n_clusters: Positive = 4  # SPA: proposals
    multimask_output: Positive = 1  # only 1; the original crashed above
    decoder: Block | None = None  # new: block of the mask decoder; null = sam; faithful: efficient
    sam_load: Literal["full", "partial"] | None = None  # new: null = full; faithful: partial
    mixture: Literal["image", "batch"] | None = None  # new: null = image; faithful: batch, averaged over it
    latent: Literal["component", "shared"] | None = None  # new: null = component; faithful: shared noise
    variance: Literal["softplus", "relu"] | None = None  # new: null = softplus; faithful: relu
    upsample: Literal["bilinear", "nearest"] | None = None  # new: null = bilinear; faithful: nearest
    click_order: ClickOrder | None = None  # new: null = xy; faithful: yx, transposed as the original

    # --- training
    epochs: NotNegative = 20  # new: the original had a constant
    b: Positive = 2  # images of a batch
    lr: Rate = 1e-4  # of Adam
    lr_step: Positive | None = None  # new: epochs between two decays; null = constant
    lr_gamma: Rate = 0.5  # new: factor of a decay
    epoch_ini: NotNegative = 0  # first epoch that is trained
    val_freq: Positive = 5  # epochs between validations; the last epoch is always validated
    runs: Positive = 6  # new: rounds of predicting and clicking on an image
    update: Update | None = None  # new: null = per_batch; faithful: alternating
    pos_weight: Rate = 2.0  # new: of lesion pixels in the cross entropy
    switch_rater: Share = 0.2  # new: AESPA training: chance that a click changes the followed rater
    agreement: Literal["all", "last"] | None = None  # new: AESPA: clicks that the target's raters agree with
    candidates: Positive = 20  # new: pixels with the largest error among which a click is drawn
    first_click: Literal["unanimous", "decisive"] = "unanimous"  # new: SPA; decisive = where raters differ
    proposal_weight: Weight | None = None  # new: SPA: loss of the picked proposal; null = 1; faithful: 0
    patience: Positive | None = None  # new: validations without a better Dice before training stops
    save_freq: Positive = 1  # new: epochs between two last.pt; a stopped run goes on from there

    # --- evaluation
    valid_only: bool | None = None  # new: empty raters do not count; null = true; faithful: false
    stop_when_right: bool | None = None  # new: no click on a mask that is right; null = true; faithful: false

    # --- machine
    device: str = "auto"  # new: auto, cpu, cuda, cuda:N, mps; the original needs CUDA
    gpu: bool = True  # false = CPU
    gpu_device: NotNegative = 0  # number of the CUDA device
    distributed: str = "none"  # CUDA devices of a run, such as 0,1
    devices: Positive = 1  # new: processes on this machine
    amp: Literal["32", "16", "bf16"] = "32"  # new: precision of the networks; the mixture stays in 32
    progress: bool = True  # new: show progress on a terminal

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        patch = 8 if self.encoder == "tiny" else 16
        if self.image_size % patch:
            raise ValueError(
                f"image_size must be a multiple of {patch} for encoder: {self.encoder}, found {self.image_size}"
            )
        if 0 < self.epochs <= self.epoch_ini:
            raise ValueError(
                f"epoch_ini ({self.epoch_ini}) must be below epochs ({self.epochs}): no epoch is left to train"
            )
        if self.multimask_output != 1:
            raise ValueError("multimask_output must be 1: the loss compares one mask with one target")
        if self.mode == "SPA" and self.n_clusters > self.num_samples:
            raise ValueError(
                f"n_clusters ({self.n_clusters}) must not exceed num_samples ({self.num_samples}): "
                "every cluster needs a sample"
            )
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
    "crop": (True, False),
    "decoder": ("sam", "efficient"),
    "sam_load": ("full", "partial"),
    "mixture": ("image", "batch"),
    "latent": ("component", "shared"),
    "variance": ("softplus", "relu"),
    "upsample": ("bilinear", "nearest"),
    "click_order": ("xy", "yx"),
    "update": ("per_batch", "alternating"),
    "proposal_weight": (1.0, 0.0),
    "agreement": ("all", "last"),
    "valid_only": (True, False),
    "stop_when_right": (True, False),
}
