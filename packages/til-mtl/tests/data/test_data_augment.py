"""Augmentation: masks and points move with the pixels; the draw depends on the patch, not on its batch."""

import numpy as np
import pytest

from til_mtl.data.augment import Augmentation, jitter_stains


@pytest.fixture
def patches():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 12, 12, 3)).astype(np.uint8)
    return images, images[..., 0] // 86


def test_none_changes_nothing(patches):
    images, masks = Augmentation("none").apply(*patches, 0, 0, range(40))
    assert images is patches[0]
    assert masks is patches[1]


@pytest.mark.parametrize("kind", ["d4", "d4+stain"])
def test_a_patch_changes_alike_in_whatever_batch(patches, kind):
    augmentation = Augmentation(kind)
    whole = augmentation.apply(*patches, 5, 2, range(40))
    some = np.array([31, 4, 17])
    part = augmentation.apply(patches[0][some], patches[1][some], 5, 2, some)
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[some], b)
    other_epoch = augmentation.apply(*patches, 5, 3, range(40))
    assert not np.array_equal(other_epoch[0], whole[0])


def test_masks_turn_with_their_images_and_all_symmetries_occur(patches):
    images, masks = Augmentation("d4").apply(*patches, 0, 0, range(40))
    assert np.array_equal(images[..., 0] // 86, masks)
    same = np.zeros((40, *patches[0].shape[1:]), np.uint8) + patches[0][:1]
    turned, _ = Augmentation("d4").apply(same, patches[1], 0, 0, range(40))
    assert len({each.tobytes() for each in turned}) == 8


def test_rectangles_keep_their_shape():
    images = np.random.default_rng(1).integers(0, 256, (30, 6, 10, 3)).astype(np.uint8)
    images[:] = images[:1]
    turned, _ = Augmentation("d4").apply(images, images[..., 0], 0, 0, range(30))
    assert turned.shape == images.shape
    assert len({each.tobytes() for each in turned}) == 4


@pytest.mark.parametrize("shape", [(9, 9), (6, 10)])
def test_points_move_with_their_pixels(shape):
    augmentation = Augmentation("d4")
    masks = np.zeros((30, *shape), np.uint8)
    masks[:, 1, 4] = 1
    images = np.repeat(masks[..., None], 3, axis=3)
    _, moved = augmentation.apply(images, masks, 0, 1, range(30))
    size = (shape[1], shape[0])
    for index in range(30):
        point = augmentation.apply_to_points(np.array([[4.5, 1.5]]), size, 0, 1, index)[0]
        assert moved[index][int(point[1]), int(point[0])] == 1


def test_stains_scale_and_identity_changes_nothing(patches):
    images = patches[0]
    ones, zeros = np.ones((40, 2)), np.zeros((40, 2))
    assert np.array_equal(jitter_stains(images, ones, zeros), images)
    # Haematoxylin alone, in increasing amounts: doubling the amount doubles the optical density.
    vector = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    pure = np.rint(256 * np.exp(-0.4 * vector) - 1).astype(np.uint8).reshape(1, 1, 1, 3)
    darker = jitter_stains(pure, np.array([[2.0, 1.0]]), np.zeros((1, 2)))
    assert np.abs(darker[0, 0, 0] - (256 * np.exp(-0.8 * vector) - 1)).max() < 2
    more_eosin = jitter_stains(pure, np.array([[1.0, 2.0]]), np.zeros((1, 2)))
    assert np.abs(more_eosin.astype(int) - pure).max() <= 1


def test_stain_jitter_is_mild(patches):
    calm = np.full((1, 8, 8, 3), (170, 105, 165), np.uint8)
    for index in range(20):
        changed, _ = Augmentation("d4+stain").apply(calm, calm[..., 0], 0, 0, [index])
        assert np.abs(changed.astype(int) - calm).max() < 40
