"""The loop: epochs, steps, the best epoch, and a state from which a run goes on exactly where it was.

Written out on Lightning Fabric (devices, precision, processes) rather than hidden in a trainer, so that its state is a
dozen named values and a run that was stopped at any step continues with exactly the numbers it would have had.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from infection_mt import evaluation
from infection_mt.config import Config
from infection_mt.data.dataset import EpochSampler, sampler_weights
from infection_mt.data.frames import Augmentation
from infection_mt.data.loading import iterate_batches, normalise
from infection_mt.data.prepare import RunData, plain_config, table_targets, time_settings
from infection_mt.data.table import FrameTable
from infection_mt.errors import TrainingError
from infection_mt.inference import predict_table, score
from infection_mt.losses import (
    LossTerms,
    UncertaintyWeighting,
    classification_loss,
    multitask_loss,
    regression_loss,
)
from infection_mt.models.base import Outputs, ResNetBase
from infection_mt.models.checkpoint import model_for_run
from infection_mt.optimisation import build_optimizer, build_scheduler
from medshared.command_line import RunInterruptedError
from medshared.distributed import (
    Share,
    average_gradients,
    barrier,
    open_fabric,
    optimizer_parameters,
    restore_shared_rng,
    shared_object,
    stopped_together,
)
from medshared.gpu import capture_rng, resolve_precision, seed_everything, select_device
from medshared.runs import RunDirectory, StopSignal
from medshared.shared_layers import computing, share_layers

logger = logging.getLogger(__name__)

DEFAULT_SELECTION = {"multitask": "combined", "classification": "cls_auc", "regression": "reg_mae"}
METERS = ("total_loss", "cls_loss", "reg_loss")


@dataclass
class Progress:
    """Where a run is; saved with every ``last.pt``."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the epoch under way
    best_value: float = math.nan
    best_epoch: int = 0
    stale_epochs: int = 0  # epochs since the best one
    meter_sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seen: int = 0  # samples of the epoch under way


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to a configuration; none of it changes a result on CPU."""

    device: str = "auto"
    resume: bool = False
    download: bool = False  # allow fetching ImageNet weights


def make_fabric(config: Config, device: str) -> Fabric:
    """Set up device, precision, and the other processes of the run."""
    chosen = select_device(device)
    precision = resolve_precision(config.training.precision, chosen, amp=config.training.amp)
    return open_fabric(chosen, precision)


def lower_is_better(metric: str) -> bool:
    """Return whether a selection metric improves downwards."""
    return metric.endswith("_loss") or metric in {"loss", "reg_mae", "reg_rmse", "reg_mse"}


class Trainer:
    """The training loop of one run.

    Args:
        config: Resolved configuration.
        data: Tables and frames.
        run: Run directory that receives checkpoints and metrics.
        options: Device, resume, downloads.
        seed: Seed of this run (folds have their own).
    """

    def __init__(
        self,
        config: Config,
        data: RunData,
        run: RunDirectory,
        options: RunOptions,
        *,
        seed: int | None = None,
    ) -> None:
        self.config, self.data, self.run, self.options = config, data, run, options
        self.seed = config.seed if seed is None else seed
        self.fabric = make_fabric(config, options.device)
        seed_everything(self.seed, deterministic=config.training.deterministic)
        self.network: ResNetBase = model_for_run(config, download=options.download)
        self.weighting = UncertaintyWeighting() if config.multitask.loss_weighting == "uncertainty" else None
        self.progress = Progress()
        self._place()
        self.time_scale = self._time_scale()
        self.batch_size = config.data.batch_size
        self.epochs = config.training.epochs
        self.sampler = self._sampler()
        self.augmentation = Augmentation(config.data.transforms)
        self.columns = {name: self._columns(name) for name in ("train", "val", "test")}

    # ------------------------------------------------------------------ set-up

    def _place(self) -> None:
        """Move the network to its device and build optimiser and schedule."""
        config = self.config
        wanted = config.training.channels_last
        self.channels_last = self.fabric.device.type == "cuda" if wanted is None else wanted
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_layers(self.network, self.fabric.device)
        if config.training.compile:
            self.network.backbone.compile()
        self.model = self.fabric.setup_module(self.network)
        self.model.mark_forward_method("outputs")
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.weighting is not None:
            self.weighting.to(self.fabric.device)
            parameters += list(self.weighting.parameters())
        self.optimizer: Any = self.fabric.setup_optimizers(build_optimizer(config, parameters))
        self.scheduler = build_scheduler(config, self.optimizer)

    def _time_scale(self) -> float:
        """Hours at which the time part of ``combined`` reaches 0."""
        if self.config.selection.time_scale_hours is not None:
            return self.config.selection.time_scale_hours
        upper = time_settings(self.config).clamp_range[1]
        if upper is not None:
            return upper
        return max(float(table_targets(self.config, self.data.tables["train"]).max()), 1.0)

    def _sampler(self) -> EpochSampler:
        table, config = self.data.tables["train"], self.config
        drop_last = config.data.drop_last
        if drop_last and len(table) < self.batch_size:
            raise TrainingError(
                f"data.drop_last leaves no batch: {len(table)} training frames, batch size {self.batch_size}; "
                "lower data.batch_size or set data.drop_last: false"
            )
        weights = sampler_weights(table.label) if config.data.balance_sampler else None
        return EpochSampler(
            len(table), self.batch_size, seed=self.seed, shuffle=True, drop_last=drop_last, weights=weights
        )

    def _columns(self, name: str) -> dict[str, Tensor]:
        """Labels and targets of a table on the device, indexed by sample."""
        table = self.data.tables[name]
        settings = time_settings(self.config)
        counts = np.ones(len(table), dtype=bool)
        if settings.target_class is not None:
            counts = table.infected() == bool(settings.target_class)
        values = {
            "label": torch.from_numpy(class_index(self.config, table)),
            "target": torch.from_numpy(table_targets(self.config, table))[:, None],
            "counts": torch.from_numpy(counts),
        }
        return {key: value.to(self.fabric.device) for key, value in values.items()}

    # ------------------------------------------------------------------ one step

    def loss(self, outputs: Outputs, rows: Tensor, columns: Mapping[str, Tensor]) -> LossTerms:
        """Return the loss terms of a batch; a task that the run does not have counts 0."""
        m = self.config.multitask
        label, target, counts = (columns[key][rows] for key in ("label", "target", "counts"))
        mask = None if time_settings(self.config).target_class is None else counts
        logits, hours = outputs
        if logits is None and hours is not None:
            reg = regression_loss(hours.float(), target, mask)
            return LossTerms(reg, torch.zeros_like(reg), reg)
        if hours is None and logits is not None:
            cls = classification_loss(logits.float(), label)
            return LossTerms(cls, cls, torch.zeros_like(cls))
        if logits is None or hours is None:
            raise TrainingError(f"{type(self.network).__name__} has neither a class nor a time output")
        weights = {"classification_weight": m.classification_weight, "regression_weight": m.regression_weight}
        terms = multitask_loss(logits.float(), hours.float(), label, target, counts=mask, **weights)
        if self.weighting is not None:
            return self.weighting(terms, m.classification_weight, m.regression_weight)
        return terms

    def step(
        self, rows: Tensor, frames: Tensor, columns: Mapping[str, Tensor], share: Share | None = None
    ) -> LossTerms:
        """Forward, backward and update on one batch of normalised frames.

        Args:
            rows: Samples of the batch.
            frames: Those of this process's share of it.
            columns: Labels and targets, indexed by sample.
            share: What this process computes; by default everything.
        """
        self.optimizer.zero_grad(set_to_none=True)
        share = share or Share(len(rows), 0, 1)
        with computing(share):
            outputs = self.model.outputs(frames, columns["label"][rows[share.own]])
        gathered = (None if each is None else share.gather(each.float()) for each in outputs)
        terms = self.loss(Outputs(*gathered), rows, columns)
        self.fabric.backward(terms.total)
        average_gradients(optimizer_parameters(self.optimizer))
        if self.config.training.grad_clip:
            # Under fp16 the first steps overflow by design and are skipped by the scaler.
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.training.grad_clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        return terms

    # ------------------------------------------------------------------ one epoch

    def train_epoch(self, epoch: int, stop: StopSignal) -> dict[str, float]:
        """Train one epoch, starting after ``progress.step`` finished steps.

        Args:
            epoch: 1-based.
            stop: Asked after every step.

        Raises:
            RunInterruptedError: A stop was asked for; the state is saved.
            TrainingError: The loss is not finite.
        """
        self.model.train()
        progress, table, columns = self.progress, self.data.tables["train"], self.columns["train"]
        sums = torch.tensor(progress.meter_sums, dtype=torch.float64, device=self.fabric.device)
        draws = self.augmentation.draw(len(table), seed=self.seed, epoch=epoch)
        batches = list(self.sampler.batches(epoch, skip=progress.step))
        shares = [Share.of(len(indices)) for indices in batches]
        own = [share.take(indices) for share, indices in zip(shares, batches, strict=True)]
        every = self.config.training.checkpoint_every_steps
        read = iterate_batches(self.data.store, table, own)
        for indices, share, (mine, frames) in zip(batches, shares, read, strict=True):
            rows = torch.from_numpy(indices).to(self.fabric.device)
            images = self.augmentation.apply(frames.to(self.fabric.device), draws, mine)
            terms = self.step(rows, self._input(images), columns, share)
            sums += torch.stack([term.detach().double() for term in terms]) * len(indices)
            progress.step += 1
            progress.seen += len(indices)
            due = every and progress.step % every == 0
            stopped = stopped_together(stop)
            if due or stopped:
                progress.meter_sums = sums.tolist()
                self.save_last()
            if stopped:
                raise RunInterruptedError(
                    f"stopped by {stop.name} in epoch {epoch} after {progress.step} steps; --resume continues"
                )
        means = (sums / max(progress.seen, 1)).tolist()
        if not all(math.isfinite(value) for value in means):
            raise TrainingError(
                f"the training loss of epoch {epoch} is not finite ({means[0]}); lower optimizer.lr "
                f"({self.config.optimizer.lr}), set training.grad_clip, or use training.precision: '32'"
            )
        progress.step, progress.seen, progress.meter_sums = 0, 0, [0.0, 0.0, 0.0]
        return dict(zip(METERS, means, strict=True))

    def _input(self, images: Tensor) -> Tensor:
        x = normalise(images, self.config.data.transforms)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def predict(self, name: str) -> evaluation.Predictions:
        """Run the network over a table, in order.

        Args:
            name: ``train``, ``val`` or ``test``.
        """
        table = self.data.tables[name]
        return predict_table(
            self.network if self.config.training.fp32_evaluation else self.model,
            table,
            self.data.store,
            self.config,
            device=self.fabric.device,
            batch_size=self.batch_size * self.config.data.eval_batch_size_multiplier,
            shared=True,
        )

    def evaluate(self, predictions: evaluation.Predictions) -> dict[str, float]:
        """Score predictions by the run's task."""
        return score(predictions, self.config, self.time_scale)

    # ------------------------------------------------------------------ the run

    def fit(self, stop: StopSignal, sink: Any) -> None:
        """Train until the last epoch or early stopping, keeping ``last.pt`` and ``best.pt``."""
        barrier()  # process 0 has made the run directory
        if self.options.resume and shared_object(self.run.has_checkpoint("last")):
            self.restore()
        elif self.options.resume:
            logger.warning("%s: nothing to resume, the run starts at its beginning", self.run.path)
        patience = self.config.training.early_stopping
        while self.progress.epoch < self.epochs:
            if patience and self.progress.stale_epochs >= patience.patience:
                logger.info("no improvement for %d epochs: stopping early", self.progress.stale_epochs)
                break
            epoch = self.progress.epoch + 1
            logger.info("Epoch %d/%d", epoch, self.epochs)
            started = time.perf_counter()
            row: dict[str, Any] = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
            trained = self.train_epoch(epoch, stop)
            logger.info("train_e%d - %s", epoch, " | ".join(f"{k}: {v:.4f}" for k, v in trained.items()))
            validated = self.evaluate(self.predict("val"))
            logger.info(evaluation.format_metrics("val", validated))
            if self.scheduler is not None:
                self.scheduler.step()
            row |= {f"train_{key}": value for key, value in trained.items()}
            row |= {f"val_{key}": value for key, value in validated.items()}
            self.progress.epoch = epoch
            self._keep_best(epoch, validated)
            self.run.log_metrics(row)
            self.save_last()
            sink.log(row | {"seconds": time.perf_counter() - started}, epoch)

    def _keep_best(self, epoch: int, validated: Mapping[str, float]) -> None:
        metric = self.config.selection.metric or DEFAULT_SELECTION[self.config.task.type]
        if metric not in validated:
            raise TrainingError(
                f"selection.metric: unknown {metric!r}; expected one of {', '.join(validated)}"
            )
        value, best = validated[metric], self.progress.best_value
        patience = self.config.training.early_stopping
        if math.isnan(value):
            logger.warning(
                "%s is undefined on the validation set of epoch %d (one class only?)", metric, epoch
            )
        improvement = best - value if lower_is_better(metric) else value - best
        if improvement > 0 or (math.isnan(best) and not math.isnan(value)):
            self.progress.best_value, self.progress.best_epoch = value, epoch
            self.run.save_checkpoint("best", self.state(validated))
        if math.isnan(best) or improvement > (patience.min_delta if patience else 0.0):
            self.progress.stale_epochs = 0
        else:
            self.progress.stale_epochs += 1

    # ------------------------------------------------------------------ state

    def state(self, validated: Mapping[str, float]) -> dict[str, Any]:
        """Return what ``best.pt`` holds: the original's keys, plain numbers only."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return {
            "model_state": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "scaler_state": scaler.state_dict() if scaler is not None else {},
            "config": plain_config(self.config),
            "epoch": self.progress.epoch,
            "val_metrics": {key: float(value) for key, value in validated.items()},
        }

    def save_last(self) -> None:
        """Save all that a continued run needs."""
        state = self.state({}) | {
            "progress": asdict(self.progress),
            "scheduler_state": self.scheduler.state_dict() if self.scheduler is not None else {},
            "weighting_state": self.weighting.state_dict() if self.weighting is not None else {},
            "rng": capture_rng(),
            "metrics_rows": len(self.run.metrics_rows),
        }
        self.run.save_checkpoint("last", state)

    def restore(self) -> None:
        """Continue from ``last.pt``: afterwards every number is what the uninterrupted run would have had."""
        state = self.run.load_checkpoint("last")
        self._check_same_run(state["config"])
        self.network.load_state_dict(state["model_state"])
        self.optimizer.load_state_dict(state["optimizer_state"])
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is not None and state["scaler_state"]:
            scaler.load_state_dict(state["scaler_state"])
        if self.scheduler is not None and state["scheduler_state"]:
            self.scheduler.load_state_dict(state["scheduler_state"])
        if self.weighting is not None and state["weighting_state"]:
            self.weighting.load_state_dict(state["weighting_state"])
        self.progress = Progress(**state["progress"])
        self.run.truncate_metrics(int(state["metrics_rows"]))
        restore_shared_rng(state["rng"])
        logger.info("resumed after epoch %d, step %d", self.progress.epoch, self.progress.step)

    def _check_same_run(self, saved: Mapping[str, Any]) -> None:
        """Refuse to continue a run under settings that would change its course."""
        now = plain_config(self.config)
        for section in (
            "task",
            "multitask",
            "regression",
            "data",
            "split",
            "model",
            "optimizer",
            "seed",
            "faithful",
        ):
            if saved.get(section) != now.get(section):
                raise TrainingError(
                    f"{self.run.path}: cannot resume, the configuration's {section!r} differs from that of the "
                    "saved run; start a new run, or resume with the run's own config.yaml"
                )

    def load_best(self) -> int:
        """Load the weights that score the test set; return their epoch."""
        barrier()  # process 0 may be writing them
        if self.config.test_weights == "last" or not self.run.has_checkpoint("best"):
            if self.config.test_weights != "last":
                logger.warning("no epoch had a defined selection metric: the last epoch's weights are used")
                self.run.save_checkpoint("best", self.state({}))
            return self.progress.epoch
        state = self.run.load_checkpoint("best")
        self.network.load_state_dict(state["model_state"])
        return int(state["epoch"])


def class_index(config: Config, table: FrameTable) -> np.ndarray:
    """Return the class index of each frame, [N] int64: the label for a softmax, 0/1 for a single logit."""
    if config.model.num_classes == 1:
        return table.infected().astype(np.int64)
    if table.label.max(initial=0) >= config.model.num_classes or table.label.min(initial=0) < 0:
        raise TrainingError(
            f"data labels {sorted(set(table.label.tolist()))} do not fit model.num_classes {config.model.num_classes}"
        )
    return table.label.astype(np.int64)
