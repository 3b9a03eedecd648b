"""Speed and memory of a training step against a straightforward one; one JSON line a workload.

The straightforward side does what is written down first: one-hot labels through 251 integer channels, plain dilated
convolutions, heads behind the last upsampling, and a FROC score in every step by distances to all remaining points.
Both sides run in this process, in turn, from the same weights on the same patches. Memory is the peak of a process of
its own for each side, above its peak when the model was built. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from til_mtl.config import Config
from til_mtl.feature_cache import FeatureCache
from til_mtl.losses import LOSS_WEIGHTS, cell_loss, tissue_loss, total_loss
from til_mtl.models.cropped_conv import CroppedConv2d
from til_mtl.models.deeplab import Features, Maps, MultiTaskDeepLabv3Plus, TilNetwork

TASKS = torch.tensor([0, 1, 0, 1, 0])  # 0 tissue, 1 cells: the original's batch of five
SIDES = (
    "plain",
    "ours",
    "ours, channels_last",
    "ours, cached features",
    "ours, cached features, channels_last",
)


def line(workload: str, **values: object) -> None:
    """Print one result."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"workload": workload, **rounded}), flush=True)


# ---------------------------------------------------------------- the straightforward side


class PlainNetwork(MultiTaskDeepLabv3Plus):
    """The network as written down first."""

    def decode(self, features: Features, size: tuple[int, int]) -> Maps:
        """Map features to logits, the heads last."""
        for module in self.modules():
            if isinstance(module, CroppedConv2d):
                module.cropped = False
        z = self._join(self.aspp(self.layer4(features.c3)), features.c2)
        z = functional.relu(self.decoder_bn1(self.decoder_conv1(z)))
        z = functional.relu(self.decoder_bn2(self.decoder_conv2(z)))
        z = functional.interpolate(z, size=size, mode="bilinear", align_corners=True)
        return Maps(self.final_conv_seg(z), self.final_conv_det(z))


def plain_one_hot(labels: Tensor, classes: int) -> Tensor:
    hot = torch.zeros(len(labels), 251, *labels.shape[1:], dtype=torch.int32)
    return (hot.scatter_(1, labels.unsqueeze(1), 1) + 1e-6)[:, :classes]


def plain_points(probability: np.ndarray, threshold: float = 0.1, distance: float = 18) -> np.ndarray:
    rows, columns = np.indices(probability.shape)
    points = np.stack([columns.ravel(), rows.ravel(), probability.ravel()], axis=1)
    points = points[np.argsort(-points[:, 2], kind="stable")]
    remaining = points[points[:, 2] >= threshold]
    kept = []
    while len(remaining):
        kept.append(remaining[0])
        away = np.hypot(*(remaining[:, :2] - remaining[0, :2]).T) > distance
        remaining = remaining[away]
    return np.array(kept).reshape(-1, 3)


def plain_froc(logits: Tensor, hot: Tensor) -> float:
    probability = logits.detach().softmax(1)[:, 1].numpy()
    found, truth = [plain_points(p) for p in probability], [plain_points(y) for y in hot[:, 1].numpy()]
    sensitivity, false_positives = [], []
    for threshold in np.linspace(0, 1, 40):
        tp = fp = fn = 0
        for pred, gt in zip(found, truth, strict=True):
            pred = pred[pred[:, 2] >= threshold]
            near = np.hypot(*(pred[:, None, :2] - gt[None, :, :2]).transpose(2, 0, 1)) <= 8
            tp, fn = tp + int(near.any(0).sum()), fn + int((~near.any(0)).sum())
            fp += int((~near.any(1)).sum())
        sensitivity.append(tp / max(tp + fn, 1))
        false_positives.append(fp / len(found))
    return float(np.mean(np.interp((10, 20, 50, 100, 200, 300), false_positives[::-1], sensitivity[::-1])))


def plain_loss(maps: Maps, labels: Tensor) -> Tensor:
    assert maps.seg is not None
    assert maps.det is not None
    hot_seg, hot_det = plain_one_hot(labels.clamp(max=250), 3), plain_one_hot(labels.clamp(max=1), 2)
    tissue, cells = TASKS[: len(labels)] == 0, TASKS[: len(labels)] == 1
    p, y = maps.seg[tissue].softmax(1), hot_seg[tissue]
    dice = 2 * (p * y).sum((1, 2, 3)) / ((p + y).sum((2, 3)) + 1e-8).sum(1)
    bce = functional.binary_cross_entropy_with_logits(maps.seg[tissue], y)
    bce_cells = functional.binary_cross_entropy_with_logits(maps.det[cells], hot_det[cells])
    plain_froc(maps.det[cells], hot_det[cells])
    return LOSS_WEIGHTS[0] * ((1 - dice).mean() + 0.01 * bce) + LOSS_WEIGHTS[1] * bce_cells


# ---------------------------------------------------------------- ours


def our_loss(maps: Maps, labels: Tensor) -> Tensor:
    assert maps.seg is not None
    assert maps.det is not None
    tissue, cells = TASKS[: len(labels)] == 0, TASKS[: len(labels)] == 1
    return total_loss(
        tissue_loss(maps.seg[tissue], labels[tissue]), cell_loss(maps.det[cells], labels[cells])
    )


