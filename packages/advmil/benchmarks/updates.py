"""Time and memory of one group update and of sampling, against the original's order; one JSON line a workload.

The plain side is written out here: every pair embeds its bag anew, G keeps a graph in D's step, all bags' graphs live
until one backward pass, and regions are convolved as images. Both sides run in this process, alternating, on the same
bags; without dropout they end at the same weights, which is checked first. Seconds are of the processor; memory is the
peak of torch's allocations above what was there before. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from advmil import losses
from advmil.config import Config
from advmil.groups import GroupLabels
from advmil.models.abmil import ABMIL
from advmil.models.build import build_discriminator, build_generator
from advmil.models.discriminator import Discriminator
from advmil.models.esat import ESAT
from advmil.models.generator import Generator
from advmil.models.layers import GAPool, RegionEmbedding
from advmil.noise import torch_noise
from advmil.optimisers import build_optimizer
from advmil.updates import AdversarialSettings, AdversarialUpdate


class Bag(NamedTuple):
    """A bag without anything beside its features."""

    x: Tensor
    extra: Tensor | None = None


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def processor_seconds(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run the sides in turn and return each one's median processor seconds; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, run in sides.items():
            started = time.process_time()
            run()
            if round_:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_megabytes(run: Callable[[], object]) -> float:
    """Return the highest sum of torch's CPU allocations during a call, above the start."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


# --- the original's order


