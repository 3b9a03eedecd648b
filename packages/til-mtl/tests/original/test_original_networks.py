"""The original's class names build the networks that they name."""

from __future__ import annotations

import torch

from til_mtl.original import networks


def test_names_and_defaults(golden_json):
    with torch.device("meta"):
        built = {
            "mtl": networks.DeepLabv3Plus(),
            "stl_seg": networks.DeepLabv3PlusSTL(),
            "stl_det": networks.DeepLabv3PlusSTL(2),
        }
    for name, network in built.items():
        assert list(network.state_dict()) == golden_json(f"parameters_{name}")["state_dict_order"]
    assert [network.task for network in built.values()] == ["mtl", "seg", "det"]
    assert networks.make_layer(networks.BasicBlock, 4, 4, 2)(torch.zeros(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    assert networks.ASPP(in_channels=4).heads == ("conv_1x1_4",)
    with torch.device("meta"):
        assert networks.ASPP_Bottleneck(3, 2).heads == ("conv_1x1_seg", "conv_1x1_det")
