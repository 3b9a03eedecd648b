"""Parts that wait keep their gradients off; losses of enlarged logits and of repeated values are those of all pixels."""

from __future__ import annotations

import pytest
import torch

from aespa.losses import weighted_bce
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.em import Mixture
from aespa.original.phases import Phases, mask_loss, mask_responsibilities


def test_phases_leave_what_was_frozen_frozen():
    network = build_network(Architecture(encoder="tiny", image_size=64))
    network.EM_weights.fc1.weight.requires_grad_(False)
    phases = Phases(network, None)

    def fail() -> None:
        with phases.learning(network.EM_weights):
            assert network.EM_weights.fc1.weight.requires_grad
            assert not any(p.requires_grad for p in network.image_encoder.parameters())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["EM_weights.fc1.weight"]


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_the_loss_of_enlarged_logits(upsample):
    network = build_network(Architecture(encoder="tiny", image_size=64, upsample=upsample))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 32, 32, generator=generator)
    wanted = torch.randint(0, 3, (2, 64, 64), generator=generator) / 2
    expected = weighted_bce(network.upsample(logits)[:, 0], wanted, 2.0)
    torch.testing.assert_close(mask_loss(network, logits, wanted, 2.0), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 5000])
def test_repeated_values_of_a_mask_are_counted(levels):
    network = build_network(Architecture(encoder="tiny", image_size=64, n_components=3))
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(0, levels, (2, 64, 64), generator=generator) / (levels - 1)
    mixture = Mixture(
        torch.tensor([[0.2, 0.5, 0.3]] * 2), torch.tensor([[0.1, 0.4, 1.1]] * 2), torch.full((2, 3), 0.1)
    )
    expected = network.responsibilities(wanted.flatten(1), mixture)
    torch.testing.assert_close(
        mask_responsibilities(network, wanted, mixture), expected, rtol=1e-5, atol=1e-6
    )
