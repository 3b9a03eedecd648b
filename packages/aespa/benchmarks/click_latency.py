"""Time of one click against the time of embedding the image; one JSON line a workload.

A click is everything until its mask is there at the image's own resolution: the prompts, the mixture, the decoder, the
resizing and the entropy. The network has random weights, which takes as long as any others. One thread, processor
seconds, the median of several rounds. ``--quick`` uses the tiny network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from aespa.config import Mode
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.network import AespaNetwork
from aespa.predictor import AespaPredictor


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def seconds(run: Callable[[], object]) -> float:
    """Return the processor seconds of one call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def bench(
    network: AespaNetwork, mode: Mode, n_samples: int, side: int, repeats: int, wanted: float | None
) -> None:
    """Time images and six clicks on each."""
    rng = np.random.default_rng(0)
    predictor = AespaPredictor(network, mode=mode, n_samples=n_samples)
    images, clicks, proposals = [], [], []
    for _ in range(repeats):
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        images.append(seconds(lambda image=image: predictor.set_image(image)))
        predictor.predict()
        for x, y, label in rng.integers(0, (side, side, 2), (6, 3)).tolist():

            def click(x: int = x, y: int = y, label: int = label) -> None:
                predictor.click(x, y, label)
                predictor.predict()

            clicks.append(seconds(click))
        proposals.append(seconds(lambda: predictor.proposals(4)))
    image_seconds, click_seconds = statistics.median(images), statistics.median(clicks)
    line(
        f"a click, {mode}",
        encoder=network.architecture.encoder,
        image_size=network.architecture.image_size,
        own_size=side,
        samples=1 if mode == "AESPA" else n_samples,
        set_image_seconds=image_seconds,
        click_seconds=click_seconds,
        proposals_seconds=statistics.median(proposals),
        share=click_seconds / image_seconds,
        wanted_at_most=wanted,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    if quick:
        network = build_network(Architecture(encoder="tiny", image_size=64))
        bench(network, "AESPA", 6, 64, 2, None)
        return
    for image_size in (128, 256):
        network = build_network(Architecture(encoder="vit_b", image_size=image_size))
        bench(network, "AESPA", 48, 180, 5, 0.1)
        bench(network, "AESPA", 48, 1024, 3, None)
        bench(network, "SPA", 48, 180, 3, None)


if __name__ == "__main__":
    main()
