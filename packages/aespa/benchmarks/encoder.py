"""Speed of the image encoder; one JSON line a workload.

The plain side is written out here: it pads every windowed map to whole windows of 14 x 14, computes queries, keys and
values of the padded tokens too, and multiplies, adds and normalises the attention step by step. Both sides run in this
process, in turn, with the same weights, and give the same embedding. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from aespa.models.architecture import WINDOW, Architecture
from aespa.models.attention import RelativeAttention
from aespa.models.build import build_network
from aespa.models.image_encoder import Block, ImageEncoder
from aespa.models.tables import resize_positions


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


def plain_attention(module: RelativeAttention, x: Tensor) -> Tensor:
    """Attend among all tokens of ``[n,L,L,C]``."""
    n, side, _, channels = x.shape
    heads = module.heads
    qkv = module.qkv(x).reshape(n, side * side, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, n * heads, side * side, -1).unbind(0)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    places = torch.arange(side)
    distances = places[:, None] - places + side - 1
    grid = q.reshape(n * heads, side, side, -1)
    by_row = torch.einsum("bhwc,hkc->bhwk", grid, module.rel_h[distances])
    by_column = torch.einsum("bhwc,wkc->bhwk", grid, module.rel_w[distances])
    logits = logits.view(n * heads, side, side, side, side)
    logits = logits + by_row[:, :, :, :, None] + by_column[:, :, :, None, :]
    out = logits.view(n * heads, side * side, side * side).softmax(dim=-1) @ v
    out = out.view(n, heads, side, side, -1).permute(0, 2, 3, 1, 4).reshape(n, side, side, channels)
    return module.proj(out)


def plain_block(block: Block, x: Tensor) -> Tensor:
    """Apply a block of the encoder to ``[B,g,g,C]``, windows padded."""
    batch, grid, _, channels = x.shape
    normed = block.norm1(x)
    if block.attn.side == grid:
        attended = plain_attention(block.attn, normed)
    else:
        rest = -grid % WINDOW
        padded = functional.pad(normed, (0, 0, 0, rest, 0, rest))
        n = (grid + rest) // WINDOW
        windows = padded.view(batch, n, WINDOW, n, WINDOW, channels).transpose(2, 3)
        windows = plain_attention(block.attn, windows.reshape(-1, WINDOW, WINDOW, channels))
        whole = windows.view(batch, n, n, WINDOW, WINDOW, channels).transpose(2, 3)
        attended = whole.reshape(batch, grid + rest, grid + rest, channels)[:, :grid, :grid]
    x = x + attended
    return x + block.mlp(block.norm2(x))


def plain_encode(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """Encode with padded windows."""
    x = encoder.patch_embed(images) + resize_positions(encoder.pos_embed, encoder.grid)
    for block in encoder.blocks:
        x = plain_block(block, x)  # pyright: ignore[reportArgumentType]
    return encoder.neck(x.permute(0, 3, 1, 2))


def bench(image_size: int, batch: int, repeats: int, *, backward: bool) -> None:
    """Time one pass over a batch."""
    network = build_network(Architecture(image_size=image_size))
    encoder = network.image_encoder
    with torch.no_grad():
        for block in encoder.blocks:
            for table in (block.attn.rel_h, block.attn.rel_w):  # pyright: ignore[reportAttributeAccessIssue]
                table.normal_(std=0.1)
    images = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))

    def ours() -> Tensor:
        return encoder(images)

    def plain() -> Tensor:
        return plain_encode(encoder, images)

    def run(side: Callable[[], Tensor]) -> Tensor:
        if not backward:
            with torch.no_grad():
                return side()
        encoder.zero_grad()
        out = side()
        out.square().mean().backward()
        return out.detach()

    difference = (run(ours) - run(plain)).abs().max().item()
    assert difference < 1e-4, difference
    seconds = fastest({"ours": lambda: run(ours), "plain": lambda: run(plain)}, repeats)
    line(
        f"ViT-B encoder, {image_size} px, batch {batch}, {'with gradients' if backward else 'without gradients'}",
        cpu_seconds=seconds["ours"],
        plain_cpu_seconds=seconds["plain"],
        speedup=seconds["plain"] / seconds["ours"],
        largest_difference=difference,
        threads=torch.get_num_threads(),
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no gradients")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for image_size, batch in ((128, 4), (256, 1)):
        for backward in (False, True):
            if not (arguments.quick and backward):
                bench(image_size, batch, 2 if arguments.quick else 5, backward=backward)


if __name__ == "__main__":
    main()
