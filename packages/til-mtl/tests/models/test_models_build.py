"""From a configuration to a network, and where its encoder's weights come from."""

from __future__ import annotations

import pytest
import torch

from til_mtl.config import Config
from til_mtl.errors import CheckpointError
from til_mtl.models import build
from til_mtl.models.build import assemble_network, build_network
from til_mtl.models.deeplab import MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus
from til_mtl.models.encoder_weights import encoder_state

SMALL = "mobilenetv3_small_050"


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ({"task": "mtl"}, MultiTaskDeepLabv3Plus, 3),
        ({"task": "seg", "num_classes_seg": 4}, SingleTaskDeepLabv3Plus, 4),
        ({"task": "det"}, SingleTaskDeepLabv3Plus, 2),
    ],
)
def test_the_task_chooses_the_network(values, kind, classes):
    with torch.device("meta"):
        network = assemble_network(Config(**values))
    assert type(network) is kind
    assert network.task == values["task"]
    assert network.get_submodule("final_conv_seg").out_channels == classes


@pytest.mark.parametrize(
    ("values", "stages", "freeze_bn"),
    [
        ({}, 4, True),
        ({"faithful": True}, 4, False),
        ({"faithful": True, "freeze_bn": True}, 4, True),
        ({"freeze_until": "layer1"}, 2, True),
        ({"freeze_encoder": False}, 0, True),
    ],
)
def test_what_is_frozen(values, stages, freeze_bn):
    with torch.device("meta"):
        network = assemble_network(Config(aspp_rates=(1, 2, 3), **values))
    assert len(network.frozen_stages) == stages
    assert network.freeze_bn == freeze_bn
    assert network.get_submodule("aspp.conv_3x3_3").dilation == (3, 3)


def test_random_weights_are_said(caplog):
    build_network(Config(encoder=SMALL))
    assert "starts from random weights and stays there, because freeze_encoder is true" in caplog.text


def test_a_checkpoint_is_loaded(tmp_path):
    source = assemble_network(Config(encoder=SMALL, task="det"))
    path = tmp_path / "encoder.pt"
    torch.save(encoder_state(source), path)
    network = build_network(Config(encoder=SMALL, task="seg", pretrained=str(path)))
    for one, other in zip(encoder_state(source).values(), encoder_state(network).values(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        build_network(Config(encoder=SMALL, task="seg", pretrained=str(tmp_path / "none.pt")))


def test_imagenet_from_the_cache_or_random_with_a_warning(tmp_path, monkeypatch, caplog):
    config = Config(encoder=SMALL, task="det", pretrained="imagenet")
    monkeypatch.setattr(build, "find_imagenet_file", lambda _: None)
    asked = []

    def refuse(name):
        asked.append(name)
        raise CheckpointError("no route to host")

    monkeypatch.setattr(build, "download_imagenet_file", refuse)
    network = build_network(config)
    assert not asked
    assert "not in the caches of torch and Hugging Face); the encoder starts from random" in caplog.text
    build_network(config, allow_download=True)
    assert asked == [SMALL]
    assert "(no route to host); the encoder starts from random" in caplog.text
    path = tmp_path / "imagenet.pth"
    torch.save({key.removeprefix("encoder."): value for key, value in encoder_state(network).items()}, path)
    monkeypatch.setattr(build, "find_imagenet_file", lambda _: path)
    loaded = build_network(config)
    assert torch.equal(
        next(iter(encoder_state(loaded).values())), next(iter(encoder_state(network).values()))
    )
