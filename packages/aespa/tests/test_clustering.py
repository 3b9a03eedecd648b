"""Clusters of samples: golden, scikit-learn from the same start, and the awkward cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from aespa.clicks import NO_CLICK
from aespa.clustering import choose_cluster, kmeans, selection_clicks


@pytest.fixture(scope="module")
def golden(golden_npz):
    return golden_npz("spa_select")


def partition(labels) -> set[frozenset[int]]:
    """Clusters as sets: numbers of clusters mean nothing."""
    values = np.asarray(labels)
    return {frozenset(np.flatnonzero(values == label).tolist()) for label in np.unique(values)}


def test_golden_choice_of_a_whole_batch(golden):
    samples = torch.from_numpy(golden["predictions"]).transpose(0, 1).flatten(2)  # [B, N, D]
    mask = torch.from_numpy(golden["mask"]).flatten(1)
    choice = choose_cluster(samples, mask, 4, joint=True)
    for members in choice.members:
        assert torch.nonzero(members)[:, 0].tolist() == golden["target_members"].tolist()
    np.testing.assert_allclose(choice.select, golden["select_mean"].reshape(2, -1), atol=1e-5)
    np.testing.assert_allclose(choice.exclude, golden["exclude_mean"].reshape(2, -1), atol=1e-5)
    joined = samples.transpose(0, 1).reshape(16, -1)
    clusters = kmeans(joined, 4)
    assert partition(clusters.labels[0]) == partition(golden["true_partition"])
    assert float(clusters.inertia) == pytest.approx(float(golden["inertia"]), abs=1e-4)


def test_golden_candidates_of_the_click(golden):
    select, exclude = (torch.from_numpy(golden[f"{name}_mean"][:, 0]) for name in ("select", "exclude"))
    target = torch.from_numpy(golden["mask"][:, 0]).float()
    found = [set(), set()]
    for index in range(20):
        clicks = selection_clicks(select, exclude, target, pixel=torch.full((2,), (index + 0.5) / 20))
        for b, (x, y) in enumerate(clicks.coords.long().tolist()):
            found[b].add(y * 16 + x)
            assert clicks.labels[b] == target[b, y, x]
    assert found == [set(row.tolist()) for row in golden["candidates_flat"]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(6, 20))
def test_equals_scikit_learn_from_the_same_start(seed, k, n):
    samples = torch.from_numpy(np.random.default_rng(seed).random((3, n, 30)))
    clusters = kmeans(samples, k, torch.Generator().manual_seed(seed))
    for b in range(3):
        x = samples[b].numpy()
        oracle = KMeans(k, init=x[clusters.initial[b].numpy()], n_init=1, tol=0).fit(x)
        assert partition(clusters.labels[b]) == partition(oracle.labels_)
        assert float(clusters.inertia[b]) == pytest.approx(oracle.inertia_, rel=1e-9, abs=1e-9)
    assert (clusters.sizes.sum(dim=1) == n).all()
    assert (clusters.sizes > 0).all()


def test_the_start_is_as_good_as_scikit_learns():
    rng = np.random.default_rng(0)
    centres = rng.random((5, 40)) * 4
    ours, theirs = [], []
    for seed in range(20):
        x = centres[rng.integers(0, 5, 48)] + rng.normal(0, 0.3, (48, 40))
        ours.append(float(kmeans(torch.from_numpy(x), 5, torch.Generator().manual_seed(seed)).inertia))
        theirs.append(KMeans(5, n_init=1, random_state=seed).fit(x).inertia_)
    assert np.mean(ours) < 1.05 * np.mean(theirs)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 4]))
def test_small_maps_have_the_clusters_of_maps_enlarged_by_nearest_neighbour(seed, factor):
    small = torch.from_numpy(np.random.default_rng(seed).random((2, 12, 6, 6)))
    large = small.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    left, right = kmeans(small.flatten(2), 3), kmeans(large.flatten(2), 3)
    assert torch.equal(left.labels, right.labels)
    np.testing.assert_allclose(left.inertia * factor**2, right.inertia, rtol=1e-5, atol=1e-6)


def test_images_of_a_batch_are_clustered_one_by_one():
    samples = torch.from_numpy(np.random.default_rng(0).random((4, 16, 25))).float()
    mask = (torch.from_numpy(np.random.default_rng(1).random((4, 25))) < 0.5).float()
    together = choose_cluster(samples, mask, 4, clusters=kmeans(samples, 4))
    for b in range(4):
        clusters = kmeans(samples[b : b + 1], 4, initial=kmeans(samples, 4).initial[b : b + 1])
        alone = choose_cluster(samples[b : b + 1], mask[b : b + 1], 4, clusters=clusters)
        assert torch.equal(together.members[b], alone.members[0])
        x, labels = samples[b].numpy(), clusters.labels[0].numpy()
        distances = [((x[labels == c].mean(axis=0) - mask[b].numpy()) ** 2).sum() for c in range(4)]
        assert together.members[b].tolist() == (labels == int(np.argmin(distances))).tolist()
        np.testing.assert_allclose(together.select[b], x[together.members[b]].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(together.exclude[b], x[~together.members[b]].mean(axis=0), atol=1e-6)
    joint = choose_cluster(samples, mask, 4, joint=True)
    assert (joint.members == joint.members[0]).all()


def test_without_an_alternative_there_is_no_click():
    one = torch.ones(2, 8, 16) * torch.tensor([0.2, 0.7])[:, None, None]
    one[1, 3:] = 0.1  # the second image has two kinds of samples
    mask = torch.zeros(2, 16)
    for k in (1, 2, 3):
        choice = choose_cluster(one, mask, k)
        assert choice.has_alternative.tolist() == [False, k > 1]
        assert torch.isfinite(choice.select).all()
        assert torch.isfinite(choice.exclude).all()
        np.testing.assert_allclose(choice.select[0], choice.exclude[0], rtol=1e-5, atol=1e-6)
    clicks = selection_clicks(
        choice.select.view(2, 4, 4), choice.exclude.view(2, 4, 4), torch.ones(2, 4, 4), choice.has_alternative
    )
    assert clicks.labels.tolist() == [NO_CLICK, 1]
    assert clicks.coords[0].tolist() == [0, 0]


def test_a_cluster_that_lost_its_samples_gets_the_farthest_one():
    x = torch.tensor([[0.0], [0.1], [0.2], [10.0], [10.1], [30.0]])
    clusters = kmeans(x, 3, initial=torch.tensor([[0, 0, 0]]))  # two of three centres start without samples
    assert partition(clusters.labels[0]) == {frozenset({0, 1, 2}), frozenset({3, 4}), frozenset({5})}
    same = kmeans(torch.zeros(5, 3), 3)  # nothing to divide
    assert sorted(same.sizes[0].tolist()) == [0, 0, 5]
    assert float(same.inertia) == 0


def test_every_sample_may_be_its_own_cluster_but_no_more():
    x = torch.eye(4)
    assert kmeans(x, 4).sizes.tolist() == [[1, 1, 1, 1]]
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"number of samples, 4, found {k}"):
            kmeans(x, k)
    with pytest.raises(ValueError, match=r"mask must be \[2, 9\]"):
        choose_cluster(torch.zeros(2, 4, 9), torch.zeros(2, 8), 2)


@pytest.mark.parametrize("enlarge", ["bilinear", "nearest"])
def test_click_between_small_maps_lies_where_they_differ(enlarge):
    select, exclude = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    select[0, 5, 2] = 1.0
    target = torch.zeros(1, 32, 32)
    target[0, 20:24, 8:12] = 1
    for index in range(16):
        clicks = selection_clicks(
            select, exclude, target, candidates=16, enlarge=enlarge, pixel=torch.tensor([(index + 0.5) / 16])
        )
        x, y = clicks.coords[0].tolist()
        assert 8 <= x < 12
        assert 20 <= y < 24
        assert clicks.labels.tolist() == [1]
    first, second = (
        selection_clicks(select, exclude, target, generator=torch.Generator().manual_seed(i)) for i in (0, 0)
    )
    assert torch.equal(first.coords, second.coords)
