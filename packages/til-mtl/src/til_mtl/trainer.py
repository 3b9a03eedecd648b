"""The loop: epochs, steps, the best epoch, and a state from which a run goes on exactly where it was.

One loop serves the multi-task network and both single-task networks, so that a comparison between them is one of
networks and not of loops. Written out on Lightning Fabric (devices, precision), so that its state is a dozen named
values and a run that was stopped at any step continues with exactly the numbers it would have had.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from medshared.command_line import RunInterruptedError
from medshared.distributed import (
    average_gradients,
    barrier,
    is_first,
    open_fabric,
    optimizer_parameters,
    shared_object,
    stopped_together,
)
from medshared.gpu import resolve_precision, seed_everything
from medshared.process import progress as show_progress
from medshared.runs import RunDirectory, StopSignal
from medshared.shared_layers import computing, share_layers
from til_mtl.batches import Batch, TrainingBatches, evaluation_batches, rows_of
from til_mtl.checkpoints import Progress, best_state, complete_state, link_original_name, restore_state
from til_mtl.config import Config
from til_mtl.data.store import PatchStore
from til_mtl.devices import choose_device
from til_mtl.epoch_values import EpochValues, StepTerms, in_order
from til_mtl.errors import TrainingError
from til_mtl.limits import batches_left, parse_duration, validation_points
from til_mtl.losses import CellTerms, TissueTerms, UncertaintyWeighting, cell_loss, tissue_loss, total_loss
from til_mtl.models.build import build_network
from til_mtl.models.deeplab import Maps
from til_mtl.patch_scores import PatchScorer, PatchScores
from til_mtl.run_data import RunData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to a configuration; none of it changes a result on CPU."""

    resume: bool = False
    resume_from_checkpoint: Path | None = None
    download: bool = False  # allow fetching ImageNet weights


def make_fabric(config: Config) -> tuple[Fabric, str]:
    """Set up device, precision and the other processes of the run; return the precision's name too."""
    device = choose_device(config)
    precision = resolve_precision(config.precision, device)
    return open_fabric(device, precision), precision


def lower_is_better(metric: str) -> bool:
    """Return whether a selection metric improves downwards."""
    return "loss" in metric


