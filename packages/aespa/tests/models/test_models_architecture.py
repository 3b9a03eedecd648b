"""An architecture follows from a configuration and from a checkpoint, and refuses what cannot be built."""

from __future__ import annotations

import pytest

from aespa.config import Config
from aespa.errors import CheckpointError
from aespa.models.architecture import Architecture


def test_defaults_and_faithful_values_of_a_configuration():
    ours = Architecture.from_config(Config(image_size=128, n_components=8))
    assert (ours.block, ours.mixture, ours.latent, ours.variance) == ("sam", "image", "component", "softplus")
    assert (ours.upsample, ours.click_order, ours.responsibility) == ("bilinear", "xy", "log")
    assert (ours.image_size, ours.n_components, ours.preferences) == (128, 8, True)
    assert Architecture.from_config(Config(faithful=True, image_size=128)) == Architecture.original(128)
    mixed = Architecture.from_config(Config(faithful=True, click_order="xy"))
    assert (mixed.click_order, mixed.upsample) == ("xy", "nearest")
    assert not Architecture.from_config(Config(mode="SAM")).preferences


@pytest.mark.parametrize(
    ("encoder", "side", "grid"), [("tiny", 64, 8), ("tiny", 72, 9), ("vit_b", 128, 8), ("vit_h", 256, 16)]
)
def test_measures(encoder, side, grid):
    architecture = Architecture(encoder=encoder, image_size=side)
    assert (architecture.grid, architecture.low_res) == (grid, 4 * grid)
    assert architecture.patch * grid == side
    assert architecture.resized(2 * side).grid == 2 * grid


def test_a_checkpoint_describes_it():
    architecture = Architecture(encoder="tiny", image_size=64, n_components=3, variance="relu")
    assert Architecture.from_dict(architecture.to_dict()) == architecture


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "vit_z"}, r"encoder must be one of tiny, vit_b, vit_l, vit_h, found 'vit_z'"),
        ({"image_size": 100}, r"image_size must be a multiple of 16 for encoder: vit_b, found 100"),
        ({"image_size": 0}, r"found 0"),
        ({"n_components": 0}, r"n_components must be at least 1, found 0"),
        ({"colour": "red"}, r"unknown keys colour; known are block, click_order"),
    ],
)
def test_what_cannot_be_built_is_named(values, message):
    with pytest.raises(CheckpointError, match=message):
        Architecture.from_dict(values)
