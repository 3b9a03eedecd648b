"""Every configuration key, its default and its meaning; the keys are those of the original's YAML file.

Keys that the original did not have are marked *new*. Unknown keys are errors. ``faithful: true`` restores the
behaviour that the original's numbers depend on; a single switch that a configuration sets explicitly wins over it.
Keys whose value is a list are the axes of a grid (:mod:`advmil.grid`); one :class:`Config` is one run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from medshared.processes import started_processes

Handler = Literal["adv", "base"]
Task = Literal["cont_gansurv", "disc_gansurv", "surv_reg", "surv_cox", "surv_nll"]
Backbone = Literal["patch", "cluster", "graph", "abmil"]
TimeFormat = Literal["origin", "ratio", "quantile"]
ADVERSARIAL_TASKS = ("cont_gansurv", "disc_gansurv")
BASELINE_TASKS = ("surv_reg", "surv_cox", "surv_nll")
# Keys of the original without any effect, accepted and named once at the start of a run.
DEAD_KEYS = ("dataset", "path_coordx5", "ssl_resume_ckpt", "ssl_es_warmup")

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def parse_dims(text: str) -> tuple[int, ...]:
    """Split ``"1024-384-384"`` into its widths.

    Args:
        text: Positive integers joined by hyphens; a bare number is one width.

    Raises:
        ValueError: The text is not of that form.
    """
    parts = str(text).split("-")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"expected positive numbers joined by hyphens, such as 1024-384-384, found {text!r}")
    return tuple(int(part) for part in parts)


def parse_noise(text: str) -> tuple[int, ...]:
    """Split ``"0-1"`` into one digit a layer of the generator's head; 1 concatenates noise before that layer.

    Args:
        text: Digits 0 and 1 joined by hyphens.

    Raises:
        ValueError: The text is not of that form.
    """
    parts = str(text).split("-")
    if not all(part in ("0", "1") for part in parts):
        raise ValueError(f"expected digits 0 and 1 joined by hyphens, such as 0-1, found {text!r}")
    return tuple(int(part) for part in parts)


def _dims_text(value: Any) -> Any:
    """Check a text of widths and leave it as it is; YAML reads a single width as a number."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        parse_dims(str(value))
        return str(value)
    return value


def _noise_text(value: Any) -> Any:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        parse_noise(str(value))
        return str(value)
    return value


Dims = Annotated[str, BeforeValidator(_dims_text)]
NoiseDigits = Annotated[str, BeforeValidator(_noise_text)]


