"""What the policies make of observations: shapes, order of names, the right row of a table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.game.arena import observation_space
from spars.lattice import Lattice
from spars.models.agent import CnnFeatures, MlpFeatures, TableFeatures, policy_keys


def observations(space, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.rand(n, *part.shape) for name, part in space.spaces.items()}


@pytest.mark.parametrize("memory", [0, 2])
@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (2, 6, 5, 3), (2, 1, 1, 1)])
@pytest.mark.parametrize("kind", [MlpFeatures, CnnFeatures])
def test_features_of_any_view(kind, shape, memory) -> None:
    space = observation_space(shape, memory)
    features = kind(space, 12)
    seen = observations(space, 3)
    found = features(seen)
    assert found.shape == (3, 12)
    assert features.features_dim == 12
    backwards = {name: seen[name] for name in reversed(list(seen))}
    assert torch.equal(features(backwards), found)
    torch.testing.assert_close(features({k: v[1:2] for k, v in seen.items()}), found[1:2])


@pytest.mark.parametrize("kind", [MlpFeatures, CnnFeatures])
def test_every_part_of_an_observation_counts(kind) -> None:
    space = observation_space((2, 4, 4, 4), 1)
    torch.manual_seed(0)
    features = kind(space, 32)
    seen = {name: part.requires_grad_() for name, part in observations(space, 4).items()}
    features(seen).sum().backward()
    for name, part in seen.items():
        assert part.grad is not None
        assert part.grad.abs().sum() > 0, name


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 45)), st.integers(0, 2**31))
def test_the_table_finds_the_row_of_a_place(shape, seed) -> None:
    """Also on axes with one place, where positions are the middle."""
    lattice = Lattice(tuple(n + 3 for n in shape), (4, 4, 4), 1)  # type: ignore[arg-type]
    assert lattice.shape == shape
    flat = np.random.default_rng(seed).integers(0, len(lattice), 20)
    span = np.array(shape) - 1
    position = np.where(span > 0, lattice.unflat(flat) / np.maximum(span, 1), 0.5).astype(np.float32)
    table = TableFeatures(observation_space((1, 4, 4, 4), 0), shape, 2)
    found = table({"position": torch.from_numpy(position)})
    assert torch.equal(found, table.rows.weight[torch.from_numpy(flat)])


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(KeyError):
        policy_keys("rnn", Lattice((8, 8, 8), (4, 4, 4)))
