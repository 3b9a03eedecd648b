"""Speed and memory of training AESPA on a batch; one JSON line a workload.

The plain side is written out here: the original's order with padded windows, the latent vector tiled over the map, all
pixels enlarged before every loss, responsibilities image by image and component by component, the evaluation of the
mixture whose result is thrown away, and Adam tensor by tensor. It starts from the same weights, meets the same clicks,
and has the same losses. ``update: per_batch`` passes the encoder once a batch and takes one step, so its losses differ.

All sides run in this process, in turn; the peak memory of each is that of a process of its own. ``--quick`` for a fast
look.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from encoder import plain_encode
from torch import Tensor
from torch.nn import functional

from aespa.config import Config
from aespa.data.arrays import Batch
from aespa.draws import ItemDraws
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.em import TINY, Mixture
from aespa.models.network import AespaNetwork
from aespa.original.aespa_rounds import Click
from aespa.original.phases import Phases
from aespa.original.rounds import alternating_step, follow_click
from aespa.training_rounds import follow_losses

WANTED = {"alternating": 1.4, "per_batch": 4.0}
Step = Callable[[], list[float]]


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def draw_batch(config: Config, n: int, raters: int = 3) -> Batch:
    """Draw images with a disc that every rater sees larger than the one before."""
    generator, side = torch.Generator().manual_seed(0), config.image_size
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre = side * (0.35 + 0.3 * torch.rand(n, 2, generator=generator))
    far = (x - centre[:, :1, None]).square() + (y - centre[:, 1:, None]).square()
    masks = torch.stack([far < (side * (0.12 + 0.05 * r)) ** 2 for r in range(raters)], dim=1).float()
    noise = 0.05 * torch.randn(n, 3, side, side, generator=generator)
    images = (0.25 + 0.4 * masks.mean(dim=1, keepdim=True) + noise).clamp(0, 1)
    return Batch(images, masks, torch.ones(n, raters, dtype=torch.bool), torch.arange(n))


class Plain:
    """The faithful order, step by step as the original takes it."""

    def __init__(self, network: AespaNetwork, batch: Batch, config: Config) -> None:
        self.network, self.batch, self.config = network, batch, config
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, foreach=False)

    def mixture(self, sparse: Tensor, responsibilities: Tensor) -> Mixture:
        """Return one mixture for the batch."""
        network = self.network
        means, variances = network.EM_mean_variance(sparse, network.prompt_encoder.dense_positions())
        with torch.no_grad():
            weights = network.EM_weights(responsibilities).mean(dim=0)
        return Mixture(weights / weights.sum(), means.mean(dim=0), variances.mean(dim=0))

    def responsibilities(self, maps: Tensor, mixture: Mixture) -> Tensor:
        """Return ``[B,K]`` of maps ``[B,S,S]``, one image and one component after the other."""
        every = []
        for one in maps:
            x, columns = one.flatten(), []
            for w, m, v in zip(*mixture, strict=True):
                density = (-0.5 * (x - m).square() / v - 0.5 * (2 * math.pi * v).log()).exp()
                columns.append(w * density)
            table = torch.stack(columns, dim=1)
            total = table.sum(dim=1, keepdim=True)
            every.append((table / torch.where(total == 0, TINY, total)).mean(dim=0))
        return torch.stack(every)

    def masks(self, sparse: Tensor, dense: Tensor, mixture: Mixture) -> Tensor:
        """Return logits ``[B,1,4g,4g]``."""
        network = self.network
        neck = plain_encode(network.image_encoder, self.batch.images)
        deviation = (mixture.weights * mixture.variances.sqrt()).sum()
        z = (mixture.weights * mixture.means).sum() + deviation * 0 * torch.randn(len(neck), 64)
        tiled = z[:, :, None, None].expand(-1, -1, *neck.shape[-2:])
        fused = network.image_encoder.fcomb.layers(torch.cat([neck, tiled], dim=1))
        return network.mask_decoder(fused, network.prompt_encoder.dense_positions(), sparse, dense)[0]

    def update(self, loss: Tensor, losses: list[float]) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        losses.append(loss.item())

    def rounds(self, target: Tensor, click: Click) -> list[float]:
        """Train on the batch."""
        network, side, losses = self.network, self.config.image_size, []
        learning = Phases(network, self.optimizer).learning
        n = len(self.batch)
        coords, labels = torch.zeros(n, 0, 2), torch.zeros(n, 0)
        previous, followed = None, torch.full((n,), -1)
        responsibilities = network.initial_responsibilities.expand(n, -1)
        for _ in range(self.config.runs):
            with learning(network.image_encoder, network.mask_decoder):
                prompts = network.prompts(coords, labels, previous)
                mixture = self.mixture(prompts.sparse, responsibilities)
                low = self.masks(prompts.sparse, prompts.dense, mixture)
                logits = functional.interpolate(low, size=(side, side))
                weight = torch.tensor(self.config.pos_weight)
                wanted = target[:, None]
                loss = functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
                self.update(loss, losses)
            previous, probabilities = low.detach(), logits.detach().sigmoid()[:, 0]
            clicks = click(probabilities, followed)
            responsibilities = self.responsibilities(probabilities, mixture)
            coords = torch.cat([coords, clicks.coords[:, None]], dim=1)
            labels = torch.cat([labels, clicks.labels[:, None]], dim=1)
            target, followed = clicks.target, clicks.rater
            with learning(network.prompt_encoder, network.EM_mean_variance):
                prompts = network.prompts(coords, labels, previous)
                self.mixture(prompts.sparse, responsibilities)
            with learning(network.prompt_encoder, network.EM_weights):
                prompts = network.prompts(coords, labels, previous)
                mixture = self.mixture(prompts.sparse, responsibilities)
                found = self.responsibilities(probabilities, mixture)
                loss = functional.mse_loss(network.EM_weights(found), self.responsibilities(target, mixture))
                self.update(loss, losses)
        return losses


def settings(image_size: int, runs: int) -> Config:
    """Return the faithful configuration."""
    return Config(faithful=True, image_size=image_size, runs=runs, seed=0).resolved()


def draws(batch: Batch) -> ItemDraws:
    """Return the same chance every time."""
    return ItemDraws([11 + int(i) for i in batch.index])


def make(side: str, image_size: int, n: int, runs: int) -> Step:
    """Return one side's training on a batch, which goes on from where it was when it is called again."""
    config = settings(image_size, runs)
    batch, network = draw_batch(config, n), build_network(Architecture.from_config(config))
    if side == "plain":
        plain = Plain(network, batch, config)
        target = batch.raters.mean(dim=1)
        return lambda: plain.rounds(
            target, follow_click(batch, draws(batch), config, switch=config.switch_rater)
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    if side == "alternating":
        return lambda: [
            alternating_step(network, optimizer, batch, draws=draws(batch), config=config)["loss"]
        ]
    return lambda: per_batch(network, optimizer, batch, config)


def per_batch(
    network: AespaNetwork, optimizer: torch.optim.Adam, batch: Batch, config: Config
) -> list[float]:
    """Train on a batch with one pass of the encoder and one step."""
    features = network.encode(batch.images)
    leaf = features.detach().requires_grad_()
    losses = []
    for loss in follow_losses(network, lambda: leaf, batch.raters, batch.valid, draws(batch), config):
        loss.total.backward()
        losses.append(loss.total.item())
    features.backward(leaf.grad)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses


def peak_of_this_process_mb() -> float:
    """Return the largest resident size; `getrusage` would count what the parent had when this process was made."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def peak_memory_mb(side: str, arguments: list[str]) -> float:
    """Return the largest resident size of a process that trains one side on one batch."""
    command = [sys.executable, __file__, "--side", side, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def bench(image_size: int, n: int, runs: int, repeats: int, threads: int) -> None:
    """Time all sides and compare losses and memory."""
    torch.set_num_threads(threads)
    steps = {side: make(side, image_size, n, runs) for side in ("plain", "alternating", "per_batch")}
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    losses: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(repeats):
        for side, step in steps.items():
            started = time.process_time()
            losses[side].append(sum(step()))
            seconds[side].append(time.process_time() - started)
    difference = max(abs(a - b) for a, b in zip(losses["plain"], losses["alternating"], strict=True))
    assert difference < 1e-3, (losses["plain"], losses["alternating"])
    del steps
    options = ["--image-size", image_size, "--batch", n, "--runs", runs, "--threads", threads]
    memory = {side: peak_memory_mb(side, [str(each) for each in options]) for side in seconds}
    plain = min(seconds["plain"])
    for side in ("alternating", "per_batch"):
        line(
            f"AESPA, {image_size} px, batch {n}, {runs} rounds, update {side}",
            cpu_seconds=min(seconds[side]),
            plain_cpu_seconds=plain,
            speedup=plain / min(seconds[side]),
            wanted=WANTED[side],
            peak_mb=memory[side],
            plain_peak_mb=memory["plain"],
            loss=losses[side][0],
            plain_loss=losses["plain"][0],
            threads=threads,
        )


def main() -> None:
    """Run all workloads, or one side for its memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two rounds, one repeat")
    parser.add_argument("--side", choices=("plain", "alternating", "per_batch"), help="print its peak memory")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    size, n, runs = arguments.image_size, arguments.batch, arguments.runs
    if arguments.side:
        torch.set_num_threads(arguments.threads)
        make(arguments.side, size, n, runs)()
        print(peak_of_this_process_mb())
        return
    bench(size, n, 2 if arguments.quick else runs, 1 if arguments.quick else 2, arguments.threads)


if __name__ == "__main__":
    main()
