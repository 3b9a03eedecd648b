"""The loop: epochs, groups of bags, the best epoch, and a state from which a run goes on exactly where it was."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from advmil.config import Config, Handler
from advmil.data.bags import BagInput
from advmil.early_stopping import EarlyStopping, plateau_schedule
from advmil.errors import TrainingError
from advmil.figures import draw_histogram, save_figure
from advmil.inference import Centre, assemble, autocast, predict_baseline, predict_generator
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.models.checkpoint import load_network, save_network
from advmil.noise import NoiseSource, torch_noise, zero_noise
from advmil.optimisers import build_optimizer, needs_second_order
from advmil.predictions import Predictions
from advmil.progress import Progress, check_same_run
from advmil.run_data import RunData, place
from advmil.scoring import MONITORED_LOSS, original_metrics
from advmil.updates import (
    AdversarialSettings,
    AdversarialUpdate,
    Arithmetic,
    BaselineSettings,
    BaselineUpdate,
    GroupLabels,
)
from medshared.command_line import RunInterruptedError
from medshared.distributed import (
    Share,
    barrier,
    is_first,
    open_fabric,
    process_count,
    restore_shared_rng,
    shared_object,
    stopped_together,
)
from medshared.gpu import capture_rng, resolve_precision, seed_everything, select_device
from medshared.loggers import MetricLogger
from medshared.runs import RunDirectory, StopSignal

logger = logging.getLogger(__name__)


def choose_device(config: Config, asked: str | None) -> torch.device:
    """Return the device: the flag, else the key ``device``, else ``cuda_id`` where there is such a card."""
    if asked or config.device:
        return select_device(asked or config.device or "auto")
    if (
        process_count() == 1
        and config.cuda_id is not None
        and 0 <= config.cuda_id < torch.cuda.device_count()
    ):
        return select_device(f"cuda:{config.cuda_id}")
    return select_device("auto")


def join_processes(config: Config, asked: str | None) -> torch.device:
    """Return this process's device; where several were started, they meet.

    Raises:
        TrainingError: The optimiser's gradients cannot be exchanged.
    """
    device = choose_device(config, asked)
    if process_count() == 1:
        return device
    for name in (config.opt_netG, config.opt_net):
        if name and needs_second_order(name):
            raise TrainingError(
                f"{name} differentiates its gradients again, which several processes cannot exchange; start one"
            )
    return open_fabric(device).device


class Trainer:
    """The training loop of one run.

    Args:
        config: Resolved configuration.
        handler: ``adv`` or ``base``.
        data: Bags, labels, sets.
        run: Run directory that receives checkpoints and metrics.
        device: Where the networks live; null = the configuration's choice.
        resume: Continue from ``last.pt`` if there is one.
    """

    def __init__(
        self,
        config: Config,
        handler: Handler,
        data: RunData,
        run: RunDirectory,
        *,
        device: str | None = None,
        resume: bool = False,
    ) -> None:
        self.config, self.handler, self.data, self.run, self.resume = config, handler, data, run, resume
        self.device = join_processes(config, device)
        self.precision = resolve_precision(config.precision, self.device)
        seed_everything(config.seed, deterministic=config.deterministic)
        self._build()
        semi = config.semi_training
        self.epochs = config.ssl_epochs if semi else config.epochs
        self.patience = config.ssl_es_patience if semi else config.es_patience
        if semi:
            warmup = config.ssl_kfold if config.semi_training_mode in ("UD+LD", "LD+UD") else 0
        else:
            warmup = config.es_warmup
        higher = config.monitor_metrics == "ci"
        self.stopping = EarlyStopping(
            warmup=warmup,
            patience=self.patience,
            start_epoch=config.ssl_es_start_epoch if semi else config.es_start_epoch,
            mode="max" if higher else "min",
        )
        self.scheduler = plateau_schedule(self.optimizer, mode="max" if higher else "min")
        self.orders = data.orders(config.seed)
        self.progress = Progress()

    # ------------------------------------------------------------------ set-up

    def _build(self) -> None:
        """Build networks and optimisers in the original's order, so that a seed gives the same start."""
        c = self.config
        arithmetic = Arithmetic(
            autocast=partial(autocast, self.device, self.precision),
            second_order=needs_second_order(c.opt_netG if self.handler == "adv" else c.opt_net),
        )
        self.discriminator = None
        if self.handler == "base":
            self.network: Any = build_baseline(c).to(self.device)
            self.optimizer = build_optimizer(
                c.opt_net,
                self.network,
                lr=c.opt_net_lr,
                weight_decay=c.opt_net_weight_decay,
                momentum=c.opt_momentum,
                freeze=self._frozen(),
            )
            self.update: Any = BaselineUpdate(
                self.network, self.optimizer, BaselineSettings.from_config(c), arithmetic
            )
            return
        self.network = build_generator(c).to(self.device)
        self.discriminator = build_discriminator(c).to(self.device)
        self.optimizer = build_optimizer(
            c.opt_netG,
            self.network,
            lr=c.opt_netG_lr,
            weight_decay=c.opt_netG_weight_decay,
            momentum=c.opt_momentum,
            freeze=self._frozen(),
        )
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), lr=c.opt_netD_lr, betas=(0.9, 0.999)
        )
        self.update = AdversarialUpdate(
            self.network,
            self.discriminator,
            self.optimizer,
            self.optimizer_d,
            self._adversarial_settings(),
            arithmetic,
        )

    def _adversarial_settings(self) -> AdversarialSettings:
        settings = AdversarialSettings.from_config(self.config)
        # The original trains D even where the generator never asks it.
        return replace(settings, gan_off_faithful=self.config.faithful)

    def _frozen(self) -> tuple[str, ...]:
        return tuple(self.network.unused) if self.config.freeze_unused else ()

    @property
    def noise(self) -> NoiseSource:
        """The training noise: torch's global CPU stream, as in the original."""
        return torch_noise(self.config.gen_noi_noise_dist)

    # ------------------------------------------------------------------ one epoch

    def groups(self, epoch: int) -> list[list[str]]:
        """Return the groups of patients of an epoch (0-based), in order."""
        which = epoch % len(self.data.epochs_of)
        patients = self.data.epochs_of[which]
        order = [patients[i] for i in self.orders[which].epoch(epoch // len(self.data.epochs_of))]
        size = self.config.bp_every_batch
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        if self.config.drop_last_group and len(groups[-1]) < size:
            groups = groups[:-1]
        if not groups:
            raise TrainingError(
                f"drop_last_group leaves no group: {len(order)} training patients, bp_every_batch {size}; "
                "lower bp_every_batch or set drop_last_group: False"
            )
        return groups

    def _labels(self, patients: Sequence[str]) -> tuple[GroupLabels, list[bool]]:
        """Return the labels of patients and whether each may be used."""
        rows = self.data.rows(patients)
        labels = GroupLabels(self.data.labels.t[rows], self.data.labels.e[rows])
        return labels, [patient in self.data.labelled for patient in patients]

    def train_group(
        self, patients: Sequence[str], bags: Sequence[BagInput | None], share: Share | None = None
    ) -> dict[str, float]:
        """Update the networks on one group of bags; return the logged losses.

        Args:
            patients: Of the group.
            bags: Theirs; nothing for those of other processes.
            share: Which ones are this process's; by default all.
        """
        labels, visible = self._labels(patients)
        if self.handler == "base":
            step = self.update.step(bags, labels, share)
        else:
            step = self.update.step(bags, labels, visible, self.noise, self.config.gen_updates, share)
        log = dict(step.log)
        if not all(math.isfinite(value) for value in log.values()):
            raise TrainingError(
                f"a loss is not finite in epoch {self.progress.epoch + 1} ({log}); lower the learning rates"
            )
        self.progress.patients += list(patients)
        self.progress.outputs += step.predictions.float().reshape(len(patients), -1).tolist()
        if step.fake_scores is not None:
            self.progress.scores += step.fake_scores.float().tolist()
        for key, value in log.items():
            self.progress.sums[key] = self.progress.sums.get(key, 0.0) + value
            self.progress.counts[key] = self.progress.counts.get(key, 0) + 1
        return log

    def train_epoch(self, epoch: int, stop: StopSignal, sink: MetricLogger) -> dict[str, float]:
        """Train one epoch (0-based), after the groups that ``progress`` says are done; return its metrics.

        Raises:
            RunInterruptedError: A stop was asked for; the state is saved.
        """
        groups = self.groups(epoch)
        left = groups[self.progress.group :]
        # One stream over the rest of the epoch, so that bags are read ahead across groups.
        shares = [Share.of(len(group)) for group in left]
        stream = self.data.source.iterate(
            [patient for group, share in zip(left, shares, strict=True) for patient in group[share.own]]
        )
        for number, (patients, share) in enumerate(zip(left, shares, strict=True), start=self.progress.group):
            bags: list[BagInput | None] = [None] * len(patients)
            for i in range(len(patients))[share.own]:
                bags[i] = place(next(stream)[1], self.device)
            log = self.train_group(patients, bags, share)
            self.progress.group = number + 1
            self.progress.updates += 1
            sink.log(log, self.progress.updates)
            if stopped_together(stop):
                self.save_last()
                raise RunInterruptedError(
                    f"stopped by {stop.name} in epoch {epoch + 1} after {number + 1} groups; --resume continues"
                )
        metrics = original_metrics(self._training_predictions(), self.config)
        name = self.data.epoch_names[epoch % len(self.data.epochs_of)]
        return self.progress.end_epoch() | {f"{name}/{key}": value for key, value in metrics.items()}

    def _training_predictions(self) -> Predictions:
        """Return the predictions that the groups of the epoch were updated on."""
        p = self.progress
        scores = np.asarray(p.scores, dtype=np.float32) if p.scores else None
        outputs = np.asarray(p.outputs, dtype=np.float32)
        return assemble(
            self.config, self.data.labels, p.patients, self.data.rows(p.patients), outputs, None, scores
        )

    # ------------------------------------------------------------------ evaluation

    def predict(
        self,
        patients: Sequence[str],
        samples: int = 1,
        noise: NoiseSource | None = None,
        centre: Centre = "median",
    ) -> Predictions:
        """Predict patients with the present weights; noise from the training stream unless a source is given."""
        kinds: dict[str, Any] = {"device": self.device, "precision": self.precision}
        if self.handler == "base":
            return predict_baseline(self.network, self.data, patients, self.config, **kinds)
        discriminator = self.discriminator if self.config.loss_gan_coef > 0 or self.config.faithful else None
        return predict_generator(
            self.network,
            discriminator,
            self.data,
            patients,
            self.config,
            samples=samples,
            noise=noise or self.noise,
            centre=centre,
            **kinds,
        )

    def validate(self, name: str) -> dict[str, float]:
        """Score a set after an epoch, with the noise that ``val_noise`` asks for."""
        samples = self.config.val_noise_samples if self.config.val_noise == "mean" else 1
        source = zero_noise if self.config.val_noise == "zero" else None
        predicted = self.predict(self.data.sets[name], samples, source, "mean")
        if self.config.log_plot:
            path = self.run.figures / "histograms" / f"{name}-epoch{self.progress.epoch + 1:04d}.png"
            if is_first():
                save_figure(draw_histogram(predicted), path)
        return original_metrics(predicted, self.config)

    # ------------------------------------------------------------------ the run

    def fit(self, stop: StopSignal, sink: MetricLogger) -> None:
        """Train until the last epoch or early stopping, keeping ``last`` and ``best``."""
        barrier()  # process 0 has made the run directory
        if self.resume and shared_object(self.run.has_checkpoint("last")):
            self.restore()
        elif self.resume:
            logger.warning("%s: nothing to resume, the run starts at its beginning", self.run.path)
        while self.progress.epoch < self.epochs and not self.progress.stopped:
            epoch = self.progress.epoch
            started = time.perf_counter()
            row: dict[str, Any] = {"epoch": epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
            row |= self.train_epoch(epoch, stop, sink)
            for name in ("validation", *(("test",) if self.config.eval_test_each_epoch else ())):
                if name in self.data.sets:
                    row |= {f"{name}/{key}": value for key, value in self.validate(name).items()}
            self._select(epoch, row)
            self.progress.epoch = epoch + 1
            self.run.log_metrics(row)
            self.save_last()
            # The losses of the groups have gone to the tracker one by one.
            shown = {key: value for key, value in row.items() if not key.startswith("train_batch/")}
            sink.log(shown | {"seconds": time.perf_counter() - started}, self.progress.updates)
            self._announce(row)
            unfinished = self.progress.epoch < self.epochs and not self.progress.stopped
            if unfinished and stopped_together(stop):
                raise RunInterruptedError(
                    f"stopped by {stop.name} after epoch {epoch + 1}; --resume continues"
                )
        self.save_original("last")

    def _announce(self, row: Mapping[str, Any]) -> None:
        shown = [f"{key} {row[key]:.4f}" for key in row if key.endswith((self.monitored, "/c_index"))]
        logger.info("epoch %d/%d: %s", row["epoch"], self.epochs, ", ".join(shown))

    @property
    def monitored(self) -> str:
        """Name of the monitored metric of the validation set."""
        if self.config.monitor_metrics == "ci":
            return "c_index"
        if self.config.task == "surv_cox":
            return MONITORED_LOSS["cox"]
        return MONITORED_LOSS["discrete" if self.config.is_discrete else "continuous"]

    def _select(self, epoch: int, row: Mapping[str, Any]) -> None:
        """Step the schedule and keep the best epoch, where early stopping is on."""
        value = row.get(f"validation/{self.monitored}", math.nan)
        if not self.patience or "validation" not in self.data.sets:
            return
        if math.isnan(value):
            if epoch == 0:
                logger.warning(
                    "validation %s is undefined: no epoch can be chosen by it, nor training stopped early",
                    self.monitored,
                )
            return
        self.scheduler.step(value)
        decision = self.stopping.update(epoch, value)
        if decision.save:
            self.progress.best_epoch = epoch + 1
            self.save_original("best")
        elif self.config.es_verbose and epoch >= self.stopping.warmup:
            logger.info("no improvement for %d of %s epochs", self.stopping.counter, self.patience)
        self.progress.stopped = decision.stop

    # ------------------------------------------------------------------ state

    def _networks(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        """Return networks and optimisers by the original's file names."""
        if self.discriminator is None:
            return {"model": (self.network, self.optimizer)}
        return {
            "modelG": (self.network, self.optimizer),
            "modelD": (self.discriminator, self.optimizer_d),
        }

    def save_original(self, which: str) -> None:
        """Write ``<prefix>_model{,G,D}-<which>.pth`` as the original does."""
        if not is_first():
            return
        for name, (network, optimizer) in self._networks().items():
            epoch = self.progress.best_epoch if which == "best" else self.progress.epoch
            save_network(self.run.path / f"{self.data.name}_{name}-{which}.pth", network, epoch, optimizer)

    def load_original(self, which: str) -> int:
        """Load the weights of ``best`` or ``last`` and return their epoch; ``last`` where there is no best."""
        if which == "best" and not self.progress.best_epoch:
            if self.patience:
                logger.warning("no epoch after the warm-up was chosen: the last epoch's weights are used")
            which = "last"
        epoch = 0
        for name, (network, _) in self._networks().items():
            path = self.run.path / f"{self.data.name}_{name}-{which}.pth"
            epoch = load_network(path, network).epoch or 0
        return epoch

    def save_last(self) -> None:
        """Save all that a continued run needs."""
        networks = {
            name: {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
            for name, (network, optimizer) in self._networks().items()
        }
        self.run.save_checkpoint(
            "last",
            {
                "config": self.config.model_dump(),
                "networks": networks,
                "scheduler": self.scheduler.state_dict(),
                "stopping": self.stopping.state_dict(),
                "progress": asdict(self.progress),
                "rng": capture_rng(),
                "metrics_rows": len(self.run.metrics_rows),
            },
        )

    def restore(self) -> None:
        """Continue from ``last.pt``: afterwards every number is what the uninterrupted run would have had."""
        state = self.run.load_checkpoint("last")
        check_same_run(self.run.path, state["config"], self.config)
        for name, (network, optimizer) in self._networks().items():
            network.load_state_dict(state["networks"][name]["model"])
            optimizer.load_state_dict(state["networks"][name]["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.stopping.load_state_dict(state["stopping"])
        self.progress = Progress(**state["progress"])
        self.run.truncate_metrics(int(state["metrics_rows"]))
        restore_shared_rng(state["rng"])
        logger.info("resumed after epoch %d, group %d", self.progress.epoch, self.progress.group)
