"""Speed of decoding an image's samples; one JSON line a workload.

The plain side is written out here: for every sample it tiles the latent vector over the map, runs all fusion
convolutions on the joined map, and calls the decoder, which computes its four masks and their qualities. Both sides
run in this process, in turn, with the same weights, and give the same logits. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.mask_decoder import MaskDecoder
from aespa.models.network import AespaNetwork, Prompts
from aespa.models.two_way import HEADS, Attention, TwoWayBlock

WANTED = 3.0


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


def plain_attention(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend step by step."""
    split = [
        project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for project, x in ((module.q_proj, q), (module.k_proj, k), (module.v_proj, v))
    ]
    logits = split[0] @ split[1].transpose(-2, -1) / split[0].shape[-1] ** 0.5
    return module.out_proj((logits.softmax(dim=-1) @ split[2]).transpose(1, 2).flatten(2))


def plain_layer(
    layer: TwoWayBlock, q: Tensor, k: Tensor, places: Tensor, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply a block of SAM's transformer."""
    if layer.first:
        q = layer.norm1(plain_attention(layer.self_attn, q, q, q))
    else:
        q = layer.norm1(q + plain_attention(layer.self_attn, q + places, q + places, q))
    q = layer.norm2(q + plain_attention(layer.cross_attn_token_to_image, q + places, k + at, k))
    q = layer.norm3(q + layer.mlp(q))
    return q, layer.norm4(k + plain_attention(layer.cross_attn_image_to_token, k + at, q + places, q))


def plain_decoder(decoder: MaskDecoder, image: Tensor, at: Tensor, prompts: Prompts) -> Tensor:
    """Decode one sample of every image ``[B,256,g,g]``, all four masks."""
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    places = torch.cat([own.expand(len(image), -1, -1), prompts.sparse], dim=1)
    shape = image.shape
    k, at = (image + prompts.dense).flatten(2).transpose(1, 2), at.flatten(2).transpose(1, 2)
    q = places
    for layer in decoder.transformer.layers:
        q, k = plain_layer(layer, q, k, places, at)  # pyright: ignore[reportArgumentType]
    final = decoder.transformer.final_attn_token_to_image
    q = decoder.transformer.norm_final_attn(q + plain_attention(final, q + places, k + at, k))
    upscaled = decoder.output_upscaling(k.transpose(1, 2).reshape(shape))
    hyper = torch.stack([mlp(q[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    masks = (hyper @ upscaled.flatten(2)).unflatten(-1, upscaled.shape[-2:])
    decoder.iou_prediction_head(q[:, 0])
    return masks[:, :1]


def plain_samples(network: AespaNetwork, neck: Tensor, z: Tensor, prompts: Prompts) -> Tensor:
    """Decode sample by sample."""
    grid = neck.shape[-1]
    at = network.prompt_encoder.dense_positions()
    results = []
    for latent in z:
        tiled = latent[:, :, None, None].expand(-1, -1, grid, grid)
        fused = network.image_encoder.fcomb.layers(torch.cat([neck, tiled], dim=1))
        results.append(plain_decoder(network.mask_decoder, fused, at, prompts))
    return torch.stack(results)


def bench(image_size: int, batch: int, samples: int, repeats: int, *, backward: bool = False) -> None:
    """Time the samples of a batch."""
    network = build_network(Architecture(image_size=image_size))
    generator = torch.Generator().manual_seed(0)
    grid = network.architecture.grid
    neck = torch.randn(batch, 256, grid, grid, generator=generator)
    z = torch.randn(samples, batch, 64, generator=generator)
    previous = torch.randn(batch, 1, 4 * grid, 4 * grid, generator=generator)
    coords = torch.randint(0, image_size, (batch, 3, 2), generator=generator).float()

    def run(side: Callable[[AespaNetwork, Tensor, Tensor, Prompts], Tensor]) -> Tensor:
        with torch.set_grad_enabled(backward):
            out = side(network, neck, z, network.prompts(coords, torch.ones(batch, 3), previous))
            if backward:
                network.zero_grad()
                functional.softplus(out.mean(dim=0)).mean().backward()
        return out.detach()

    def ours(network: AespaNetwork, neck: Tensor, z: Tensor, prompts: Prompts) -> Tensor:
        return network.decode(neck, z, prompts)

    difference = (run(ours) - run(plain_samples)).abs().max().item()
    assert difference < 1e-5, difference
    seconds = fastest({"ours": lambda: run(ours), "plain": lambda: run(plain_samples)}, repeats)
    line(
        f"{samples} samples, {image_size} px, batch {batch}, {'with' if backward else 'without'} gradients",
        cpu_seconds=seconds["ours"],
        plain_cpu_seconds=seconds["plain"],
        speedup=seconds["plain"] / seconds["ours"],
        **({"wanted": WANTED} if batch == 1 and image_size == 128 else {}),
        largest_difference=difference,
        threads=torch.get_num_threads(),
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one workload, few repeats")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats = 3 if arguments.quick else 7
    bench(128, 1, 48, repeats)
    if not arguments.quick:
        bench(128, 4, 48, repeats)
        bench(256, 1, 48, repeats)
        bench(128, 1, 48, repeats, backward=True)


if __name__ == "__main__":
    main()
