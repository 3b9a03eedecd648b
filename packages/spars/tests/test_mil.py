"""Pooling of window scores, and training that never looks at a voxel label."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spars.classifier_data import ClassifierData
from spars.config import ClassifierConfig
from spars.data.grid import GridCase, GridSource
from spars.errors import DataError
from spars.mil import WARM_STEPS, BagTask, pool_logits

CPU = torch.device("cpu")
POOLINGS = ("max", "top-k", "noisy-or", "lse")
logits = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(0, 10**6)).map(
    lambda drawn: torch.from_numpy(3 * np.random.default_rng(drawn[2]).standard_normal(drawn[:2]))
)


@settings(max_examples=40, deadline=None)
@given(logits, st.integers(1, 5))
def test_pooling_equals_its_formula(z, k):
    p = z.sigmoid().numpy()
    ordered = -np.sort(-z.numpy(), axis=1)
    expected = {
        "max": p.max(1),
        "top-k": 1 / (1 + np.exp(-ordered[:, :k].mean(1))),
        "noisy-or": 1 - np.prod(1 - p, axis=1),
        "lse": 1 / (1 + np.exp(-np.log(np.exp(4 * z.numpy()).mean(1)) / 4)),
    }
    for pooling in POOLINGS:
        np.testing.assert_allclose(pool_logits(z, pooling, k).sigmoid(), expected[pooling], rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(logits, st.sampled_from(POOLINGS))
def test_order_does_not_matter_and_higher_scores_never_lower_the_volume(z, pooling):
    shuffled = z[:, torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(pool_logits(shuffled, pooling), pool_logits(z, pooling))
    higher = z.clone()
    higher[:, 0] += 1
    assert (pool_logits(higher, pooling) >= pool_logits(z, pooling) - 1e-12).all()


def test_extreme_scores_stay_finite():
    for value in (-200.0, 200.0):
        z = torch.full((1, 4), value, requires_grad=True)
        for pooling in POOLINGS:
            pooled = pool_logits(z, pooling)
            assert torch.isfinite(pooled).all()
            assert (torch.autograd.grad(pooled.sum(), z)[0]).isfinite().all()
            assert (pooled > 0).item() == (value > 0)
    with pytest.raises(ValueError, match="pooling must be"):
        pool_logits(torch.zeros(1, 1), "mean")  # type: ignore[arg-type]


class Brightest(nn.Module):
    """Says the windows' maximum, minus a half."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 8.0))
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        z = self.scale * (x.amax((1, 2, 3, 4)) - 0.5)
        return torch.stack([-z, z], 1)


def case(k: int, bright: float) -> GridCase:
    image = np.random.default_rng(k).uniform(0.1, 0.3, (8, 8, 8)).astype(np.float32)
    image[k % 8] = bright
    source = GridSource(np.array([[0, 1], [1, 1], [2, 1]]), np.eye(4), image.shape, image.shape, (0, 0, 0))
    # Voxel labels that would be an error, were they looked at.
    return GridCase(f"c_{k}", image, np.full((8, 8, 8), 9, np.uint8), (1, 1, 1), source)


def config(**keys) -> ClassifierConfig:
    sizes = {"full_image_size": (8, 8, 8), "crop_size": (3, 3, 3), "label_source": "csv"}
    return ClassifierConfig(**{**sizes, "batch_size": 4, "mil_crops": 16, "mil_top_k": 2, **keys}).resolved()


DATA = ClassifierData([case(k, 0.9 if k < 6 else 0.2) for k in range(8)], [case(8, 0.9), case(9, 0.2)])
LABELS = {f"c_{k}": int(k < 6 or k == 8) for k in range(10)}


def test_half_of_a_batch_has_tumour_and_the_right_scorer_wins():
    task, network = BagTask(DATA, LABELS, config()), Brightest()
    assert task.n_batches == 2
    loss, right, n = task.loss(network, WARM_STEPS, 0, CPU)
    assert (right, n) == (4, 4)
    assert loss < 0.1
    bags = network.seen[0].reshape(4, 16, -1)
    assert (bags.amax((1, 2)) > 0.5).tolist() == [True, True, False, False]
    assert task.loss(network, WARM_STEPS, 0, CPU)[0] == loss
    first = task.validate(network)
    assert first == task.validate(network)
    assert first["auc"] == first["accuracy"] == 1
    with torch.no_grad():
        network.scale.zero_()
    assert task.validate(network)["auc"] == 0.5


def test_at_first_every_window_carries_its_volumes_label():
    task, network = BagTask(DATA, LABELS, config()), Brightest()
    at_first = task.loss(network, 0, 0, CPU)[0]
    z = (2 * network.scale * (network.seen[0].amax((1, 2, 3, 4)) - 0.5)).detach()
    targets = torch.tensor([1.0, 1, 0, 0]).repeat_interleave(16)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, targets)
    torch.testing.assert_close(at_first.detach(), expected)
    # Halfway between the two losses after half of the warm-up.
    half = WARM_STEPS // 2 // task.n_batches
    found = task.loss(network, half, 0, CPU)[0].detach()
    z = (2 * network.scale * (network.seen[-1].amax((1, 2, 3, 4)) - 0.5)).detach()
    single = torch.nn.functional.binary_cross_entropy_with_logits(z, targets)
    pooled = torch.nn.functional.binary_cross_entropy_with_logits(
        pool_logits(z.reshape(4, 16), "top-k", 2), targets[::16]
    )
    torch.testing.assert_close(found, (single + pooled) / 2)


def test_one_class_is_an_error_in_training_and_a_warning_in_validation(caplog):
    for label, name in ((1, "without"), (0, "with")):
        with pytest.raises(DataError, match=f"no training case {name} tumour among 8"):
            BagTask(DATA, dict.fromkeys(LABELS, label), config())
    with caplog.at_level(logging.WARNING):
        task = BagTask(DATA, LABELS | {"c_9": 1}, config())
    assert "all of one class" in caplog.text
    assert task.validate(Brightest())["auc"] is None
    with pytest.raises(DataError, match="negative_region: liver needs voxel labels"):
        BagTask(DATA, LABELS, config(negative_region="liver"))