class Config(BaseModel):
    """One run of AdvMIL or of a baseline."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # --- the run
    task: Task = "cont_gansurv"  # adv: cont_gansurv, disc_gansurv; base: surv_reg, surv_cox, surv_nll
    seed: NotNegative = 42  # of Python, NumPy and torch
    cuda_id: int | None = None  # the original's device number; device wins over it
    device: str | None = (
        None  # new: auto, cpu, cuda, cuda:N, mps; null = cuda:cuda_id where present, else auto
    )
    precision: Literal["auto", "32", "bf16"] = "32"  # new: arithmetic of training
    deterministic: bool = True  # new: cuDNN without its fast but unrepeatable choices, as in the original
    logger: Literal["csv", "tensorboard", "wandb"] = "csv"  # new: the original always needed wandb
    wandb_dir: str | None = None  # folder of the tracker's files
    wandb_prj: str = "advmil"  # project name in the tracker
    save_path: str = "./results-adv/run"  # output directory; its last component names the run
    dataset: str = ""  # a label; no effect
    faithful: bool = False  # new: the original's behaviour for every switch below that is null

    # --- data
    path_patch: str = ""  # folder of <pathology_id>.<feat_format>
    path_graph: str | None = None  # graph: folder of <pathology_id>.pt
    path_cluster: str | None = None  # cluster: folder of <patient_id>.npy
    path_coordx5: str | None = None  # no effect
    path_label: str = ""  # table of slides: pathology_id, patient_id, e, t (days)
    feat_format: Literal["pt", "h5"] = "pt"  # files of features
    regions: Literal["consecutive", "coordinates", "plain"] = (
        "consecutive"  # new: 16 consecutive rows are a region; coordinates, plain: for ordinary patches
    )
    time_format: TimeFormat = "ratio"  # origin: days; ratio: t / largest t of the table; quantile: bin
    time_bins: Positive = 4  # bins of quantile
    data_split_path: str = ""  # npz of patient ids; {} stands for data_split_seed
    data_split_seed: int = 0  # fold
    save_prediction: bool = True  # write the tables of predictions
    train_sampling: float | None = None  # null, a share in (0, 1) or a count of training patients
    trust_pickles: bool = False  # new: read graphs that the original's tool pickled (needs advmil[geometric])
    cache_features_gb: Annotated[float, Field(ge=0)] = 4.0  # new: features kept in memory between epochs

    # --- backbone
    bcb_mode: Backbone = "patch"  # patch: ESAT, graph: PatchGCN, cluster: DeepAttnMISL, abmil
    bcb_dims: Dims = "1024-384-384"  # input - hidden - embedding
    bcb_dropout: Rate = 0.25  # new: dropout inside the backbones; 0.25 is the original's fixed value

    # --- generator (--handler adv)
    gen_dims: Dims = "384-1"  # embedding - outputs (1, or time_bins)
    gen_noi_noise: NoiseDigits = "0-1"  # one digit a layer of the head; 1 = noise is concatenated there
    gen_noi_noise_dist: Literal["uniform", "gaussian"] = "uniform"  # U(0, 1) or N(0, 1)
    gen_noi_hops: NotNegative = 1  # hidden layers of the head
    gen_norm: bool = False  # LayerNorm in the head's hidden layers
    gen_dropout: Rate = 0.6  # in the head
    gen_out_scale: str = "sigmoid"  # sigmoid (ratio, quantile), exp, or anything else = identity (origin)

    # --- discriminator (--handler adv)
    disc_type: Literal["prj", "cat"] = "prj"  # projection or concatenation
    disc_netx_in_dim: Positive = 1024  # width of the features
    disc_netx_out_dim: Positive = 128  # width of the bag's embedding
    disc_netx_ksize: Literal[1, 3] = 1  # 3 = convolution over the 4 x 4 patches of a region
    disc_netx_backbone: Literal["avgpool", "gapool"] = "avgpool"  # how a region is pooled
    disc_netx_dropout: Rate = 0.25  # in the bag's embedding
    disc_nety_in_dim: Positive = 1  # 1, or time_bins for disc_gansurv
    disc_nety_hid_dims: Dims = "64-128"  # the last equals disc_netx_out_dim
    disc_nety_norm: bool = False  # LayerNorm in the time's embedding
    disc_nety_dropout: Rate = 0.0  # in the time's embedding
    disc_prj_path: str = "x"  # linear term on x (pooled bag), y (time); anything else = none
    disc_prj_iprd: Literal["instance", "bag"] = "instance"  # instance = RLIP

    # --- losses
    loss_gan_coef: Annotated[float, Field(ge=0)] = 0.004  # 0 turns the adversarial part off
    loss_netD: Literal["bce", "hinge", "wasserstein"] = "bce"  # noqa: N815  # of D
    loss_regl1_coef: Annotated[float, Field(ge=0)] | None = (
        1e-5  # L1 over all parameters of G; null or <= 1e-8 = off
    )
    loss_mle_alpha: Annotated[float, Field(ge=0, le=1)] = 0.0  # weight taken from the censored (discrete)
    loss_recon_norm: Literal["l1", "l2"] = "l1"  # of the time loss
    loss_recon_alpha: Annotated[float, Field(ge=0, le=1)] = 0.0  # weight taken from the censored (continuous)
    loss_recon_gamma: Annotated[float, Field(ge=0)] = (
        0.0  # margin for the censored; 0 with ratio, >= 1 with origin
    )
    loss_rank_coef: Annotated[float, Field(ge=0)] = (
        0.0  # new: weight of the ranking loss, which no key reached
    )
    loss_rank_gamma: Finite = 1.0  # new: its margin
    loss_rank_norm: Literal["l1", "l2"] = "l1"  # new
    loss_rank_weight: bool = False  # new: weight pairs by the softmax of their error

    # --- optimisation
    opt_netG: str = "adam"  # noqa: N815  # optimiser of G
    opt_netG_lr: Annotated[float, Field(gt=0)] = 8e-5  # noqa: N815  # learning rate of G
    opt_netG_weight_decay: Annotated[float, Field(ge=0)] = 5e-4  # noqa: N815  # not on biases and 1-D tensors
    opt_netD_lr: Annotated[float, Field(gt=0)] = 8e-5  # noqa: N815  # learning rate of D: Adam, no decay
    opt_momentum: Rate = 0.9  # new: sgd, nesterov, momentum, sgdp, rmsprop, rmsproptf
    epochs: Positive = 300  # at most
    batch_size: Literal[1] = 1  # bags differ in length; use bp_every_batch
    bp_every_batch: Positive = 16  # bags per parameter update
    num_workers: NotNegative = 8  # reading ahead; results do not depend on it
    gen_updates: Positive = 1  # updates of G for each of D
    draws: Literal["stream", "bag"] | None = (
        None  # new: noise and dropout of training: one stream, or a seed a bag; null = bag in several processes
    )
    memory: Literal["bag", "group"] = "bag"  # new: bag = one bag's activations at a time; same gradients

    # --- early stopping and selection
    es_patience: Positive | None = 30  # epochs; null = no early stopping
    es_warmup: NotNegative = 5  # epochs without checkpoint
    es_verbose: bool = True  # log epochs without improvement
    es_start_epoch: NotNegative = 0  # no stop before this epoch
    monitor_metrics: Literal["loss", "ci"] = "loss"  # of the validation set

    # --- evaluation
    times_test_sample: Positive = 30  # noise draws a patient; > 1 exactly when some noise digit is 1
    log_plot: bool = False  # histogram of predictions each epoch; continuous tasks only

    # --- semi-supervised
    semi_training: bool = False  # some training patients have no label
    semi_training_mode: Literal["UD+LD", "LD+UD", "LD", "UD"] = (
        "UD+LD"  # labelled and unlabelled, or one of them
    )
    ssl_epochs: Positive = 300  # at most
    ssl_num_labeled: Annotated[float, Field(gt=0)] = 0.6  # share or count of labelled training patients
    ssl_kfold: Positive = 5  # folds of the unlabelled
    ssl_resume_ckpt: Literal["last", "best"] = "best"  # no effect
    ssl_es_patience: Positive | None = 30  # epochs; null = no early stopping
    ssl_es_warmup: NotNegative = 5  # no effect: ssl_kfold for UD+LD, else 0
    ssl_es_verbose: bool = True  # log epochs without improvement
    ssl_es_start_epoch: NotNegative = 0

    # --- test mode
    test: bool = False  # score a trained model instead of training
    test_wandb_prj: str = "advmil-test"  # project in the tracker
    test_path: Literal["train", "val", "test"] = "test"  # part of the split that is scored
    test_load_path: str | None = None  # run directory; {} stands for data_split_seed
    test_save_path: str | None = None  # {} {} stand for test_mask_ratio, data_split_seed
    test_mask_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of regions set to zero (patch, abmil)
    test_sampling_times: Positive = 1  # samples a patient
    test_zero_noise: bool = False

    # --- baselines (--handler base)
    pdh_dims: Dims = "384-1"  # embedding - outputs of the prediction head
    mlp_hops: NotNegative = 1  # hidden layers of the head
    mlp_norm: bool = False  # LayerNorm in them
    mlp_dropout: Rate = 0.25  # in them
    loss_use_censored: bool = True  # surv_reg with patch: count the censored in the squared error
    opt_net: str = "adam"  # optimiser
    opt_net_lr: Annotated[float, Field(gt=0)] = 8e-5  # learning rate
    opt_net_weight_decay: Annotated[float, Field(ge=0)] = 5e-4

    # --- switches between the original's behaviour and the correct one; null follows faithful
    loss_bce_legacy: bool | None = None  # new: the original's mis-parenthesised BCE of D
    drop_last_group: bool | None = None  # new: drop an epoch's last incomplete group of bags
    mask_count_legacy: bool | None = None  # new: region counts with floating-point error
    labels_from: Literal["train", "table"] | None = None  # new: patients that set the time bins
    val_noise: Literal["sample", "zero", "mean"] = "sample"  # new: noise of the monitored validation loss
    val_noise_samples: Positive = 8  # new: draws of val_noise: mean
    median_lower: bool | None = None  # new: lower of the two middle samples instead of their mean
    freeze_unused: bool | None = None  # new: leave parameters that reach no output out of optimiser and L1
    eval_test_each_epoch: bool | None = None  # new: score the test set after every epoch

    @model_validator(mode="after")
    def _check_sampling(self) -> Config:
        value = self.train_sampling
        if value is not None and not (0 < value < 1 or (value >= 1 and float(value).is_integer())):
            raise ValueError(f"train_sampling: expected a share in (0, 1) or a count, found {value}")
        return self

    @property
    def bcb_widths(self) -> tuple[int, ...]:
        """Widths of the backbone: input, hidden, embedding."""
        return parse_dims(self.bcb_dims)

    @property
    def noise_digits(self) -> tuple[int, ...]:
        """One digit a layer of the generator's head."""
        return parse_noise(self.gen_noi_noise)

    @property
    def is_discrete(self) -> bool:
        """Whether the outputs are hazards of time bins."""
        return self.task in ("disc_gansurv", "surv_nll")

    def resolved(self) -> Config:
        """Fill the switches that are null from ``faithful``."""
        legacy = self.faithful
        defaults: dict[str, Any] = {
            "loss_bce_legacy": legacy,
            "drop_last_group": legacy,
            "mask_count_legacy": legacy,
            "labels_from": "table" if legacy else "train",
            "median_lower": legacy,
            "freeze_unused": not legacy,
            "eval_test_each_epoch": legacy,
            "draws": "bag" if started_processes().count > 1 else "stream",
        }
        missing = {key: value for key, value in defaults.items() if getattr(self, key) is None}
        return self.model_copy(update=missing)
