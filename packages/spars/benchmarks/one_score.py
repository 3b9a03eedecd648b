"""One score of the original's classifier: the stretched crop against the exact fast network.

One JSON line a window size. Both sides run in this process, alternating, on the same crops: the plain side stretches the
crop by repeating voxels and runs the network in evaluation mode without gradients; the same with the network in
channels-last memory, which torch computes faster on a CPU, is given beside it; the fast side is
``spars.models.fast_net.FastNet``. ``--quick`` measures one size once; ``--device cuda`` measures on a GPU, in batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from medshared.gpu import peak_memory_bytes
from spars.models.fast_net import FastNet
from spars.models.net import Net

WINDOWS = ((8, 8, 8), (16, 16, 8), (32, 32, 16), (48, 48, 24), (64, 64, 32))  # of the original's scripts
MULTIPLY_ADDS = 3119e6  # of one plain forward


def network(seed: int = 0) -> Net:
    """Return a classifier whose norms have been moved as training moves them, so that folding them does something."""
    torch.manual_seed(seed)
    net = Net().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
                module.weight.normal_()
    return net


def fastest(sides: dict[str, Callable[[], Tensor]], repeats: int, device: str) -> dict[str, float]:
    """Run the sides in turn and return the seconds of each one's fastest round: of the processor, or of the GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            started = clock()
            side().cpu()
            seconds[name].append(clock() - started)
    return {name: min(values) for name, values in seconds.items()}


@torch.no_grad()
def measure(net: Net, window: tuple[int, int, int], repeats: int, device: str, batch: int) -> None:
    fast = FastNet(net, window).to(device)
    crops = (torch.randn(batch, *window) * 300 - 200).round().to(device)

    def plain() -> Tensor:
        return net(functional.interpolate(crops[:, None], size=net.in_shape, mode="nearest"))

    last = copy.deepcopy(net).to(memory_format=torch.channels_last_3d)

    def channels_last() -> Tensor:
        x = functional.interpolate(crops[:, None], size=net.in_shape, mode="nearest")
        return last(x.contiguous(memory_format=torch.channels_last_3d))

    sides: dict[str, Callable[[], Tensor]] = {
        "plain": plain,
        "channels_last": channels_last,
        "fast": lambda: fast(crops),
    }
    logits = {name: side().cpu() for name, side in sides.items()}  # also warms both up
    seconds = fastest(sides, repeats, device)
    scores = {name: value.softmax(1)[:, 1] for name, value in logits.items()}
    line = {
        "workload": "one_score",
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "window": "×".join(map(str, window)),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "plain_s": round(seconds["plain"] / batch, 5),
        "fast_s": round(seconds["fast"] / batch, 5),
        "ratio": round(seconds["plain"] / seconds["fast"], 2),
        "channels_last_s": round(seconds["channels_last"] / batch, 5),
        "ratio_to_channels_last": round(seconds["channels_last"] / seconds["fast"], 2),
        "plain_tflops": round(2 * MULTIPLY_ADDS * batch / seconds["plain"] / 1e12, 4),
        "largest_logit_difference": float((logits["plain"] - logits["fast"]).abs().max()),
        "largest_score_difference": float((scores["plain"] - scores["fast"]).abs().max()),
        "peak_mb": round(peak_memory_bytes(device) / 1e6),
    }
    print(json.dumps(line, ensure_ascii=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="48×48×24 only, one repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net = network().to(options.device)
    for window in WINDOWS[3:4] if options.quick else WINDOWS:
        measure(net, window, 1 if options.quick else options.repeats, options.device, options.batch)


if __name__ == "__main__":
    main()
