"""From a configuration to a network with its starting weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from til_mtl.config import Config
from til_mtl.errors import CheckpointError
from til_mtl.models.deeplab import MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus, TilNetwork
from til_mtl.models.encoder_weights import download_imagenet_file, find_imagenet_file, load_encoder

logger = logging.getLogger(__name__)


def build_network(config: Config, *, allow_download: bool = False) -> TilNetwork:
    """Build the network of a run and give its encoder the configured starting weights.

    Args:
        config: The run's configuration; ``pretrained`` is a checkpoint of the encoder, ``imagenet`` or ``none``.
        allow_download: Fetch ImageNet weights that the caches lack; without it (or when it fails) the encoder
            starts from random weights, with a warning.

    Raises:
        CheckpointError: The encoder's checkpoint cannot be read or does not fit.
        DataError: The encoder is unknown or does not fit.
    """
    network = assemble_network(config)
    if config.pretrained == "none":
        logger.warning(
            "pretrained: none: the encoder starts from random weights%s",
            "" if not config.freeze_encoder else " and stays there, because freeze_encoder is true",
        )
    elif config.pretrained == "imagenet":
        _load_imagenet(network, allow_download)
    else:
        load_encoder(network, Path(config.pretrained))
    return network


def assemble_network(config: Config) -> TilNetwork:
    """Build the network of a configuration with random weights.

    Args:
        config: The run's configuration.
    """
    options: dict[str, Any] = {
        "encoder": config.encoder,
        "freeze_until": config.freeze_until if config.freeze_encoder else None,
        "freeze_bn": bool(config.resolved_value("freeze_bn")),
        "aspp_rates": config.aspp_rates,
    }
    if config.task == "mtl":
        return MultiTaskDeepLabv3Plus(config.num_classes_seg, config.num_classes_det, **options)
    classes = config.num_classes_seg if config.task == "seg" else config.num_classes_det
    return SingleTaskDeepLabv3Plus(classes, config.task, **options)


def _load_imagenet(network: TilNetwork, allow_download: bool) -> None:
    encoder = network.encoder_name
    path = find_imagenet_file(encoder)
    reason = "they are not in the caches of torch and Hugging Face"
    if path is None and allow_download:
        try:
            path = download_imagenet_file(encoder)
        except CheckpointError as error:
            reason = str(error)
    if path is not None:
        load_encoder(network, path)
        return
    logger.warning(
        "pretrained: imagenet: no ImageNet weights of %s (%s); the encoder starts from random weights. "
        "Allow the download, or give the path of a checkpoint as `pretrained`",
        encoder,
        reason,
    )
