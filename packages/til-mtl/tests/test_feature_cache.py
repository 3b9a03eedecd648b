"""Cached features: the same training as without, whatever keeps them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from til_mtl.config import Config
from til_mtl.data.loading import to_tensor
from til_mtl.errors import TrainingError
from til_mtl.feature_cache import GROUP, FeatureCache
from til_mtl.losses import tissue_loss
from til_mtl.models.deeplab import MultiTaskDeepLabv3Plus, SingleTaskDeepLabv3Plus, TilNetwork
from til_mtl.models.encoder import Features

N = 11
SMALL = "mobilenetv3_small_050"


class _Store:
    """Random patches that count how often each is read."""

    def __init__(self) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
        self.reads = np.zeros(N, dtype=int)

    def __len__(self) -> int:
        return N

    def images(self, indices: np.ndarray) -> np.ndarray:
        self.reads[indices] += 1
        return self.pixels[indices]


@pytest.fixture
def store() -> _Store:
    return _Store()


@pytest.fixture(scope="module")
def network() -> TilNetwork:
    torch.manual_seed(0)
    return SingleTaskDeepLabv3Plus(encoder=SMALL)


def _config(**values) -> Config:
    return Config(cache_features=True, encoder=SMALL, **values)


@pytest.mark.parametrize("normalize", ["none", "lunit"])
def test_features_are_those_of_the_encoder_and_computed_once(normalize, store, network):
    cache = FeatureCache(network, store, _config(normalize=normalize))
    for indices in ([3, 0, 9], [9, 10, 3], [3, 3]):
        found = cache.get(np.array(indices))
        with torch.no_grad():
            expected = network.encode(to_tensor(store.pixels[indices], normalize))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert store.reads.tolist() == [1] * N


def test_numbers_do_not_depend_on_the_order_of_requests(store, network):
    first, second = (FeatureCache(network, store, _config()) for _ in range(2))
    for index in range(N):
        first.get([index])
    second.get(np.arange(N)[::-1].copy())
    for one, other in zip(first.get(range(N)), second.get(range(N)), strict=True):
        assert torch.equal(one, other)
    assert N > GROUP


def test_disk_and_memory_agree_and_the_disk_is_cleared(store, network, tmp_path):
    memory = FeatureCache(network, store, _config())
    disk = FeatureCache(network, store, _config(cache="disk", cache_dir=tmp_path))
    for one, other in zip(memory.get([1, 10]), disk.get([1, 10]), strict=True):
        assert torch.equal(one, other)
    names = sorted(path.name for path in tmp_path.glob("features-*/*"))
    assert names == ["c2.npy", "c3.npy"]
    assert disk._folder is not None
    disk._folder.cleanup()
    assert not list(tmp_path.iterdir())


def test_half_precision_is_close_and_refuses_what_it_cannot_hold(store, network):
    full, half = FeatureCache(network, store, _config()), FeatureCache(network, store, _config(), half=True)
    for one, other in zip(full.get([0, 4]), half.get([0, 4]), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=5e-4, atol=1e-6)

    loud = copy.deepcopy(network)
    loud.encode = lambda x: type(full.get([0]))(*(1e6 * each for each in network.encode(x)))  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="does not fit float16; keep float32 features"):
        FeatureCache(loud, store, _config(), half=True).get([0])


@pytest.mark.parametrize(
    "options", [{"freeze_until": "layer2"}, {"freeze_until": None}, {"freeze_bn": False}]
)
def test_an_encoder_that_changes_is_refused(options, store):
    with pytest.raises(TrainingError, match="freeze_until: layer3 and freeze_bn: true"):
        FeatureCache(SingleTaskDeepLabv3Plus(encoder=SMALL, **options), store, _config())


def _train(network: TilNetwork, store: _Store, cache: FeatureCache | None) -> list[float]:
    optimiser = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-3
    )
    labels = torch.from_numpy(store.pixels[..., 0] % 3).long()
    losses = []
    for indices in ([0, 5, 8], [9, 2, 5], [0, 9, 10]):
        features = network.encode(to_tensor(store.pixels[indices])) if cache is None else cache.get(indices)
        seg = network.train().decode(features, (32, 32)).seg
        assert seg is not None
        terms = tissue_loss(seg, labels[indices])
        assert terms is not None
        optimiser.zero_grad()
        terms.loss.backward()
        optimiser.step()
        losses.append(terms.loss.item())
    return losses


def test_training_with_cached_features_equals_training_without(store):
    """ResNet-50 in float32; the encoder sees groups of eight instead of batches of three, so rounding may differ."""
    torch.manual_seed(1)
    plain = MultiTaskDeepLabv3Plus()
    cached = copy.deepcopy(plain)
    first = _train(plain, store, None)
    second = _train(cached, store, FeatureCache(cached, store, Config(cache_features=True)))
    assert second[0] == pytest.approx(first[0], rel=1e-6)
    # Adam amplifies rounding where gradients are almost zero.
    assert second == pytest.approx(first, rel=1e-3)


def test_features_change_their_layout_and_not_their_values():
    features = Features(torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2))
    moved = features.channels_last()
    for before, after in zip(features, moved, strict=True):
        assert after.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(before, after)