class PlainEmbedding(RegionEmbedding):
    """Regions as images through a convolution, as in the original."""

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:  # noqa: D102
        n_bags, n, width = x.shape
        squares = x.reshape(-1, 4, 4, width).permute(0, 3, 1, 2)
        rows = self.conv(squares).flatten(2).transpose(1, 2).reshape(n_bags, n, -1)
        return torch.relu(self.norm(rows)).view(n_bags, n // 16, 16, -1).mean(2)


def plain_gate(x: Tensor, a: nn.Sequential, b: nn.Sequential) -> Tensor:
    """Both gates with a mask each."""
    return a(x) * b(x)


class PlainGAPool(GAPool):
    """Pooling with a mask for each gate."""

    def weights(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.softmax(self.fc2(plain_gate(x, self.fc1, self.score)), dim=1)


class PlainESAT(ESAT):
    """The library's transformer encoder."""

    def __init__(self, dims: tuple[int, ...], dropout: float) -> None:
        super().__init__(dims, dropout)
        self.patch_embedding_layer = PlainEmbedding(dims[0], dims[1])
        self.pool = PlainGAPool(dims[1], dims[1], dropout)
        layer = nn.TransformerEncoderLayer(dims[1], 8, dims[1], dropout, batch_first=True)
        self.patch_encoder_layer = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor, extra: Tensor | None = None, known: Tensor | None = None) -> Tensor:  # noqa: D102
        return self.pool(self.patch_encoder_layer(self.patch_embedding_layer(x)))


class PlainABMIL(ABMIL):
    """Step by step."""

    def forward(self, x: Tensor, extra: Tensor | None = None, known: Tensor | None = None) -> Tensor:  # noqa: D102
        hidden = self.attention_net[:3](x)
        scorer = self.attention_net[3]
        scores = scorer.attention_c(plain_gate(hidden, scorer.attention_a, scorer.attention_b))
        weights = torch.softmax(scores.transpose(1, 2), dim=2)
        return self.rho(torch.bmm(weights, hidden).squeeze(1))


PLAIN = {"patch": PlainESAT, "abmil": PlainABMIL}


def plain_networks(config: Config, g: Generator, d: Discriminator) -> tuple[Generator, Discriminator]:
    """Return networks of the plain side with the same weights."""
    plain_g, plain_d = build_generator(config), build_discriminator(config)
    plain_g.backbone = PLAIN[config.bcb_mode](config.bcb_widths, config.bcb_dropout)
    width = config.disc_netx_out_dim
    plain_d.net_pair_one.embedding = PlainEmbedding(config.disc_netx_in_dim, width)
    plain_d.net_pair_one.pool = PlainGAPool(width, width, config.disc_netx_dropout)
    plain_g.load_state_dict(g.state_dict())
    plain_d.load_state_dict(d.state_dict())
    return plain_g, plain_d


def plain_update(g, d, opt_g, opt_d, bags, labels, settings, noise) -> None:
    """One group in the original's order."""
    t, e = labels
    g.eval()
    d.train()
    reals, fakes = [], []
    for i, bag in enumerate(bags):
        if e[i] == 1:
            reals.append(d(bag.x, t[i].view(1, 1)))
        fakes.append(d(bag.x, g(bag.x, noise=noise).detach()))
    opt_d.zero_grad()
    losses.discriminator_loss(torch.cat(reals), torch.cat(fakes), settings.loss_d).backward()
    opt_d.step()
    g.train()
    d.eval()
    predictions, scores = [], []
    for bag in bags:
        predictions.append(g(bag.x, noise=noise))
        scores.append(d(bag.x, predictions[-1]))
    total = losses.recon_loss(torch.cat(predictions), t, e)
    total = total + settings.gan_coef * losses.generator_loss(torch.cat(scores))
    total = total + losses.l1_penalty(g.parameters(), settings.l1_coef)
    opt_g.zero_grad()
    total.backward()
    opt_g.step()


# --- workloads


def make_sides(
    config: Config, bags: list[Bag], labels: GroupLabels, optimiser: str = "adam", lr: float = 8e-5
) -> tuple[dict[str, Callable[[], object]], Callable[[], float]]:
    """Return both sides' group update, and the largest difference of their weights."""
    torch.manual_seed(0)
    g, d = build_generator(config), build_discriminator(config)
    plain_g, plain_d = plain_networks(config, g, d)
    settings = AdversarialSettings.from_config(config)

    def optimisers(g: Generator, d: Discriminator):
        return (
            build_optimizer(optimiser, g, lr, config.opt_netG_weight_decay),
            build_optimizer(optimiser, d, lr),
        )

    update = AdversarialUpdate(g, d, *optimisers(g, d), settings)
    plain_optimisers = optimisers(plain_g, plain_d)
    noises = [torch_noise("uniform", torch.Generator().manual_seed(5)) for _ in range(2)]

    def difference() -> float:
        pairs = [*zip(g.parameters(), plain_g.parameters(), strict=True)]
        pairs += zip(d.parameters(), plain_d.parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    return {
        "plain": lambda: plain_update(plain_g, plain_d, *plain_optimisers, bags, labels, settings, noises[0]),
        "ours": lambda: update.step(bags, labels, None, noises[1]),
    }, difference


def check_equal(mode: str, bags: list[Bag], labels: GroupLabels) -> float:
    """Run one group on both sides in float64 without dropout and return the largest difference of a weight.

    The steps are plain gradient steps of length one: Adam's would hide a gradient of another size.
    """
    config = Config(bcb_mode=mode, bcb_dropout=0.0, gen_dropout=0.0, disc_netx_dropout=0.0)
    torch.set_default_dtype(torch.float64)
    try:
        some = [Bag(bag.x[:, :64].double()) for bag in bags[:4]]
        labels = GroupLabels(labels.t[:4].double(), labels.e[:4])
        sides, difference = make_sides(config, some, labels, "momentum", 1.0)
        for run in sides.values():
            run()
        return difference()
    finally:
        torch.set_default_dtype(torch.float32)


def bench_update(mode: str, bags: list[Bag], labels: GroupLabels, repeats: int) -> None:
    """One group update with the paper's dropout rates."""
    apart = check_equal(mode, bags, labels)
    assert apart < 1e-10, f"the two sides differ by {apart}"
    sides, _ = make_sides(Config(bcb_mode=mode), bags, labels)
    seconds = processor_seconds(sides, repeats)
    peaks = {name: peak_megabytes(run) for name, run in sides.items()}
    line(
        f"group_update_{mode}_{len(bags)}x{bags[0].x.shape[1]}x{bags[0].x.shape[2]}",
        ratio=seconds["plain"] / seconds["ours"],
        **{f"{name}_s": value for name, value in seconds.items()},
        memory_ratio=peaks["ours"] / peaks["plain"],
        **{f"{name}_peak_mb": value for name, value in peaks.items()},
        largest_difference=f"{apart:.1e}",
    )


def bench_sampling(mode: str, bag: Bag, draws: int, repeats: int) -> None:
    """Draw predictions of one bag: a backbone pass a draw, and one pass with a batched head."""
    torch.manual_seed(0)
    g = build_generator(Config(bcb_mode=mode)).eval()

    def seeded():
        return torch_noise("uniform", torch.Generator().manual_seed(5))

    @torch.no_grad()
    def plain() -> Tensor:
        noise = seeded()
        return torch.stack([g(bag.x, noise=noise) for _ in range(draws)], dim=1)

    @torch.no_grad()
    def ours() -> Tensor:
        return g.sample(g.embed(bag.x), draws, seeded())

    apart = float((plain() - ours()).abs().max())
    assert apart < 1e-6, f"the draws differ by {apart}"
    seconds = processor_seconds({"plain": plain, "ours": ours}, repeats)
    line(
        f"sampling_{mode}_{draws}_draws",
        ratio=seconds["plain"] / seconds["ours"],
        **{f"{name}_s": value for name, value in seconds.items()},
        largest_difference=f"{apart:.1e}",
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n_bags, n_patches, repeats = (4, 640, 2) if args.quick else (16, 1600, 5)
    generator = torch.Generator().manual_seed(0)
    bags = [Bag(torch.randn(1, n_patches, 1024, generator=generator)) for _ in range(n_bags)]
    t = torch.rand(n_bags, generator=generator)
    labels = GroupLabels(t, (torch.arange(n_bags) % 2 == 0).long())
    line("machine", threads=torch.get_num_threads(), torch=torch.__version__, quick=args.quick)
    for mode in PLAIN:
        bench_update(mode, bags, labels, repeats)
        bench_sampling(mode, bags[0], 30, repeats)


if __name__ == "__main__":
    main()
