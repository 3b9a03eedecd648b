"""Networks from a configuration, built in the original's order so that a seed gives the same start."""

from __future__ import annotations

from advmil.config import Config, parse_dims
from advmil.models.abmil import ABMIL
from advmil.models.backbone import Backbone
from advmil.models.deepattnmisl import DeepAttnMISL
from advmil.models.discriminator import Discriminator
from advmil.models.esat import ESAT
from advmil.models.generator import Generator
from advmil.models.initialisation import initialise_narrow, initialise_xavier
from advmil.models.patchgcn import PatchGCN
from advmil.models.survival_net import SurvivalNet

BACKBONES: dict[str, type[ESAT] | type[ABMIL] | type[DeepAttnMISL] | type[PatchGCN]] = {
    "patch": ESAT,
    "abmil": ABMIL,
    "cluster": DeepAttnMISL,
    "graph": PatchGCN,
}


def build_backbone(mode: str, dims: tuple[int, ...], dropout: float = 0.25) -> Backbone:
    """Build a backbone.

    Args:
        mode: ``patch``, ``abmil``, ``cluster`` or ``graph``.
        dims: Input, hidden and embedding width.
        dropout: Rate inside it.

    Raises:
        ValueError: Another mode, or widths that the backbone cannot have.
    """
    if mode not in BACKBONES:
        raise ValueError(f"bcb_mode: expected one of {', '.join(BACKBONES)}, found {mode!r}")
    if len(dims) != 3:
        raise ValueError(f"bcb_dims: expected three widths, input-hidden-embedding, found {len(dims)}")
    return BACKBONES[mode](dims, dropout)


def build_generator(config: Config) -> Generator:
    """Build the generator of a configuration with its start weights."""
    backbone = build_backbone(config.bcb_mode, config.bcb_widths, config.bcb_dropout)
    generator = Generator(
        backbone,
        _head_dims("gen_dims", config.gen_dims, config.bcb_widths[-1]),
        noise=config.noise_digits,
        hops=config.gen_noi_hops,
        norm=config.gen_norm,
        dropout=config.gen_dropout,
        out_scale=config.gen_out_scale,
    )
    initialise_xavier(generator)
    return generator


def build_discriminator(config: Config) -> Discriminator:
    """Build the discriminator of a configuration; it keeps torch's start weights."""
    return Discriminator(
        config.disc_netx_in_dim,
        config.disc_netx_out_dim,
        kind=config.disc_type,
        kernel=config.disc_netx_ksize,
        pool=config.disc_netx_backbone,
        dropout=config.disc_netx_dropout,
        time_dim=config.disc_nety_in_dim,
        time_widths=parse_dims(config.disc_nety_hid_dims),
        time_norm=config.disc_nety_norm,
        time_dropout=config.disc_nety_dropout,
        path=config.disc_prj_path,
        product=config.disc_prj_iprd,
    )


def build_baseline(config: Config) -> SurvivalNet:
    """Build the network of ``surv_reg``, ``surv_cox`` or ``surv_nll`` with its start weights."""
    backbone = build_backbone(config.bcb_mode, config.bcb_widths, config.bcb_dropout)
    cox = config.task == "surv_cox"
    network = SurvivalNet(
        backbone,
        _head_dims("pdh_dims", config.pdh_dims, config.bcb_widths[-1]),
        hops=config.mlp_hops,
        norm=config.mlp_norm,
        dropout=config.mlp_dropout,
        out_scale="none" if cox else "sigmoid",
    )
    (initialise_narrow if cox else initialise_xavier)(network)
    return network


def _head_dims(key: str, text: str, embedding: int) -> tuple[int, ...]:
    dims = parse_dims(text)
    if len(dims) != 2 or dims[0] != embedding:
        raise ValueError(
            f"{key}: expected {embedding}-<outputs>, the embedding of bcb_dims and the outputs; found {text}"
        )
    return dims
