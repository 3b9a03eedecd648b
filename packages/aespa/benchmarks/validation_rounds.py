"""Speed of validating an image over six rounds; one JSON line a workload.

The plain side encodes the image anew in every round, as the original does, with the same encoder; both sides run in
this process, in turn, with the same weights and clicks, and give the same logits. The last line says what a click
costs once the image is encoded, as in the page. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from encoder import plain_encode
from torch import Tensor

from aespa.clicks import Clicks
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.network import AespaNetwork
from aespa.original.validation import aespa_chain
from aespa.rounds import answer, learn, no_knowledge

ROUNDS = 6
WANTED, WANTED_SHARE = 4.0, 0.1


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def fastest(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run the sides in turn and return the processor seconds of each one's fastest round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: min(values) for name, values in seconds.items()}


class Script:
    """Clicks that are the same for every side."""

    def __init__(self, batch: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.coords = torch.randint(0, size, (ROUNDS, batch, 2), generator=generator).float()
        self.labels = torch.randint(0, 2, (ROUNDS, batch), generator=generator)
        self.round = 0

    def __call__(self, probabilities: Tensor, followed: Tensor) -> Clicks:
        """Return the next click."""
        index, self.round = self.round, self.round + 1
        return Clicks(self.coords[index], self.labels[index], probabilities, followed)


@torch.no_grad()
def cached(network: AespaNetwork, images: Tensor) -> Tensor:
    """Encode once."""
    click = Script(len(images), images.shape[-1])
    return torch.stack([s.answer.mean for s in aespa_chain(network, network.encode(images), click, ROUNDS)])


@torch.no_grad()
def encoded_anew(network: AespaNetwork, images: Tensor, *, padded: bool) -> Tensor:
    """Encode in every round."""
    click, knowledge, logits = Script(len(images), images.shape[-1]), no_knowledge(network, len(images)), []
    for _ in range(ROUNDS):
        neck = plain_encode(network.image_encoder, images) if padded else network.encode(images)
        said = answer(network, neck, knowledge)
        logits.append(said.mean)
        clicks = click(torch.sigmoid(network.upsample(said.mean))[:, 0], torch.zeros(len(images)))
        found = network.responsibilities(torch.sigmoid(said.mean).flatten(1), said.mixture)
        knowledge = learn(knowledge, said, found).clicked(clicks.coords, clicks.labels)
    return torch.stack(logits)


@torch.no_grad()
def bench(image_size: int, repeats: int) -> None:
    """Time one image."""
    network = build_network(Architecture.original(image_size)).eval()
    images = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    ours = cached(network, images)
    difference = (ours - encoded_anew(network, images, padded=False)).abs().max().item()
    assert difference < 1e-5, difference
    padded = (ours - encoded_anew(network, images, padded=True)).abs().max().item()
    neck, knowledge = network.encode(images), no_knowledge(network, 1)
    for index in range(3):
        said = answer(network, neck, knowledge)
        found = network.responsibilities(torch.sigmoid(said.mean).flatten(1), said.mixture)
        knowledge = learn(knowledge, said, found).clicked(torch.full((1, 2), 9.0 + index), torch.ones(1))
    seconds = fastest(
        {
            "ours": lambda: cached(network, images),
            "anew": lambda: encoded_anew(network, images, padded=False),
            "padded": lambda: encoded_anew(network, images, padded=True),
            "encode": lambda: network.encode(images),
            "click": lambda: answer(network, neck, knowledge),
        },
        repeats,
    )
    line(
        f"AESPA validation of one image, {image_size} px, {ROUNDS} rounds",
        cpu_seconds=seconds["ours"],
        plain_cpu_seconds=seconds["anew"],
        speedup=seconds["anew"] / seconds["ours"],
        wanted=WANTED,
        largest_difference=difference,
        padded_cpu_seconds=seconds["padded"],
        padded_speedup=seconds["padded"] / seconds["ours"],
        padded_largest_difference=padded,
        threads=torch.get_num_threads(),
    )
    line(
        f"a click, {image_size} px",
        cpu_seconds=seconds["click"],
        encode_cpu_seconds=seconds["encode"],
        share=seconds["click"] / seconds["encode"],
        wanted_share=WANTED_SHARE,
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one image size, few repeats")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for image_size in (128,) if arguments.quick else (128, 256):
        bench(image_size, 2 if arguments.quick else 7)


if __name__ == "__main__":
    main()