class Step:
    """One side's network, optimiser and batch; call it for a training step.

    Args:
        side: One of SIDES.
        size: Pixels a side of the patches.
        batch: Patches.
    """

    def __init__(self, side: str, size: int, batch: int) -> None:
        torch.manual_seed(0)
        kind = PlainNetwork if side == "plain" else MultiTaskDeepLabv3Plus
        self.network: TilNetwork = kind().train()
        self.side, self.loss = side, plain_loss if side == "plain" else our_loss
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(parameters, lr=0.001, weight_decay=0.001, fused=side != "plain")
        rng = np.random.default_rng(1)
        self.pixels = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        self.labels = torch.from_numpy(_labels(rng, size, batch))
        self.images = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).contiguous() / 255
        self.cache: FeatureCache | None = None
        if "channels_last" in side:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        if "cached" in side:
            self.cache = FeatureCache(self.network, _Patches(self.pixels), Config(cache_features=True))

    def __call__(self) -> float:
        """Train one step and return its loss."""
        size = (self.images.shape[-2], self.images.shape[-1])
        if self.cache is None:
            maps = self.network.maps(self.images)
        else:
            features = self.cache.get(np.arange(len(self.images)))
            if "channels_last" in self.side:
                features = features.channels_last()
            maps = self.network.decode(features, size)
        loss = self.loss(maps, self.labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


class _Patches:
    """Patches in memory, as a store of the package gives them."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: np.ndarray, /) -> np.ndarray:
        return self.pixels[indices]


def _labels(rng: np.random.Generator, size: int, batch: int) -> np.ndarray:
    """Tissue in three bands; cells as discs of 8 px radius."""
    labels = np.zeros((batch, size, size), dtype=np.int64)
    rows, columns = np.indices((size, size))
    for index in range(batch):
        if TASKS[index] == 0:
            labels[index] = (columns * 3 // size + index) % 3
            continue
        for y, x in rng.integers(0, size, (12, 2)):
            labels[index][(rows - y) ** 2 + (columns - x) ** 2 <= 64] = 1
    return labels


# ---------------------------------------------------------------- workloads


def step_times(size: int, batch: int, repeats: int) -> None:
    """Time the sides in turn; the first round warms up and gives the losses to compare."""
    steps = {side: Step(side, size, batch) for side in SIDES}
    weights = copy.deepcopy(steps["plain"].network.state_dict())
    for step in steps.values():
        step.network.load_state_dict(weights)
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for round_ in range(repeats + 1):
        for side, step in steps.items():
            started = time.perf_counter()
            losses[side].append(step())
            if round_:
                seconds[side].append(time.perf_counter() - started)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    froc = _froc_seconds(steps["plain"])
    for side in SIDES[1:]:
        line(
            "training step",
            side=side,
            batch=batch,
            size=size,
            threads=torch.get_num_threads(),
            plain_s=medians["plain"],
            ours_s=medians[side],
            ratio=medians["plain"] / medians[side],
            ratio_without_froc=(medians["plain"] - froc) / medians[side],
            loss_difference=abs(losses["plain"][0] - losses[side][0]),
        )


def _froc_seconds(step: Step) -> float:
    """Time the straightforward side's FROC alone, on the maps that the network gives now."""
    with torch.no_grad():
        maps = step.network.maps(step.images)
    assert maps.det is not None
    cells = TASKS[: len(step.images)] == 1
    hot = plain_one_hot(step.labels.clamp(max=1), 2)[cells]
    started = time.perf_counter()
    plain_froc(maps.det[cells], hot)
    return time.perf_counter() - started


def peak_above_model(side: str, size: int, batch: int) -> None:
    """Print this process's peak memory above the built model, in MB, over two steps."""
    step = Step(side, size, batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def memory(size: int, batch: int) -> None:
    """Measure every side in a process of its own."""
    peaks: dict[str, float] = {}
    for side in SIDES:
        options = ["--memory", side, "--size", str(size), "--batch", str(batch)]
        options += ["--threads", str(torch.get_num_threads())]
        done = subprocess.run(
            [sys.executable, __file__, *options], check=True, capture_output=True, text=True
        )
        peaks[side] = float(done.stdout)
    for side in SIDES[1:]:
        values = {"plain_mb": peaks["plain"], "ours_mb": peaks[side], "share": peaks[side] / peaks["plain"]}
        line("peak memory above the model", side=side, batch=batch, size=size, **values)


def gpu(repeats: int, batch: int = 64, size: int = 256) -> None:
    """Training in bf16 and channels_last, with the share of what a large matrix product reaches on this card."""
    from torch.utils.flop_counter import FlopCounterMode

    network = MultiTaskDeepLabv3Plus().train().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.001, fused=True)
    images = torch.rand(batch, 3, size, size, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (batch, size, size), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            seg, det = network(images)
        loss = total_loss(tissue_loss(seg[::2], labels[::2]), cell_loss(det[1::2], labels[1::2]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counter:
        step()
    matrix = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
    peak = 2 * 8192**3 / _cuda_seconds(lambda: matrix @ matrix, repeats)
    seconds = _cuda_seconds(step, repeats)
    line(
        "training on GPU, bf16, channels_last",
        device=torch.cuda.get_device_name(),
        images_per_s=batch / seconds,
        tflops=counter.get_total_flops() / seconds / 1e12,
        share_of_matrix_peak=counter.get_total_flops() / seconds / peak,
    )


def _cuda_seconds(run: Callable[[], object], repeats: int) -> float:
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--memory", metavar="SIDE", choices=SIDES, help="only print the peak of one side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        peak_above_model(options.memory, options.size, options.batch)
        return
    # Memory first: a child's peak begins at what its parent held when it was started.
    memory(options.size, options.batch)
    step_times(options.size, options.batch, 1 if options.quick else 5)
    if torch.cuda.is_available():
        gpu(10 if options.quick else 50)


if __name__ == "__main__":
    main()