class Trainer:
    """The training loop of one run.

    Args:
        config: Resolved configuration.
        data: The sets.
        run: Run directory that receives checkpoints and metrics.
        options: Resume, downloads.
    """

    def __init__(self, config: Config, data: RunData, run: RunDirectory, options: RunOptions) -> None:
        self.config, self.data, self.run, self.options = config, data, run, options
        self.fabric, self.precision = make_fabric(config)
        seed_everything(config.seed_everything, deterministic=config.deterministic)
        torch.backends.cudnn.benchmark = config.benchmark
        self.network = build_network(config, allow_download=options.download)
        self.weighting = UncertaintyWeighting() if self._learns_weights else None
        self.progress = Progress()
        self._place()
        self.batches = TrainingBatches(config, data.stores["train"], self._cached_features("train"))
        self.values = EpochValues(config, self.fabric.device)
        self.scorer = PatchScorer(config)

    @property
    def _learns_weights(self) -> bool:
        return self.config.task == "mtl" and self.config.balancing == "uncertainty"

    def _place(self) -> None:
        """Move the network to its device and build the optimiser."""
        config = self.config
        wanted = config.channels_last
        self.channels_last = self.fabric.device.type == "cuda" if wanted is None else wanted
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_layers(self.network, self.fabric.device)
        self.model: Any = self.fabric.setup_module(self.network)
        self._maps, self._decode = self.network.maps, self.network.decode
        if config.compile:
            self._maps, self._decode = torch.compile(self._maps), torch.compile(self._decode)
        groups: list[dict[str, Any]] = [{"params": [p for p in self.model.parameters() if p.requires_grad]}]
        if self.weighting is not None:
            self.weighting.to(self.fabric.device)
            # Decay would pull the learned weights towards 1.
            groups.append({"params": list(self.weighting.parameters()), "weight_decay": 0.0})
        # Fused Adam unscales float16 gradients inside its step, where they can no longer be clipped.
        clips_scaled = self.precision == "16-mixed" and bool(config.gradient_clip_val)
        fused = self.fabric.device.type in ("cpu", "cuda") and not clips_scaled
        adam = torch.optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        self.optimizer: Any = self.fabric.setup_optimizers(adam)

    def _cached_features(self, name: str) -> Any:
        """Return the frozen encoder's features of a set, where the configuration wants them cached."""
        if not self.config.cache_features:
            return None
        from til_mtl.feature_cache import FeatureCache

        return FeatureCache(self.network, self.data.stores[name], self.config, device=self.fabric.device)

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch (0-based): cosine half-waves of ``t_max`` epochs, down to 0 and up again."""
        return 0.5 * self.config.lr * (1 + math.cos(math.pi * epoch / self.config.t_max))

    # ------------------------------------------------------------------ one step

    def maps(self, batch: Batch) -> Maps:
        """Run the network over a batch."""
        # Fabric wraps `forward` alone into its precision.
        with self.fabric.autocast():
            if batch.features is not None:
                features = batch.features.channels_last() if self.channels_last else batch.features
                return self._decode(features, batch.size)
            images = batch.images
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            return self._maps(images)

    def loss(self, maps: Maps, batch: Batch) -> tuple[Tensor, TissueTerms | None, CellTerms | None]:
        """Return the step's loss and the terms of both tasks; a task without a patch in the batch is null."""
        config, exact = self.config, bool(self.config.resolved_value("exact_labels"))
        tissue = cells = None
        is_cell = batch.tasks == 1
        if maps.seg is not None and batch.has(0):
            logits, labels = rows_of(maps.seg, ~is_cell), rows_of(batch.masks, ~is_cell)
            # The single-task script pools Dice over the batch, the multi-task one takes it patch by patch.
            tissue = tissue_loss(
                logits.float(),
                labels,
                exact=exact,
                per_sample_dice=config.task == "mtl",
                shared=batch.shared_rows(0),
            )
        if maps.det is not None and batch.has(1):
            logits, labels = rows_of(maps.det, is_cell), rows_of(batch.masks, is_cell)
            cells = cell_loss(
                logits.float(),
                labels,
                exact=exact,
                dice_weight=config.det_dice,
                shared=batch.shared_rows(1),
            )
        if tissue is None and cells is None:
            raise TrainingError("a batch has no patch of the network's task; check the folders of data_dir")
        if self.weighting is not None:
            return self.weighting(tissue, cells, config.loss_weights), tissue, cells
        weights = config.loss_weights if config.task == "mtl" else (1.0, 1.0)
        return total_loss(tissue, cells, weights), tissue, cells

    # ------------------------------------------------------------------ one epoch

    def train_epoch(self, stop: StopSignal, sink: Any) -> None:
        """Train one epoch from ``progress.batch`` on, validating where the configuration says so.

        Raises:
            RunInterruptedError: A stop was asked for; the state is saved.
            TrainingError: The loss is not finite.
        """
        config, progress = self.config, self.progress
        total = self._n_batches()
        points = validation_points(config, total, progress.epoch)
        rate = self.learning_rate(progress.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        started, position = time.perf_counter(), progress.batch
        for batch in self._training_batches(progress.epoch, total):
            position += 1
            update = position % config.accumulate_grad_batches == 0 or position == total
            self._step(batch, update)
            started = self._add_seconds(started)
            if update:
                progress.batch, progress.global_step = position, progress.global_step + 1
            ends = update and (position == total or self._is_over())
            if ends or position in points:
                self._log_row(sink, validate=position in points or (ends and position < total))
                self.model.train()
            if ends:
                break
            # Only after an update: gradients that wait for one are not saved.
            if update and stopped_together(stop):
                self._add_seconds(started)
                self.save_last()
                raise RunInterruptedError(
                    f"stopped by {stop.name} in epoch {progress.epoch} after {position} batches; --resume continues"
                )
        self._add_seconds(started)
        if (
            progress.batch >= total
        ):  # a limit within the epoch leaves the rest of it to a run with a later limit
            progress.epoch, progress.batch = progress.epoch + 1, 0
            self.values = EpochValues(config, self.fabric.device)

    def _training_batches(self, epoch: int, total: int) -> Iterator[Batch]:
        skip, device = self.progress.batch, self.fabric.device
        batches = self.batches.epoch(epoch, skip=skip, limit=total, device=device)
        if not self.config.enable_progress_bar:
            return batches
        return show_progress(batches, max(total - skip, 0), f"epoch {epoch}")

    def _n_batches(self) -> int:
        return batches_left(self.config, "train", len(self.batches))

    def _step(self, batch: Batch, update: bool) -> None:
        with nullcontext() if batch.whole is None else computing(batch.whole.share):
            maps = self.maps(batch)
        loss, tissue, cells = self.loss(maps, batch)
        self.fabric.backward(loss / self.config.accumulate_grad_batches)
        if update:
            average_gradients(optimizer_parameters(self.optimizer))
            self._clip()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        froc = None
        if self.config.resolved_value("train_froc") and maps.det is not None:
            froc = self._batch_froc(maps.det.detach(), batch)
        self.values.add(tissue, cells, loss, batch.n, froc)

    def _batch_froc(self, logits: Tensor, batch: Batch) -> float:
        """Return the original's FROC of a batch, over the patches of all processes."""
        if batch.whole is not None:
            share, tasks = batch.whole
            logits = share.gather(logits)
            batch = batch._replace(masks=share.gather(batch.masks), tasks=tasks, whole=None)
        return self.scorer.batch_froc(logits, batch)

    def _clip(self) -> None:
        value = self.config.gradient_clip_val
        if not value:
            return
        limit = {"max_norm": value} if self.config.gradient_clip_algorithm == "norm" else {"clip_val": value}
        self.fabric.clip_gradients(self.model, self.optimizer, **limit, error_if_nonfinite=False)

    def _add_seconds(self, started: float) -> float:
        now = time.perf_counter()
        self.progress.seconds += now - started
        return now

    def _is_over(self) -> bool:
        """Return whether a limit is reached; as in Lightning only ``max_time`` waits for the least numbers."""
        config, progress = self.config, self.progress
        if 0 <= config.max_steps <= progress.global_step:
            return True
        if progress.epoch < (config.min_epochs or 0) or progress.global_step < (config.min_steps or 0):
            return False
        # Process 0's clock counts, so that all stop at the same step.
        return config.max_time is not None and shared_object(progress.seconds) >= parse_duration(
            config.max_time
        )

    # ------------------------------------------------------------------ validation

    def evaluate(self, name: str, limit: int | None = None) -> tuple[dict[str, float], PatchScores]:
        """Score a set: losses and Dice under the original's names, FROC, and what each patch gave.

        All processes of the run take turns with the batches, and all get the result.

        Args:
            name: ``train``, ``val`` or ``test``.
            limit: Batches; null takes all.
        """
        values, scorer = EpochValues(self.config, self.fabric.device), PatchScorer(self.config)
        store, batches = self.data.stores[name], None
        if self.config.overfit_batches and name == "val":
            store, batches = self.data.stores["train"], self.batches.indices(0)
        self.model.eval()
        with torch.no_grad():
            read = evaluation_batches(
                self.config, store, device=self.fabric.device, limit=limit, batches=batches
            )
            found = [self._score_batch(batch, store) for batch in read]
        for step, part in in_order(found, self.fabric.device):
            values.add(*step)
            scorer.extend(part)
        scores = scorer.scores(store)
        prefix = "val" if name == "val" else name
        named = values.values(prefix, scores.froc())
        if self.config.task != "seg":
            named[f"{prefix}_froc_tiger"] = scores.froc()
        return named, scores

    def _score_batch(self, batch: Batch, store: PatchStore) -> tuple[StepTerms, PatchScorer]:
        """Return what `EpochValues.add` takes of a batch, and the scores of its patches."""
        legacy = self.config.resolved_value("froc") == "legacy"
        scorer = PatchScorer(self.config)
        maps = self.maps(batch)
        loss, tissue, cells = self.loss(maps, batch)
        froc = scorer.batch_froc(maps.det, batch) if legacy and maps.det is not None else None
        scorer.add(maps, batch, store)
        return (tissue, cells, loss, len(batch.indices), froc), scorer

    def limit(self, name: str) -> int:
        """Return how many batches of ``val`` or ``test`` the configuration leaves."""
        overfit = self.config.overfit_batches and name == "val"
        n = len(self.batches) if overfit else math.ceil(len(self.data.stores[name]) / self.config.batch_size)
        return batches_left(self.config, name, n)

    @property
    def _keeps_checkpoints(self) -> bool:
        return self.config.enable_checkpointing and not self.config.fast_dev_run

    def _log_row(self, sink: Any, *, validate: bool) -> None:
        """Log one row of the epoch so far, after a validation that may give the best weights."""
        progress = self.progress
        row: dict[str, Any] = {"epoch": progress.epoch, "step": progress.global_step}
        row["lr-Adam"] = self.optimizer.param_groups[0]["lr"]
        trained = self.values.values("train")
        if not math.isfinite(trained["train_loss"]):
            raise TrainingError(
                f"the training loss of epoch {progress.epoch} is not finite ({trained['train_loss']}); lower --lr "
                f"({self.config.lr}), set --gradient_clip_val, or use --precision 32"
            )
        limit = self.limit("val") if validate else 0
        validated = self.evaluate("val", limit)[0] if limit else {}
        row |= trained | validated
        shown = {
            k: v for k, v in row.items() if k in ("train_loss", "val_loss", "val_dice_mean", "val_froc_tiger")
        }
        logger.info("epoch %d: %s", progress.epoch, ", ".join(f"{k} {v:.4f}" for k, v in shown.items()))
        self._keep_best(validated)
        self.run.log_metrics(row)
        sink.log(row | {"seconds": progress.seconds}, progress.global_step)

    def _check_monitor(self, validated: Mapping[str, float]) -> None:
        metric = self.config.monitor
        if metric not in validated:
            raise TrainingError(f"monitor: unknown value {metric!r}; expected one of {', '.join(validated)}")

    def _keep_best(self, validated: Mapping[str, float]) -> None:
        metric, progress = self.config.monitor, self.progress
        if not validated or not self._keeps_checkpoints:
            return
        self._check_monitor(validated)
        value, best = validated[metric], progress.best_value
        if math.isnan(value):
            logger.warning("%s is undefined in epoch %d", metric, progress.epoch)
            return
        if not math.isnan(best) and not (value < best if lower_is_better(metric) else value > best):
            return
        progress.best_value, progress.best_epoch, progress.best_step = (
            value,
            progress.epoch,
            progress.global_step,
        )
        path = self.run.save_checkpoint("best", best_state(self, validated))
        if not is_first():
            return
        # The original counts steps from 0 and names the last one.
        link_original_name(path, progress.epoch, progress.global_step - 1)

    # ------------------------------------------------------------------ the run

    def fit(self, stop: StopSignal, sink: Any) -> None:
        """Train until the last epoch or limit, keeping ``last.pt`` and the best checkpoint."""
        barrier()  # process 0 has made the run directory
        if self.options.resume_from_checkpoint is not None:
            self.restore(self.options.resume_from_checkpoint)
        elif self.options.resume and shared_object(self.run.has_checkpoint("last")):
            self.restore(self.run.checkpoint_path("last"))
        elif self.options.resume:
            logger.warning("%s: nothing to resume, the run starts at its beginning", self.run.path)
        config = self.config
        epochs = 1 if config.fast_dev_run else config.max_epochs
        n = self.limit("val")
        if config.num_sanity_val_steps >= 0:
            n = min(n, config.num_sanity_val_steps)
        if n and not self.progress.global_step and not config.fast_dev_run:
            self._check_monitor(self.evaluate("val", n)[0])
        finished = self.progress.epoch >= epochs or self._is_over() or not self._n_batches()
        while not finished:
            with torch.autograd.set_detect_anomaly(config.detect_anomaly):
                self.train_epoch(stop, sink)
            finished, stopped = self.progress.epoch >= epochs or self._is_over(), stopped_together(stop)
            due = self.progress.epoch % config.save_every_n_epochs == 0
            if self._keeps_checkpoints and (due or finished or stopped):
                self.save_last()
            if stopped and not finished:
                raise RunInterruptedError(
                    f"stopped by {stop.name} after epoch {self.progress.epoch - 1}; --resume continues"
                )

    # ------------------------------------------------------------------ state

    def save_last(self) -> None:
        """Save all that a continued run needs."""
        self.run.save_checkpoint("last", complete_state(self))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint: afterwards every number is what the uninterrupted run would have had.

        Args:
            path: ``last.pt`` of this package, or a checkpoint of the original with its optimiser's state.

        Raises:
            CheckpointError: It holds no state to continue from, or that of another run.
        """
        restore_state(self, path)
        logger.info("resumed at epoch %d, batch %d", self.progress.epoch, self.progress.batch)

    def load_best(self) -> int:
        """Load the selected weights; return their epoch."""
        barrier()  # process 0 may be writing them
        if not self.run.has_checkpoint("best"):
            if self._keeps_checkpoints:
                logger.warning("no epoch had a defined %s: the last weights are used", self.config.monitor)
            return self.progress.epoch - (self.progress.batch == 0)
        state = self.run.load_checkpoint("best")
        self.network.load_state_dict({k.removeprefix("net."): v for k, v in state["state_dict"].items()})
        return int(state["epoch"])
