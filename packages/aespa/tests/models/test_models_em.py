"""The mixture's networks and responsibilities, against numbers of the original and against their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aespa.models.em import EMMeanVariance, EMWeights, Mixture, responsibilities


@pytest.fixture
def golden(golden_npz):
    return golden_npz("em")


def _close(ours, theirs, atol=1e-5):
    torch.testing.assert_close(ours, torch.as_tensor(theirs).to(ours.dtype), rtol=0, atol=atol)


def _norms(module, names, expected):
    own = dict(module.named_parameters())
    for name, value in zip(names, expected, strict=True):
        assert float(own[str(name)].grad.norm()) == pytest.approx(value, rel=1e-3, abs=1e-9), name


def _fresh(module):
    for parameter in module.parameters():
        parameter.grad = None
    return module


def test_golden_weights(golden_network, golden):
    module = _fresh(golden_network.EM_weights)
    given = torch.from_numpy(golden["em_weights_in"]).requires_grad_()
    out = module(given)
    _close(out, golden["em_weights_out"])
    loss = (out - torch.from_numpy(golden["em_weights_target"])).square().mean()
    loss.backward()
    _close(loss, golden["em_weights_mse"])
    torch.testing.assert_close(
        given.grad, torch.from_numpy(golden["em_weights_grad_in"]), rtol=1e-3, atol=1e-8
    )
    _norms(module, golden["em_weights_grad_names"], golden["em_weights_grad_l2"])
    _fresh(module)


def test_golden_means_and_variances(golden_network, golden):
    module = _fresh(golden_network.EM_mean_variance)
    sparse = torch.from_numpy(golden["sparse"]).requires_grad_()
    places = golden_network.prompt_encoder.dense_positions()
    means, variances = module(sparse, places)
    _close(means, golden["emv_means_per_image"])
    _close(variances, golden["emv_variances_per_image"])
    means, variances = means.mean(dim=0), variances.mean(dim=0)
    _close(means, golden["emv_means"])
    _close(variances, golden["emv_variances"])
    (means.sum() + variances.square().sum()).backward()
    assert float(sparse.grad.norm()) == pytest.approx(float(golden["emv_grad_sparse_l2"]), rel=1e-3)
    _norms(module, golden["emv_grad_names"], golden["emv_grad_l2"])
    _fresh(module)


def _mixture(golden, weights="cw_weights", means="cw_means", variances="cw_variances"):
    return Mixture(*(torch.from_numpy(golden[name])[None] for name in (weights, means, variances)))


def test_golden_responsibilities(golden):
    maps = torch.from_numpy(golden["maps"]).flatten(1)
    mixture = Mixture(*(each.expand(2, -1) for each in _mixture(golden)))
    for rule in ("log", "original"):
        found = responsibilities(maps, mixture, rule)
        for image in range(2):
            _close(found[image], golden[f"cw_out_map{image}"])
            _close(found[image].double(), golden[f"cw_float64_map{image}"])


@pytest.mark.parametrize(
    ("case", "columns"),
    [
        ("far", {"means": "far_means", "variances": "far_variances"}),
        ("tiny", {"variances": "tiny_variances"}),
    ],
)
def test_golden_underflow(case, columns, golden):
    maps = torch.from_numpy(golden["maps"]).flatten(1)[:1]
    mixture = _mixture(golden, **columns)
    original, corrected = (responsibilities(maps, mixture, rule)[0] for rule in ("original", "log"))
    _close(original, golden[f"cw_out_{case}"])
    _close(corrected.double(), golden[f"cw_corrected_{case}"])
    assert float(original.sum()) < 0.999
    assert float(corrected.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rule", ["log", "original"])
def test_golden_gradients(rule, golden):
    mixture = _mixture(golden)
    means, variances = mixture.means.clone().requires_grad_(), mixture.variances.clone().requires_grad_()
    maps = torch.from_numpy(golden["maps"]).flatten(1)[:1]
    out = responsibilities(maps, Mixture(mixture.weights, means, variances), rule)
    (out[0] * torch.from_numpy(golden["grad_probe"])).sum().backward()
    for name, found in (("means", means.grad), ("variances", variances.grad)):
        expected = torch.from_numpy(golden[f"grad_{name}"])
        torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-6)


def _definition(values, weights, means, variances):
    normal = torch.distributions.Normal(means, variances.sqrt())
    log = weights.log() + normal.log_prob(values[:, None])
    return (log - log.logsumexp(dim=1, keepdim=True)).exp().mean(dim=0)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), n=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_equals_the_posterior_of_a_mixture(seed, k, n):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n, generator=generator)
    weights = torch.rand(k, generator=generator) + 0.05
    weights, means = weights / weights.sum(), 3 * torch.randn(k, generator=generator)
    variances = torch.rand(k, generator=generator) + 0.02
    expected = _definition(*(each.double() for each in (values, weights, means, variances)))
    found = responsibilities(values[None], Mixture(weights[None], means[None], variances[None]))[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rule", ["log", "original"])
def test_counts_stand_for_repeated_values(rule, golden):
    mixture = Mixture(*(each.expand(2, -1) for each in _mixture(golden)))
    values, counts = torch.tensor([[0.0, 0.5, 1.0]]).expand(2, -1), torch.tensor([[2, 0, 5], [1, 3, 1]])
    found = responsibilities(values, mixture, rule, counts)
    for image in range(2):
        every = values[image].repeat_interleave(counts[image])[None]
        single = Mixture(*(each[:1] for each in mixture))
        torch.testing.assert_close(found[image], responsibilities(every, single, rule)[0])


@pytest.mark.parametrize("rule", ["log", "original"])
def test_a_component_without_weight_answers_for_nothing(rule):
    mixture = Mixture(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.4]]), torch.tensor([[0.1, 0.1]]))
    found = responsibilities(torch.rand(1, 9), mixture, rule)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0]]))


def test_only_the_relu_has_a_dead_zone():
    sparse, places = torch.randn(3, 2, 256), torch.randn(1, 256, 4, 4)
    for variance, at_floor in (("relu", True), ("softplus", False)):
        module = EMMeanVariance(4, variance)
        torch.nn.init.constant_(module.fc3.bias, -2.0)
        torch.nn.init.zeros_(module.fc3.weight)
        _, variances = module(sparse, places)
        variances.sum().backward()
        assert bool((variances == 1e-6).all()) is at_floor
        assert bool((module.fc3.bias.grad[4:] == 0).all()) is at_floor


def test_mixture_weights_are_refined_in_single_precision():
    em = EMWeights(4)
    given = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    with torch.autocast("cpu", torch.bfloat16):
        half = em(given.bfloat16().float())
    assert half.dtype == torch.float32
    assert torch.equal(half, em(given.bfloat16().float()))
