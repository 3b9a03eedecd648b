"""New networks: the original's keys and shapes, seeded weights, every tensor written."""

from __future__ import annotations

import math

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import INITIAL_VARIANCE, build_network, empty_network

TINY = Architecture(encoder="tiny", image_size=64)


def test_keys_and_shapes_are_those_of_the_original(golden_network, golden_json):
    found = {key: list(value.shape) for key, value in golden_network.state_dict().items()}
    assert found == golden_json("state_dict_aespa_128")
    assert sum(value.numel() for value in golden_network.state_dict().values()) == 94_522_176


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (Architecture.original(256), "state_dict_aespa_256_differences"),
        (
            Architecture.original(128, n_components=4),
            {
                "EM_weights.fc1.weight": [64, 4],
                "EM_weights.fc6.weight": [4, 64],
                "EM_weights.fc6.bias": [4],
                "EM_mean_variance.fc3.weight": [8, 64],
                "EM_mean_variance.fc3.bias": [8],
            },
        ),
        (Architecture(image_size=128, preferences=False), {}),
    ],
)
def test_what_another_size_changes(architecture, expected, golden_json):
    reference = golden_json("state_dict_aespa_128")
    expected = golden_json(expected) if isinstance(expected, str) else expected
    found = {key: list(value.shape) for key, value in empty_network(architecture).state_dict().items()}
    assert found.keys() == reference.keys()
    assert {key: shape for key, shape in found.items() if shape != reference[key]} == expected


def test_weights_follow_from_the_seed_alone():
    def digest(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        network = build_network(TINY, generator=generator)
        parts = [*network.state_dict().values(), network.initial_responsibilities]
        return torch.stack([part.double().std(correction=0) + part.double().mean() for part in parts])

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = digest(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(first, digest(1))
    assert not torch.equal(first, digest(2))
    assert torch.equal(digest(None), digest(None))


def test_an_empty_network_draws_nothing():
    state = torch.get_rng_state()
    empty_network(TINY)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_weight_is_written(monkeypatch):
    """What the constructors leave is overwritten, whatever the memory held."""
    make = empty_network

    def spoilt(architecture):
        network = make(architecture)
        for tensor in (*network.state_dict().values(), network.initial_responsibilities):
            tensor.fill_(torch.nan)
        return network

    monkeypatch.setattr("aespa.models.build.empty_network", spoilt)
    network = build_network(TINY)
    for name, tensor in network.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    assert network.initial_responsibilities.sum().item() == pytest.approx(1, abs=1e-6)


def test_weights_have_the_original_spread():
    network = build_network(TINY)
    fcomb = network.image_encoder.fcomb.layers[2].weight.flatten(1)
    torch.testing.assert_close(fcomb @ fcomb.t(), torch.eye(256), rtol=0, atol=1e-4)
    assert network.image_encoder.fcomb.layers[0].bias.abs().max() <= 0.002
    for name, inner in (("self_attn", 256), ("cross_attn_token_to_image", 128)):
        attention = getattr(network.mask_decoder.transformer.layers[0], name)
        bound = math.sqrt(6 / (256 + 3 * inner))
        assert bound * 0.99 < attention.q_proj.weight.abs().max() <= bound
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            assert not layer.bias.any()
    block = network.image_encoder.blocks[0]
    assert not block.attn.rel_h.any()
    assert block.mlp.lin1.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_only_new_networks_spread_their_components():
    sparse = torch.zeros(1, 1, 256)
    for variance in ("softplus", "relu"):
        network = build_network(Architecture(encoder="tiny", image_size=64, variance=variance))
        em = network.EM_mean_variance
        with torch.no_grad():
            means, variances = em(sparse, network.prompt_encoder.dense_positions())
        assert bool(means.max() - means.min() > 0.7) is (variance == "softplus")
        if variance == "softplus":
            assert torch.corrcoef(torch.cat([means, torch.arange(16.0)[None]]))[0, 1] > 0.9
            assert variances.mean().item() == pytest.approx(INITIAL_VARIANCE, rel=0.2)
