"""One round of the network: per-image mixtures, latents, samples, upsampling, gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.em import Mixture
from aespa.models.network import MOST_TOKENS

TINY = Architecture(encoder="tiny", image_size=64, n_components=5)


@pytest.fixture(scope="module")
def network():
    return build_network(TINY)


def _inputs(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(batch, 3, 64, 64, generator=generator),
        torch.randint(0, 64, (batch, 2, 2), generator=generator).float(),
        torch.randint(0, 2, (batch, 2), generator=generator),
        torch.randn(batch, 1, 32, 32, generator=generator),
        torch.rand(batch, 5, generator=generator).softmax(dim=1),
    )


def _round(network, inputs, n_samples=1, generator=None):
    images, coords, labels, previous, responsibilities = inputs
    prompts = network.prompts(coords, labels, previous)
    mixture = network.mixture(prompts.sparse, responsibilities)
    z = network.latents(mixture, n_samples, generator)
    return network.decode(network.encode(images), z, prompts)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(network):
    inputs = _inputs(3)
    together = _round(network, inputs)
    for image in range(3):
        alone = _round(network, [part[image : image + 1] for part in inputs])
        torch.testing.assert_close(together[:, image : image + 1], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_batch_mixture_is_the_average_of_the_images(network):
    faithful = build_network(dataclasses.replace(TINY, mixture="batch"))
    faithful.load_state_dict(network.state_dict())
    _, coords, labels, _, responsibilities = _inputs(3)
    sparse = network.prompts(coords, labels, None).sparse
    each, shared = (n.mixture(sparse, responsibilities) for n in (network, faithful))
    for ours, theirs in zip(each, shared, strict=True):
        torch.testing.assert_close(ours.mean(dim=0).expand(3, -1), theirs)
        assert ours.std(dim=0).max() > 0
    torch.testing.assert_close(shared.weights.sum(dim=1), torch.ones(3))


def test_one_sample_is_the_mean_and_draws_nothing(network):
    mixture = Mixture(torch.tensor([[0.25, 0.75]]), torch.tensor([[1.0, 3.0]]), torch.ones(1, 2))
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    z = network.latents(mixture, 1, generator)
    assert torch.equal(z, torch.full((1, 1, 64), 2.5))
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("latent", ["component", "shared"])
def test_samples_have_the_moments_of_the_mixture(latent):
    network = build_network(dataclasses.replace(TINY, latent=latent))
    weights, means = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[-2.0, 0.0, 4.0]])
    variances = torch.tensor([[0.04, 1.0, 0.25]])
    z = network.latents(Mixture(weights, means, variances), 20_000, torch.Generator().manual_seed(0)).squeeze(
        1
    )
    mean = float((weights * means).sum())
    assert z.mean().item() == pytest.approx(mean, abs=0.05)
    if latent == "shared":
        assert z.std().item() == pytest.approx(float((weights * variances.sqrt()).sum()), rel=0.02)
        return
    variance = float((weights * (variances + means.square())).sum()) - mean**2
    assert z.var().item() == pytest.approx(variance, rel=0.03)
    nearest = (z.mean(dim=1, keepdim=True) - means).abs().argmin(dim=1)  # 64 numbers tell the component
    share = torch.bincount(nearest, minlength=3) / len(z)
    torch.testing.assert_close(share, weights[0], rtol=0, atol=0.02)
    inside = z[nearest == 1]
    assert inside.std().item() == pytest.approx(1, rel=0.02)


def test_a_component_without_weight_is_never_drawn(network):
    mixture = Mixture(
        torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[-9.0, 1.0, 9.0]]), torch.full((1, 3), 1e-6)
    )
    z = network.latents(mixture, 500, torch.Generator().manual_seed(0))
    assert z.min() > 0
    assert z.max() < 2


def test_samples_follow_from_the_generator_and_from_noise(network):
    mixture = Mixture(torch.full((2, 3), 1 / 3), torch.rand(2, 3), torch.rand(2, 3))
    first, again, other = (
        network.latents(mixture, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = torch.zeros(4, 2, 64)
    z = network.latents(mixture, 4, torch.Generator().manual_seed(1), noise=noise)
    assert set(z.flatten().tolist()) <= set(mixture.means.flatten().tolist())


def test_weights_learn_from_drawn_components(network):
    weights = torch.tensor([[0.4, 0.6]], requires_grad=True)
    means = torch.tensor([[1.0, 5.0]], requires_grad=True)
    mixture = Mixture(weights, means, torch.full((1, 2), 0.01))
    z = network.latents(mixture, 50, torch.Generator().manual_seed(0))
    z.mean().backward()
    assert weights.grad is not None
    assert weights.grad[0, 1] - weights.grad[0, 0] == pytest.approx(4, abs=0.1)
    assert means.grad is not None
    assert float(means.grad.sum()) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def test_samples_are_decoded_as_one_by_one(network):
    images, coords, labels, previous, responsibilities = _inputs(2)
    prompts = network.prompts(coords, labels, previous)
    neck = network.encode(images)
    z = network.latents(
        network.mixture(prompts.sparse, responsibilities), 6, torch.Generator().manual_seed(0)
    )
    together = network.decode(neck, z, prompts)
    assert together.shape == (6, 2, 1, 32, 32)
    for n in range(6):
        torch.testing.assert_close(
            together[n], network.decode(neck, z[n : n + 1], prompts)[0], rtol=0, atol=1e-5
        )
    assert together.std(dim=0).max() > 0


@pytest.mark.parametrize("most", [1, 64 * 2 * 4, 10**6])
def test_samples_decoded_a_few_at_a_time_are_the_same(most, network, monkeypatch):
    monkeypatch.setitem(MOST_TOKENS, "cpu", most)
    images, coords, labels, previous, _ = _inputs(2)
    neck, z = network.encode(images), torch.randn(6, 2, 64, generator=torch.Generator().manual_seed(0))
    prompts = network.prompts(coords, labels, previous)
    with torch.no_grad():
        few = network.decode(neck, z, prompts)
    torch.testing.assert_close(few, network.decode(neck, z, prompts).detach(), rtol=0, atol=1e-5)


def test_numbers_from_elsewhere_choose_the_components(network):
    mixture = Mixture(
        torch.tensor([[0.25, 0.75]] * 2), torch.tensor([[0.0, 9.0]] * 2), torch.full((2, 2), 1e-6)
    )
    uniform = torch.tensor([[0.0, 0.24], [0.26, 0.99]])
    z = network.latents(mixture, 2, noise=torch.zeros(2, 2, 64), uniform=uniform)
    assert z[..., 0].tolist() == [[0.0, 0.0], [9.0, 9.0]]


@torch.no_grad()
def test_without_latents_it_is_plain_sam(network):
    images, coords, labels, previous, _ = _inputs(2)
    prompts, neck = network.prompts(coords, labels, previous), network.encode(images)
    logits = network.decode(neck, None, prompts)
    places = network.prompt_encoder.dense_positions()
    expected, _ = network.mask_decoder(neck, places, prompts.sparse, prompts.dense)
    torch.testing.assert_close(logits, expected[None])


def test_gradients_reach_every_part(network):
    network.zero_grad()
    logits = _round(network, _inputs(2), 3, torch.Generator().manual_seed(0))
    network.upsample(logits).square().mean().backward()
    for name in (
        "image_encoder.pos_embed",
        "image_encoder.blocks.0.attn.rel_w",
        "image_encoder.fcomb.layers.0.weight",
        "prompt_encoder.point_embeddings.1.weight",
        "prompt_encoder.mask_downscaling.0.weight",
        "mask_decoder.transformer.layers.1.mlp.fc.weight",
        "EM_weights.fc1.weight",
        "EM_mean_variance.conv1d_1.weight",
    ):
        gradient = network.get_parameter(name).grad
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        assert gradient.any(), name
    network.zero_grad()


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_upsampling(mode):
    network = build_network(dataclasses.replace(TINY, upsample=mode))
    low = torch.randn(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    high = network.upsample(low)
    assert high.shape == (2, 3, 1, 64, 64)
    if mode == "nearest":
        assert torch.equal(high, low.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2))
        same = [network.responsibilities(m[0].flatten(1).sigmoid(), _any_mixture(3)) for m in (low, high)]
        torch.testing.assert_close(same[0], same[1])
    else:
        inner = high[..., 1:-1, 1:-1].unflatten(-1, (31, 2)).unflatten(-3, (31, 2))
        corners = 0.75 * 0.75 * low[..., :-1, :-1] + 0.75 * 0.25 * (low[..., :-1, 1:] + low[..., 1:, :-1])
        torch.testing.assert_close(
            inner[..., :, 0, :, 0], corners + 0.25 * 0.25 * low[..., 1:, 1:], rtol=0, atol=1e-5
        )


def _any_mixture(batch):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(batch, 4, generator=generator).softmax(dim=1)
    return Mixture(weights, torch.rand(batch, 4, generator=generator), torch.full((batch, 4), 0.05))


def test_mixed_precision_keeps_the_mixture_exact(network):
    inputs = _inputs(2)
    full = _round(network, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        images, coords, labels, previous, responsibilities = inputs
        prompts = network.prompts(coords, labels, previous)
        mixture = network.mixture(prompts.sparse, responsibilities)
        half = network.decode(network.encode(images), network.latents(mixture, 1), prompts)
    assert mixture.means.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1)
    half.float().square().mean().backward()
    network.zero_grad()
