"""Every configuration key, its default and its meaning; the keys are the constants of the original's scripts.

Keys that the original did not have are marked *new*. Unknown keys are errors. ``mode`` sets every switch that is null;
a switch that a configuration sets explicitly wins over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["standard", "paper", "faithful"]
MODES: tuple[Mode, ...] = ("standard", "paper", "faithful")
LABELS = ("background", "liver", "tumour")  # values 0, 1, 2 of the label volumes

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = tuple[Positive, Positive, Positive]


class _Keys(BaseModel):
    """What both stages share."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    # Key → its value in the modes standard, paper, faithful, where the configuration says null.
    SWITCHES: ClassVar[dict[str, tuple[Any, Any, Any]]] = {}

    # --- the run
    mode: Mode = "standard"  # new: standard = corrected; paper = as the paper's text; faithful = the original
    seed: NotNegative = 0  # new: of every random choice; the original sets none
    device: str = "auto"  # new: auto, cpu, cuda, cuda:N, mps; the original forces the CPU
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"  # new: metrics.csv is always written

    # --- data
    data_dir: Path | None = None  # folder with imagesTr/ and labelsTr/, or images/, labels/ and cases.csv
    splits: Path | None = None  # new: splits.json of patients; null = <data_dir>/splits.json or index ranges
    label_map: dict[int, Literal[0, 1, 2]] | None = None  # new: label value → 0 background, 1 liver, 2 tumour
    full_image_size: Size = (256, 256, 180)  # working grid in voxels
    hu_window: tuple[float, float] | None = None  # new: null = -100 300 in standard, raw HU otherwise
    spacing: tuple[Rate, Rate, Rate] | None = None  # new: mm; resample to it before the grid; null = leave
    cache_dir: Path | None = None  # new: folder of int16 volumes and score tables; null = no cache

    @model_validator(mode="after")
    def _window_of_hu(self) -> Self:
        if self.hu_window is not None and not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"hu_window must be two rising numbers, found {self.hu_window}")
        return self

    def resolved_value(self, key: str) -> Any:
        """Return a switch with null replaced by what it means in this mode."""
        value = getattr(self, key)
        if value is None and key in self.SWITCHES:
            value = self.SWITCHES[key][MODES.index(self.mode)]
        return self.full_image_size if key == "target_size" and value == "grid" else value

    def resolved(self) -> Self:
        """Return a copy whose switches all have a value (null stays where null is the value)."""
        return self.model_copy(update={key: self.resolved_value(key) for key in self.SWITCHES})


class ClassifierConfig(_Keys):
    """Stage A: the classifier that says how likely a window holds tumour."""

    # --- crops
    crop_size: Size = (96, 96, 64)  # voxels of a training crop; standard: the window that the game moves
    crop_no: Positive = 10  # crops of a volume
    target_size: Size | Literal["native"] | None = None  # network input; null = native, else full_image_size
    label_source: Literal["mask", "csv"] = "mask"  # new: voxels, or a table of cases
    label_csv: Path | None = None  # new: case,label (0/1); null = <data_dir>/labels.csv
    min_tumour_voxels: Positive = 1  # new: tumour voxels that make a crop positive
    negative_region: Literal["liver", "body", "volume"] | None = None  # new: where negatives come from
    mil_pooling: Literal["max", "top-k", "noisy-or", "lse"] = "top-k"  # new: of windows, with csv
    mil_top_k: Positive = 4  # new: windows that make the case's score with mil_pooling: top-k
    mil_crops: Positive = 32  # new: windows drawn from a case in one step with label_source: csv

    # --- training
    train_start: NotNegative = 0  # first case of the sorted listing, where there is no split file
    train_end: NotNegative = 24  # one past the last
    val_start: NotNegative = 24  # the same for validation
    val_end: NotNegative = 40  # one past the last
    train_batches: Positive | None = None  # batches of an epoch; null = training cases // batch_size
    val_batches: Positive = 4  # batches of the faithful validation; the others score one fixed set
    batch_size: Positive = 4  # volumes of a batch
    epochs: Positive = 32  # passes of train_batches
    lr: Rate = 0.001  # of Adam
    weight_decay: Weight = 0.0  # new: of Adam
    patience: Positive | None = None  # new: epochs without a better validation AUC before training stops
    select: Literal["last", "best"] | None = None  # new: weights that are kept; null = best, faithful: last
    weights_out: str = "ex4_24in_weights.pth"  # file of the weights in the run directory, written every epoch
    architecture: Literal["net", "window"] | None = None  # new: null = window in standard, net otherwise
    width: Positive = 8  # new: channels of the first convolution of architecture: window
    workers: NotNegative = 0  # new: threads that load volumes

    SWITCHES: ClassVar[dict[str, tuple[Any, Any, Any]]] = {
        "hu_window": ((-100.0, 300.0), None, None),
        "target_size": ("native", "grid", "grid"),  # grid = full_image_size
        "negative_region": ("body", "body", "volume"),
        "select": ("best", "best", "last"),
        "architecture": ("window", "net", "net"),
    }


