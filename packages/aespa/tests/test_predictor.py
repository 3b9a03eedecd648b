"""Interactive segmentation in the image's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from aespa.errors import DataError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.predictor import AespaPredictor, Box, Choice, Click

S = 32
H, W = 45, 70


@pytest.fixture(scope="module")
def network():
    return build_network(Architecture(encoder="tiny", image_size=S, n_components=4)).eval()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W), dtype=np.uint8)


@pytest.fixture
def predictor(network, image) -> AespaPredictor:
    made = AespaPredictor(network, n_samples=6)
    made.set_image(image)
    return made


def same(left, right) -> bool:
    names = ("mask", "probability", "entropy", "logits")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)


def test_answers_have_the_images_own_resolution(predictor):
    found = predictor.predict()
    assert predictor.shape == (H, W)
    assert found.mask.shape == found.probability.shape == found.entropy.shape == (H, W)
    assert (found.mask.dtype, found.probability.dtype, found.entropy.dtype) == (bool, np.float32, np.float32)
    assert found.logits.shape == (16, 16)
    np.testing.assert_array_equal(found.mask, found.probability > 0.5)
    bits = entropy([found.probability, 1 - found.probability.astype(float)], base=2)
    np.testing.assert_allclose(found.entropy, bits, atol=1e-5)
    for proposal in predictor.proposals(3):
        assert proposal.mask.shape == (H, W)
        assert proposal.mask.dtype == bool


@pytest.mark.parametrize("shape", [(S, S), (S, 2 * S), (1, 200), (301, 7)])
def test_any_size_of_image(shape, network):
    made = AespaPredictor(network)
    made.set_image(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    made.click(shape[1] - 1, shape[0] - 1, 0)
    assert made.predict().mask.shape == shape


def test_the_image_is_embedded_once(network, image, monkeypatch):
    calls = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda images: (calls.append(images), encode(images))[1])
    made = AespaPredictor(network, n_samples=4)
    made.set_image(image)
    for i in range(3):
        made.click(i, i, 1)
        made.predict()
        made.proposals(2)
    made.undo()
    made.reset()
    made.predict()
    assert len(calls) == 1
    assert calls[0].shape == (1, 3, S, S)
    assert calls[0].max() <= 1
    made.set_image(image)
    assert len(calls) == 2


def test_clicks_are_brought_to_the_networks_pixels(network):
    made = AespaPredictor(network)
    for height, width in ((S, S), (2 * S, S), (S // 2, 4 * S)):
        made.set_image(np.zeros((height, width), np.uint8))
        made.click(5, 7, 1)
        x, y = made._dialogue.step.knowledge.coords[0, 0].tolist()
        # The same share of the image lies left of and above the pixel's centre.
        assert ((x + 0.5) / S, (y + 0.5) / S) == pytest.approx(((5 + 0.5) / width, (7 + 0.5) / height))
    made.box(20, 9, 3, 2)
    corners = made._dialogue.step.box[0].tolist()
    assert corners == pytest.approx(
        [
            (3.5 / width) * S - 0.5,
            (2.5 / height) * S - 0.5,
            (20.5 / width) * S - 0.5,
            (9.5 / height) * S - 0.5,
        ]
    )


def test_interactions_are_remembered_and_taken_back_bit_by_bit(predictor, network, image):
    start = predictor.predict()
    predictor.click(3, 4, 1)
    once = predictor.predict()
    assert not same(start, once)
    predictor.choose(1, k=2)
    predictor.box(1, 2, 30, 31)
    predictor.click(40, 20, 0)
    assert predictor.interactions == [Click(3, 4, 1), Choice(1, 2), Box(1, 2, 30, 31), Click(40, 20, 0)]
    assert predictor.clicks == [Click(3, 4, 1), Click(40, 20, 0)]
    last = predictor.predict()
    assert [predictor.undo() for _ in range(3)] == [True] * 3
    assert same(predictor.predict(), once)
    assert predictor.can_undo
    assert predictor.can_redo
    fresh = AespaPredictor(network, n_samples=6)
    fresh.set_image(image)
    fresh.click(3, 4, 1)
    assert same(fresh.predict(), once)
    for left, right in zip(fresh.proposals(3), predictor.proposals(3), strict=True):
        assert left.share == right.share
        np.testing.assert_array_equal(left.mask, right.mask)
    assert [predictor.redo() for _ in range(4)] == [True] * 3 + [False]
    assert same(predictor.predict(), last)
    predictor.reset()
    assert same(predictor.predict(), start)
    assert not predictor.undo()
    assert predictor.interactions == []


def test_predictors_share_a_network_and_nothing_else(network):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 40, 50), dtype=np.uint8)
    clicks = [[(1, 2, 1), (30, 20, 0), (5, 5, 1)], [(40, 30, 0), (2, 39, 1), (9, 9, 0)]]
    alone = []
    for image, mine in zip(images, clicks, strict=True):
        one = AespaPredictor(network, mode="SPA", n_samples=4)
        one.set_image(image)
        for click in mine:
            one.click(*click)
        alone.append(one.predict())
    both = [AespaPredictor(network, mode="SPA", n_samples=4) for _ in range(2)]
    for predictor, image in zip(both, images, strict=True):
        predictor.set_image(image)
    for turn in range(3):
        for predictor, mine in zip(both, clicks, strict=True):
            predictor.click(*mine[turn])
            predictor.proposals(2)
    both[0].undo()
    both[1].predict()
    both[0].redo()
    for predictor, expected in zip(both, alone, strict=True):
        assert same(predictor.predict(), expected)
    assert both[0].clicks != both[1].clicks


def test_entropy_of_spa_is_that_of_the_samples_mean(network):
    made = AespaPredictor(network, mode="SPA", n_samples=5)
    made.set_image(np.random.default_rng(0).integers(0, 256, (S, S), dtype=np.uint8))
    made.click(4, 4, 1)
    logits = made._dialogue.said().logits[:, 0, 0]
    with torch.no_grad():
        each = torch.sigmoid(network.upsample(logits)).numpy()
        recommended = torch.sigmoid(network.upsample(logits.mean(dim=0))).numpy()
    found = made.predict()
    mean = each.mean(axis=0, dtype=float)
    np.testing.assert_allclose(found.entropy, entropy([mean, 1 - mean], base=2), atol=1e-5)
    np.testing.assert_allclose(found.probability, recommended, atol=1e-6)


def test_another_seed_draws_other_samples_and_the_mean_stays(network, image):
    results = []
    for seed in (0, 0, 1):
        made = AespaPredictor(network, n_samples=8, seed=seed)
        made.set_image(image)
        results.append((made.predict(), made._dialogue.samples().logits))
    assert same(results[0][0], results[2][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])


def test_plain_sam_has_one_proposal(image):
    plain = build_network(Architecture(encoder="tiny", image_size=S, preferences=False))
    made = AespaPredictor(plain, device="cpu", mode="SPA")
    assert made.mode == "SAM"
    assert not plain.training
    made.set_image(image)
    (only,) = made.proposals(4)
    assert only.share == 1
    np.testing.assert_array_equal(only.mask, made.predict().mask)


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (W, 0), (0, H)])
def test_clicks_outside_of_the_image_name_its_size(place, predictor):
    with pytest.raises(DataError, match=f"outside of the image of {W} x {H} pixels"):
        predictor.click(*place, 1)
    with pytest.raises(DataError, match=f"outside of the image of {W} x {H} pixels"):
        predictor.box(1, 1, *place)
    assert predictor.interactions == []


def test_other_mistakes_are_named(predictor, network):
    with pytest.raises(DataError, match=r"1 \(inside\) or 0"):
        predictor.click(1, 1, 2)
    with pytest.raises(DataError, match="whole pixel"):
        predictor.click(1.5, 1, 1)
    with pytest.raises(DataError, match="number of samples, 6; found 7"):
        predictor.proposals(7)
    with pytest.raises(DataError, match="there are 2 proposals, 0 to 1; found 2"):
        predictor.choose(2, k=2)
    with pytest.raises(DataError, match="found uint16"):
        predictor.set_image(np.zeros((4, 4), np.uint16))
    with pytest.raises(ValueError, match="n_samples"):
        AespaPredictor(network, n_samples=0)
    new = AespaPredictor(network)
    for act in (
        new.predict,
        new.undo,
        new.reset,
        new.proposals,
        lambda: new.click(0, 0, 1),
        lambda: new.shape,
    ):
        with pytest.raises(DataError, match="set_image first"):
            act()
    assert new.interactions == []
    assert not new.can_undo
    assert not new.can_redo
