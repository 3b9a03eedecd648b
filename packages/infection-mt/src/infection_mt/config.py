"""Every configuration key, its default and its meaning; the keys are those of the original scripts.

Keys that the original did not have are marked *new*. Unknown keys are errors. The group switch ``faithful``
restores the behaviour that the published numbers depend on (see "Differences from the original" in the README);
single switches that a configuration sets explicitly win over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
Backbone = Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
Task = Literal["multitask", "classification", "regression"]
Hours = Annotated[float, Field(allow_inf_nan=False)]
Window = tuple[Hours, Hours]
ClampRange = tuple[Hours | None, Hours | None]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False)


class MultitaskConfig(Section):
    """Targets and loss weights of the two tasks."""

    infection_onset_hour: Hours = 2.0  # hours after the first frame; infected targets count from here
    clamp_range: ClampRange = (0.0, 48.0)  # of the time targets in hours; null leaves an end open
    classification_weight: Annotated[float, Field(ge=0)] = 1.0
    regression_weight: Annotated[float, Field(ge=0)] = 1.0
    loss_weighting: Literal["fixed", "uncertainty"] = "fixed"  # new: uncertainty = learned log-variances
    regression_on: Literal["both", "infected", "uninfected"] = "both"  # new: frames with a time loss
    pre_onset: Literal["exclude", "uninfected", "keep"] | None = None  # new: frames before it; null = exclude
    clamp_predictions: bool = False  # new: clamp predicted hours at inference

    @field_validator("clamp_range")
    @classmethod
    def _ordered(cls, value: ClampRange) -> ClampRange:
        low, high = value
        if low is not None and high is not None and low >= high:
            raise ValueError(f"the lower end {low} is not below the upper end {high}")
        return value


class SingleTaskRegression(Section):
    """Targets of the original's single-task regression (``task.regression``)."""

    target: Literal["time_since_onset", "time_to_onset"] = "time_since_onset"
    infection_onset_hour: Hours = 2.0
    uninfected_target: Hours = 0.0  # constant target in hours for uninfected frames
    clamp_range: ClampRange = (0.0, 48.0)


class TaskConfig(Section):
    """Which outputs are trained."""

    type: Task = "multitask"
    regression: SingleTaskRegression | None = None  # null: the targets of `multitask` are used


class RegressionConfig(Section):
    """Settings of ``train_regression_cv.py``."""

    target_class: Literal[0, 1] | None = None  # null trains on both classes
    infection_onset_hour: Hours = 1.0
    clamp_range: ClampRange = (0.0, 48.0)


