"""``model_stats.py``: a network, its parameters and the multiply-adds of one bag."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advmil.config import BASELINE_TASKS, Config
from advmil.data.regions import REGION
from advmil.models.build import build_baseline, build_discriminator, build_generator
from advmil.models.deepattnmisl import CLUSTERS
from medshared.configuration import load_config, load_yaml_or_json

WIDTH = {"graph": 128}  # hidden width of the paper's networks; 384 for the others
NEIGHBOURS = 8


def default_config(backbone: str) -> Config:
    """Return the paper's sizes: 1024-384-384, and 1024-128-128 for the graph."""
    width = WIDTH.get(backbone, 384)
    return Config.model_validate(
        {"bcb_mode": backbone, "bcb_dims": f"1024-{width}-{width}", "gen_dims": f"{width}-1"}
    )


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters that are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def synthetic_inputs(config: Config, model: str, num_patches: int) -> tuple[Tensor, ...]:
    """Return random inputs of the network of one bag.

    Args:
        config: Sizes.
        model: ``G`` or ``D``.
        num_patches: Patches of the bag.

    Raises:
        ValueError: A number of patches that the network cannot take.
    """
    regions = model == "D" or config.bcb_mode == "patch"
    if num_patches < 1 or (regions and num_patches % REGION):
        raise ValueError(
            f"--num_patches {num_patches}: expected at least 1"
            + (f" and a multiple of {REGION}, since this network takes regions" if regions else "")
        )
    generator = torch.Generator().manual_seed(0)
    if model == "D":
        x = torch.randn(1, num_patches, config.disc_netx_in_dim, generator=generator)
        return x, torch.rand(1, config.disc_nety_in_dim, generator=generator)
    x = torch.randn(1, num_patches, config.bcb_widths[0], generator=generator)
    if config.bcb_mode == "cluster":
        return x, torch.arange(num_patches) % CLUSTERS
    if config.bcb_mode == "graph":
        k = torch.arange(1, NEIGHBOURS + 1)
        nodes = torch.arange(num_patches)
        return x, torch.stack(
            [nodes.repeat_interleave(NEIGHBOURS), (nodes[:, None] + k).flatten() % num_patches]
        )
    return (x,)


def count_multiply_adds(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the multiply-adds of matrix products, convolutions and attention; additions alone do not count."""
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*inputs)
    return counter.get_total_flops() // 2


def show_model_stats(model: str, backbone: str, num_patches: int = 3360, config: Path | None = None) -> int:
    """Print a network, its number of parameters, and its multiply-adds for one bag.

    Args:
        model: ``G`` (generator, or the baseline of a configuration for one) or ``D`` (discriminator).
        backbone: Of the generator, at the paper's size.
        num_patches: Of the synthetic bag; 3360 as the original's example patient.
        config: YAML file whose networks are shown instead; its ``bcb_mode`` wins over ``backbone``.

    Returns:
        0.
    """
    chosen = default_config(backbone)
    if config is not None:
        mapping: dict[str, Any] = load_yaml_or_json(config)
        known = {key: value for key, value in mapping.items() if not isinstance(value, list)}
        chosen = load_config(Config, known, label=str(config))
    build = build_baseline if chosen.task in BASELINE_TASKS else build_generator
    network: nn.Module = build(chosen) if model == "G" else build_discriminator(chosen)
    inputs = synthetic_inputs(chosen, model, num_patches)
    multiply_adds = count_multiply_adds(network, inputs)
    sys.stdout.write(
        f"{network}\n"
        f"Parameters: {count_parameters(network):,}\n"
        f"Multiply-adds for one bag of {num_patches:,} patches: {multiply_adds / 1e9:.3f} G\n"
    )
    return 0
