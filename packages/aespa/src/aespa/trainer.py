"""The loop: epochs, steps, the best epoch, and a state from which a run goes on exactly where it was.

Every random choice belongs to (seed, epoch, image), so that nothing but the epoch and the batch has to be kept of it,
and a run over several devices makes the choices of a run over one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aespa.config import Config
from aespa.data.arrays import Batch, RaterArrays
from aespa.devices import choose_devices
from aespa.draws import ItemDraws
from aespa.errors import TrainingError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import load_network, save_network
from aespa.models.network import AespaNetwork
from aespa.models.sam_weights import check_fit, load_sam_weights
from aespa.original_files import link_best
from aespa.proposing_losses import proposal_losses
from aespa.training_rounds import RoundLoss, follow_losses, plain_losses
from medshared.command_line import RunInterruptedError
from medshared.distributed import average_gradients, open_fabric, stopped_together, summed
from medshared.files import to_plain
from medshared.gpu import derive_seed, resolve_precision
from medshared.process import StopSignal
from medshared.process import progress as show_progress
from medshared.runs import RunDirectory

logger = logging.getLogger(__name__)

Validate = Callable[[AespaNetwork, int], dict[str, float]]
SELECTION = "dice"  # the best epoch has the largest mean Dice of its best round, as in the original


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # over the batches of the epoch so far
    best_dice: float = math.nan
    best_epoch: int = -1
    waited: int = 0  # validations since the best one
    rows: int = 0  # of metrics.csv
    seconds: float = 0.0


class Trainer:
    """The training loop of one run.

    Args:
        config: Resolved configuration.
        arrays: The training images.
        run: Run directory that receives checkpoints and metrics.
        validate: Measures the network after an epoch; ``dice`` chooses the best one.
    """

    def __init__(self, config: Config, arrays: RaterArrays, run: RunDirectory, validate: Validate) -> None:
        self.config, self.arrays, self.validate = config, arrays, validate
        devices = choose_devices(config)
        if devices.count > 1 and config.amp == "16":
            raise TrainingError(
                "-amp 16 runs on one device (each would scale its own gradients); use -amp bf16"
            )
        if devices.count > 1 and config.update == "alternating":
            raise TrainingError(
                "update: alternating, the original's, runs on one device; use per_round on several"
            )
        precision: Any = resolve_precision(config.amp, devices.accelerator)
        device = torch.device(devices.accelerator) if devices.count > 1 else devices.first
        self.fabric = open_fabric(device, precision, devices=devices.numbers)
        self.run = RunDirectory(self.fabric.broadcast(str(run.path)))
        self.network = start_network(config).to(self.fabric.device)
        fused = self.fabric.device.type in ("cpu", "cuda")
        adam = torch.optim.Adam(self.network.parameters(), lr=config.lr, fused=fused)
        if self.fabric.world_size > 1:
            adam.register_step_pre_hook(lambda *_: average_gradients(self.network.parameters()))
        self.optimizer: Any = self.fabric.setup_optimizers(adam)
        self.progress = Progress(epoch=config.epoch_ini)

    # ------------------------------------------------------------------ one step

    def losses(self, batch: Batch, encode: Callable[[], torch.Tensor]) -> Iterator[RoundLoss]:
        """Yield the losses of a batch, round by round."""
        methods = {"AESPA": follow_losses, "SPA": proposal_losses, "SAM": plain_losses}
        method = methods[self.config.mode]
        return method(self.network, encode, batch.raters, batch.valid, self._draws(batch.index), self.config)

    def _draws(self, index: torch.Tensor) -> ItemDraws:
        seed, epoch = self.config.seed, self.progress.epoch
        return ItemDraws([derive_seed(seed, "train", epoch, int(i)) for i in index.tolist()])

    def step(self, batch: Batch, weight: float = 1.0) -> float:
        """Train on one batch.

        Args:
            batch: Images and raters.
            weight: Of the losses, where devices have batches of different sizes.

        Returns:
            Sum of the losses over the rounds, which is what the original reports.
        """
        if self.config.update == "alternating":
            from aespa.original.rounds import alternating_step

            found = alternating_step(
                self.network, self.optimizer, batch, draws=self._draws(batch.index), config=self.config
            )
            return found["loss"]
        if self.config.update == "per_round":
            return self._step_per_round(batch, weight)
        return self._step_per_batch(batch, weight)

    def _step_per_batch(self, batch: Batch, weight: float) -> float:
        """Take one step for the losses of all rounds, from one pass of the image encoder."""
        with self.fabric.autocast():
            features = self.network.encode(batch.images)
        # The gradients of the rounds add up here, so that only one round's graph is alive at a time.
        leaf = features.detach().requires_grad_()
        total = 0.0
        rounds = self.losses(batch, lambda: leaf)
        while (loss := self._next(rounds)) is not None:
            self.fabric.backward(loss.total * weight)
            total += loss.total.detach()
        features.backward(leaf.grad)
        self._update()
        return float(total)

    def _step_per_round(self, batch: Batch, weight: float) -> float:
        """Take a step after every round, with features of the network as it then is."""
        total = 0.0
        rounds = self.losses(batch, lambda: self.network.encode(batch.images))
        while (loss := self._next(rounds)) is not None:
            self.fabric.backward(loss.total * weight)
            self._update()
            total += loss.total.detach()
        return float(total)

    def _next(self, rounds: Iterator[RoundLoss]) -> RoundLoss | None:
        """Compute the next round in the run's precision."""
        with self.fabric.autocast():
            return next(rounds, None)

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # ------------------------------------------------------------------ one epoch

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch (places of the images); the last one may be smaller."""
        rng = np.random.default_rng(derive_seed(self.config.seed, "order", epoch))
        places = rng.permutation(len(self.arrays))
        return [places[i : i + self.config.b] for i in range(0, len(places), self.config.b)]

    def learning_rate(self, epoch: int) -> float:
        """Return the rate of an epoch (0-based)."""
        config = self.config
        return config.lr * (config.lr_gamma ** (epoch // config.lr_step) if config.lr_step else 1.0)

    def train_epoch(self, stop: StopSignal) -> float:
        """Train the batches of one epoch from ``progress.batch`` on and return its mean loss.

        Raises:
            RunInterruptedError: A stop was asked for; the state is saved.
            TrainingError: The loss is not finite.
        """
        progress, fabric = self.progress, self.fabric
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress.epoch)
        self.network.train()
        batches = self.order(progress.epoch)
        shown = batches[progress.batch :]
        if self.config.progress and fabric.is_global_zero:
            shown = show_progress(shown, len(shown), f"epoch {progress.epoch}")
        started = time.perf_counter()
        for places in shown:
            mine = places[fabric.global_rank :: fabric.world_size]
            weight = len(mine) * fabric.world_size / len(places)
            batch = self.arrays.batch(mine if len(mine) else places[:1], fabric.device)
            loss = self.step(batch, weight)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the training loss of epoch {progress.epoch} is not finite ({loss}); lower -lr "
                    f"({self.config.lr}) or use -amp 32"
                )
            progress.loss_sum += loss * weight
            progress.batch, progress.step = progress.batch + 1, progress.step + 1
            now = time.perf_counter()
            progress.seconds, started = progress.seconds + now - started, now
            self.pause(stop)
        self._share_loss()
        return progress.loss_sum / len(batches)

    def pause(self, stop: StopSignal) -> None:
        """Save the state and end, if a stop was asked for: after a batch, or while validating.

        Raises:
            RunInterruptedError: A stop was asked for; the state is saved.
        """
        if stopped_together(stop):
            self.save_last()
            raise RunInterruptedError(
                f"stopped by {stop.name} in epoch {self.progress.epoch} after {self.progress.batch} batches; "
                "-resume continues"
            )

    def _share_loss(self) -> None:
        """Give every process the mean of their losses so far, so that any of them may save it."""
        fabric, progress = self.fabric, self.progress
        if fabric.world_size > 1:
            own = torch.tensor(progress.loss_sum, dtype=torch.float64, device=fabric.device)
            progress.loss_sum = float(summed(own)) / fabric.world_size

    # ------------------------------------------------------------------ the run

    def fit(self, stop: StopSignal, sink: Any) -> None:
        """Train until the last epoch, keeping ``last.pt`` and the best checkpoint."""
        config, progress = self.config, self.progress
        while progress.epoch < config.epochs and not self._waited_enough():
            epoch = progress.epoch
            loss = self.train_epoch(stop)
            logger.info("Train loss: %s || @ epoch %d.", loss, epoch)
            row: dict[str, Any] = {"epoch": epoch, "lr": self.learning_rate(epoch), "train_loss": loss}
            last = epoch + 1 >= config.epochs
            if epoch % config.val_freq == 0 or last:
                self.network.eval()
                found = self.validate(self.network, epoch)
                row |= {f"val_{key}": value for key, value in found.items()}
                self._keep_best(found, epoch)
            if self.fabric.is_global_zero:
                self.run.log_metrics(row)
                sink.log(row, progress.step)
            progress.rows += 1
            progress.epoch, progress.batch, progress.loss_sum = epoch + 1, 0, 0.0
            if last or progress.epoch % config.save_freq == 0 or self._waited_enough():
                self.save_last()

    def _waited_enough(self) -> bool:
        return self.config.patience is not None and self.progress.waited >= self.config.patience

    def _keep_best(self, found: dict[str, float], epoch: int) -> None:
        progress, value = self.progress, found[SELECTION]
        if math.isnan(value):
            logger.warning("%s is undefined in epoch %d", SELECTION, epoch)
            return
        if not math.isnan(progress.best_dice) and value <= progress.best_dice:
            progress.waited += 1
            return
        progress.best_dice, progress.best_epoch, progress.waited = value, epoch, 0
        if self.fabric.is_global_zero:
            save_best(self.run, self.network, epoch=epoch + 1, config=self.config)

    # ------------------------------------------------------------------ state

    def save_last(self) -> None:
        """Save all that a continued run needs."""
        self._share_loss()
        if self.fabric.is_global_zero:
            state = {
                "network": self.network.state_dict(),
                "initial_responsibilities": self.network.initial_responsibilities,
                "architecture": self.network.architecture.to_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),  # the scale of -amp 16
                "kept": self._kept(),
                "progress": asdict(self.progress),
            }
            self.run.save_checkpoint("last", state)
        self.fabric.barrier()

    def _kept(self) -> dict[str, Any]:
        """Return what must not change while a run goes on in the middle of an epoch."""
        return {
            "mode": self.config.mode,
            "b": self.config.b,
            "seed": self.config.seed,
            "images": len(self.arrays),
        }

    def restore(self) -> None:
        """Continue from ``last.pt``: afterwards every number is what the uninterrupted run would have had.

        Raises:
            TrainingError: It is of another network or method, or of other batches in the middle of an epoch.
        """
        state = self.run.load_checkpoint("last", map_location=self.fabric.device)
        wanted = self.network.architecture.to_dict()
        differing = [key for key in wanted if wanted[key] != state["architecture"].get(key)]
        if differing:
            told = ", ".join(
                f"{k}: {state['architecture'].get(k)} there, {wanted[k]} here" for k in differing
            )
            raise TrainingError(f"{self.run.path}: cannot resume a run of another network ({told})")
        progress = Progress(**state["progress"])
        started, now = state.get("kept", {}), self._kept()
        fixed = now if progress.batch else ("mode",)  # between epochs, the order of the images may change
        for key in fixed:
            if key in started and started[key] != now[key]:
                raise TrainingError(
                    f"{self.run.path}: cannot resume with -{key} {now[key]}, the run had {started[key]}; give the "
                    "flags that it was started with"
                )
        self.network.load_state_dict(state["network"])
        self.network.initial_responsibilities.copy_(state["initial_responsibilities"])
        if state.get("precision"):
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = progress
        if self.fabric.is_global_zero:
            self.run.truncate_metrics(self.progress.rows)
        logger.info("resumed at epoch %d, batch %d", self.progress.epoch, self.progress.batch)


def start_network(config: Config) -> AespaNetwork:
    """Return the network that a run begins with: random, from SAM's weights, or from a whole checkpoint.

    Args:
        config: Resolved configuration.

    Raises:
        CheckpointError: A weight file cannot be used.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network = build_network(Architecture.from_config(config), generator=generator)
    if config.pretrain is not None:
        given, _ = load_network(config.pretrain, image_size=config.image_size)
        check_fit(
            config.pretrain, given.state_dict(), network.state_dict(), mend="give the flags of that run"
        )
        _warn_of_other_meaning(config, given.architecture, network.architecture)
        network.load_state_dict(given.state_dict())
        network.initial_responsibilities.copy_(given.initial_responsibilities)
        return network
    if config.sam_ckpt is not None:
        for line in load_sam_weights(network, config.sam_ckpt, mode=config.sam_load or "full").lines():
            logger.info("%s", line)
    else:
        logger.warning("no -sam_ckpt: the network starts from random weights")
    return network


def _warn_of_other_meaning(config: Config, given: Architecture, wanted: Architecture) -> None:
    """Say which choices the weights were trained with that this run makes differently."""
    for key in ("block", "mixture", "latent", "variance", "upsample", "click_order", "responsibility"):
        theirs, ours = getattr(given, key), getattr(wanted, key)
        if theirs != ours:
            logger.warning(
                "-pretrain %s was trained with %s: %s, this run has %s", config.pretrain, key, theirs, ours
            )


def save_best(run: RunDirectory, network: AespaNetwork, *, epoch: int, config: Config) -> None:
    """Write the selected weights as ``checkpoints/best.pt`` and under the original's name.

    Args:
        run: Run directory.
        network: Its weights and architecture are written.
        epoch: The next epoch, counted from 1, as in the original's files.
        config: Resolved; written beside the weights.
    """
    path = save_network(
        run.checkpoint_path("best"), network, epoch=epoch, config=to_plain(config.model_dump())
    )
    link_best(path, run.path)