class TransformsConfig(Section):
    """From a page to the network's input."""

    image_size: Annotated[int, Field(ge=8)] = 512  # side in pixels; the aspect ratio is not kept
    random_flip: bool = True  # horizontal and vertical, each with probability 0.5
    random_rotation: bool = True  # uniform in ±15°, nearest neighbour
    color_jitter: bool = False  # brightness and contrast in [0.8, 1.2] (saturation 0.2: no effect on gray)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    crop_border_fraction: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0  # of each side, before resizing
    crop_border_pixels: Annotated[int, Field(ge=0)] | None = None  # wins over the fraction
    intensity: Literal["minmax", "percentile", "stack"] = "minmax"  # new: scaling of a page to 8 bit
    rotation_fill: Literal["zero", "reflect"] = "zero"  # new: what rotation brings in at the corners

    @field_validator("std")
    @classmethod
    def _std_positive(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0:
            raise ValueError(f"every entry must be above 0, found {list(value)}")
        return value


class FramesOverride(Section):
    """Frame selection of one split; keys left out are taken from the enclosing ``frames``."""

    frames_per_hour: Annotated[float, Field(gt=0)] = 2.0
    infected_window_hours: Window | None = (16.0, 30.0)  # closed interval of hours since the first frame
    uninfected_window_hours: Window | None = None  # null: see uninfected_use_all
    infected_stride: int = 1
    uninfected_stride: int = 1
    uninfected_use_all: bool = True  # without a window: all pages, else only the first
    window_hours: Window | None = None  # old name of infected_window_hours; wins over it

    @model_serializer(mode="wrap")
    def _serialise(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only what was set: a default written down would win over the enclosing section when read again."""
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


class FramesConfig(FramesOverride):
    """Which pages of a stack become samples, for all splits or for each."""

    train: FramesOverride | None = None
    val: FramesOverride | None = None
    validation: FramesOverride | None = None
    test: FramesOverride | None = None
    eval: FramesOverride | None = None
    evaluation: FramesOverride | None = None
    default: FramesOverride | None = None

    @model_serializer(mode="wrap")
    def _serialise(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write all keys of the section itself."""
        return handler(self)


class DataConfig(Section):
    """Where the stacks lie and how they become batches."""

    infected_dir: Path | None = None  # folder scanned for *.tif*; required without a manifest
    uninfected_dir: Path | None = None
    manifest: Path | None = (
        None  # new: CSV with file, condition and optionally plate, well, position, onset, split
    )
    infected_label: int = 1
    uninfected_label: int = 0
    split_ratios: tuple[float, float, float] = (0.7, 0.15, 0.15)  # train, val, test
    split_seed: int = 42
    batch_size: Positive = 32
    eval_batch_size_multiplier: Positive = 2
    num_workers: Annotated[int, Field(ge=0)] = 4  # processes that decode pages
    drop_last: bool = False  # leave out the last partial training batch
    balance_sampler: bool = False  # draw training frames with inverse class frequency, with replacement
    cache: Literal["disk", "memory", "off"] = "disk"  # new: prepared 8-bit frames
    cache_dir: Path | None = None  # new: null = <output_dir>/frame_cache
    channel_offsets_hours: tuple[float, float, float] | None = None  # new: e.g. [-6, -3, 0] as the 3 channels
    transforms: TransformsConfig = TransformsConfig()
    frames: FramesConfig | None = None

    @field_validator("split_ratios")
    @classmethod
    def _ratios_sum_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or abs(sum(value) - 1.0) > 0.01:
            raise ValueError(f"train, val and test shares must be ≥ 0 and sum to 1, found {list(value)}")
        return value

    @model_validator(mode="after")
    def _has_a_source(self) -> DataConfig:
        if self.manifest is None and (self.infected_dir is None or self.uninfected_dir is None):
            raise ValueError("give infected_dir and uninfected_dir, or a manifest")
        if self.manifest is not None and (self.infected_dir is not None or self.uninfected_dir is not None):
            raise ValueError("give either a manifest or infected_dir and uninfected_dir, not both")
        if self.infected_label == self.uninfected_label:
            raise ValueError(f"infected_label and uninfected_label are both {self.infected_label}")
        return self


class SplitConfig(Section):
    """New: what may not be divided between train, val and test."""

    group: Literal["stack", "position", "well", "plate", "run"] = "stack"  # stays on one side
    overlap: Literal["off", "warn", "group"] = "warn"  # neighbouring fields: report, or keep on one side


class CrossValidationConfig(Section):
    """New: k-fold cross-validation."""

    num_folds: Annotated[int, Field(ge=1)] = 1
    test: Literal["rotating", "fixed"] | None = None  # null = rotating: every stack is tested once


class ModelConfig(Section):
    """The network."""

    name: Backbone = "resnet50"  # resnet10 is new: a small one for tests and demonstrations
    pretrained: bool = True  # ImageNet V1 weights (from the torch cache; downloaded only when allowed)
    num_classes: Annotated[int, Field(ge=1)] = 2
    dropout: Fraction = 0.2
    train_backbone: bool = True
    freeze_bn: bool | None = None  # new: batch norm of a frozen backbone stays as it is; null = true
    hidden_dim: Annotated[int, Field(ge=0)] = 256  # 0 = one linear layer
    use_cls_conditioning: bool = False  # the regressor also sees the logits
    time_head: Literal["shared", "per_class"] = "shared"  # new: one time output, or one for each class
    weights: Path | None = None  # new: checkpoint to start from


class EarlyStoppingConfig(Section):
    """New: stop when the selection metric has not improved for `patience` epochs."""

    patience: Positive = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainingConfig(Section):
    """The loop."""

    batch_size: Positive | None = None  # wins over data.batch_size
    num_workers: Annotated[int, Field(ge=0)] | None = None  # wins over data.num_workers
    epochs: Positive = 10
    amp: bool = True  # mixed precision on CUDA
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"  # new: auto = bf16 or fp16 on CUDA if amp
    fp32_evaluation: bool = False  # new: evaluate without mixed precision, as the original did
    grad_clip: Annotated[float, Field(ge=0)] | None = None  # largest gradient norm; null or 0 = off
    checkpoint_dir: Path | None = None  # used by train.py only
    k_folds: Positive | None = None  # train.py's name of cv.num_folds
    early_stopping: EarlyStoppingConfig | None = None
    checkpoint_every_steps: Annotated[int, Field(ge=0)] = 0  # new: 0 = after each epoch only
    deterministic: bool = False  # new: deterministic CUDA algorithms
    channels_last: bool | None = None  # new: memory layout; null = on CUDA, where it is faster
    compile: bool = False  # new: torch.compile


class OptimizerConfig(Section):
    """Arguments of the optimiser."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"  # new
    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    amsgrad: bool = False
    momentum: Fraction = 0.9  # sgd only


class SchedulerConfig(Section):
    """Cosine annealing, stepped after each epoch."""

    type: Literal["cosine", "none"] = "cosine"
    t_max: Positive | None = None  # epochs; null = training.epochs
    eta_min: Annotated[float, Field(ge=0)] = 1e-6
    warmup_epochs: Annotated[int, Field(ge=0)] = 0  # new: linear


class SelectionConfig(Section):
    """New: which epoch's weights are kept."""

    metric: str | None = None  # null: combined (multitask), cls_auc (classification), reg_mae (regression)
    time_scale_hours: Annotated[float, Field(gt=0)] | None = None  # of `combined`; null = clamp upper end
    threshold: Literal["fixed", "youden", "f1"] = "fixed"  # decision at 0.5, or chosen on validation


class MetricsConfig(Section):
    """New: evaluation."""

    faithful_auc: bool | None = None  # AUC from float32 probabilities clipped at 1e-7
    bootstrap_resamples: Annotated[int, Field(ge=0)] = 1000  # over stacks (wells when there are several)
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


class WindowsConfig(Section):
    """New as keys: the sliding windows of the temporal analysis (constants in the original)."""

    size_hours: Annotated[float, Field(gt=0)] = 6.0
    stride_hours: Annotated[float, Field(gt=0)] = 3.0
    start_hour: Hours = 0.0
    end_hour: Hours = 48.0
    min_samples: Positive = 1
    closed: bool | None = (
        None  # null = false; true: windows include their right end, frames at borders count twice
    )


class AnalysisConfig(Section):
    """Threshold table and time bins (``analysis`` of train.py)."""

    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    time_bins: tuple[tuple[float, float], ...] = ()


class LoggingConfig(Section):
    """Where the run reports to."""

    output_dir: Path | None = None  # train.py's name of output_dir
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"  # new


class Config(Section):
    """One run of ``train_multitask.py`` and of every other training script."""

    experiment_name: str = "multitask_cell_classification"  # folder below output_dir
    run_id: str | None = None  # null = timestamp %Y%m%d-%H%M%S
    output_dir: Path = Path("outputs")  # root of all results
    seed: Annotated[int, Field(ge=0)] = 42  # of initialisation, data order, augmentation and dropout
    faithful: bool = False  # new: the original's behaviour wherever published numbers depend on it
    test_weights: Literal["best", "last"] | None = None  # new: epoch that scores the test set; null = best
    task: TaskConfig = TaskConfig()
    multitask: MultitaskConfig = MultitaskConfig()
    regression: RegressionConfig | None = None
    data: DataConfig
    split: SplitConfig = SplitConfig()
    cv: CrossValidationConfig = CrossValidationConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig | None = None
    selection: SelectionConfig = SelectionConfig()
    metrics: MetricsConfig = MetricsConfig()
    windows: WindowsConfig = WindowsConfig()
    analysis: AnalysisConfig = AnalysisConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_scheduler_means_none(cls, values: Any) -> Any:
        """An empty ``scheduler`` mapping switches the scheduler off, as in the original."""
        if isinstance(values, dict) and values.get("scheduler") == {}:
            values = {**values, "scheduler": None}
        return values

    def resolved(self) -> Config:
        """Return a copy in which every switch left at null has the value that ``faithful`` implies."""
        config = self.model_copy(deep=True)
        faithful = config.faithful
        choices: list[tuple[Section, str, Any, Any]] = [
            (config, "test_weights", "last", "best"),
            (config.multitask, "pre_onset", "keep", "exclude"),
            (config.cv, "test", "fixed", "rotating"),
            (config.model, "freeze_bn", False, True),
            (config.metrics, "faithful_auc", True, False),
            (config.windows, "closed", True, False),
        ]
        for section, key, original, corrected in choices:
            if getattr(section, key) is None:
                setattr(section, key, original if faithful else corrected)
        training, data = config.training, config.data
        if training.k_folds is not None:
            config.cv.num_folds = training.k_folds
        if faithful and config.cv.num_folds == 1 and config.task.type == "multitask":
            # The original's single multi-task run looks at `training` only, and drops the last partial batch.
            data.batch_size, data.drop_last, data.balance_sampler = training.batch_size or 32, True, False
        elif training.batch_size is not None:
            data.batch_size = training.batch_size
        if training.num_workers is not None:
            data.num_workers = training.num_workers
        return config