class GameConfig(_Keys):
    """Stage B: two players move windows over volumes; PPO against copies of itself."""

    # --- data
    case: str = "liver_5"  # the volume of the per_image protocol, which the original trains and evaluates on
    protocol: Literal["split", "per_image"] | None = None  # new: null = split; paper, faithful: per_image
    train_cases: Positive | None = None  # new: at most that many volumes of the training split
    eval_space: Literal["native", "grid"] = "native"  # new: frame of the reported Dice in standard
    empty_value: Share = 1.0  # new: Dice of an empty segmentation of a volume without tumour

    # --- the scorer
    classifier_weights: Path = Path("ex4_24in_weights.pth")  # of stage A
    target_size: Size | Literal["native"] | None = None  # null = native, else grid
    table: Literal["full", "lazy", "off"] = "full"  # new: all scores at once; as they are needed; never kept
    table_batch: Positive = 64  # new: windows scored at once

    # --- the game
    window_size: Size = (48, 48, 24)  # voxels
    step_size: Positive = 4  # voxels of a move
    termination_threshold: Annotated[float, Field(ge=0)] = 0.3  # an episode ends when a score exceeds it
    termination: bool | None = None  # new: null = scores end episodes; standard: they do not
    segmentation_threshold: Share | None = None  # null = by validation, else 0.5
    max_steps: Positive | None = None  # new: moves of an episode; null = 32
    start: Literal["random", "centre", "corner"] | None = None  # new: training start of both players
    tie: Literal[-1, 0, 1] | None = None  # new: reward of equal scores
    reward: Literal["sign", "margin", "novelty", "finds"] | None = None  # new: docs/agent.md
    memory: NotNegative | None = None  # new: radius of the recalled neighbourhood, in moves
    view_stride: Positive | None = None  # new: voxels averaged to one of a view; null = by window, step
    context: NotNegative | None = None  # new: width of the surroundings seen, in windows; 0 = none
    flips: bool = True  # new: mirror training games at random
    carry: Share = 0.75  # new: share of training games that go on with what the last one saw
    opponent: Literal["latest", "pool", "live"] | None = None  # new: frozen copy, pool of them, the learner
    competitor_update_frequency: Positive = 32  # steps between two copies of the learner
    pool_size: Positive = 8  # new: copies in the pool
    pool_sampling: Literal["uniform", "latest-half", "prioritised"] = "latest-half"  # new: who plays next

    # --- learning
    policy: Literal["mlp", "cnn", "table"] | None = None  # cnn, table: standard only
    n_games: Positive | None = None  # new: games played side by side; null = 64 in standard, 1 otherwise
    n_steps: Positive = 32  # steps of every game between two updates
    batch_size: Positive | None = None  # of PPO; null = 512 in standard, 8 otherwise
    n_epochs: Positive | None = None  # of PPO; null = 8 in standard, 1 otherwise
    learning_rate: Rate | None = None  # of Adam; null = 2e-3 in standard, 3e-4 otherwise
    gamma: Share | None = None  # discount; null = 0.8 in standard, 0.99 otherwise
    gae_lambda: Share = 0.95  # of generalised advantage estimation
    clip_range: Rate = 0.2  # of the probability ratio
    ent_coef: Weight | None = None  # of the entropy bonus; null = 0.01 in standard, 0 otherwise
    vf_coef: Weight = 0.5  # of the value loss
    max_grad_norm: Rate = 0.5  # gradients are clipped to it
    iterations: Positive | None = None  # rounds of n_steps and one update; null = 150 in standard, else 10000
    log_interval: Positive = 20  # iterations between two lines of progress
    select_every: Positive = 25  # new: iterations between two searches of validation volumes that choose
    save_every: Positive = 20  # new: iterations between two last.pt; a stopped run goes on from there
    verbose: NotNegative = 1  # 0 = warnings only; the original's 2 also prints PPO's table

    # --- reading the map
    budget: Share = 0.1  # new: share of the lattice that may be scored on a volume
    candidates: Positive = 16  # new: places from which the critic chooses the next start; 1 = a random one
    start_moves: Positive = 12  # new: moves from one start
    start_patience: Positive = 1  # new: moves without a score above 0.3 that end a start early
    temperature: Rate = 0.5  # new: of the players' choices; below 1 = more decided
    eval_seeds: Positive = 20  # new: repetitions of whatever is random in the evaluation

    SWITCHES: ClassVar[dict[str, tuple[Any, Any, Any]]] = {
        "hu_window": ((-100.0, 300.0), None, None),
        "protocol": ("split", "per_image", "per_image"),
        "target_size": ("native", "grid", "grid"),  # grid = full_image_size
        "termination": (False, True, True),
        "segmentation_threshold": (None, 0.5, 0.5),
        "max_steps": (32, 32, 32),
        "start": ("random", "centre", "corner"),
        "tie": (0, -1, 1),
        "reward": ("finds", "sign", "sign"),
        "memory": (2, 0, 0),
        "context": (3, 0, 0),
        "opponent": ("pool", "latest", "live"),
        "policy": ("mlp", "mlp", "mlp"),
        "n_games": (64, 1, 1),
        "batch_size": (512, 8, 8),
        "n_epochs": (8, 1, 1),
        "learning_rate": (2e-3, 3e-4, 3e-4),
        "gamma": (0.8, 0.99, 0.99),
        "ent_coef": (0.01, 0.0, 0.0),
        "iterations": (150, 10000, 10000),
    }
