"""Pages to frames, and batched augmentation against Pillow and torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as tv

from infection_mt.config import TransformsConfig
from infection_mt.data.frames import (
    Augmentation,
    color_jitter,
    eval_tensor,
    flip_rotate,
    page_to_image,
    prepare_image,
)
from infection_mt.data.pages import PageError, crop_border, page_percentiles, scale_page, stack_range_of

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((9, 9, 4), "RGBA; drop the alpha"),
        ((9, 9, 2), "two channels"),
        ((3, 9, 9), "channels come first"),
        ((9,), r"found shape \(9,\)"),
        ((2, 3, 9, 9), "found shape"),
        ((0, 9), "found shape"),
    ],
)
def test_other_shapes_are_named(shape, words):
    with pytest.raises(PageError, match=words):
        page_to_image(np.ones(shape, np.uint8))


def test_pixels_that_are_not_finite_are_counted():
    page = RNG.normal(size=(5, 6))
    page[1, 2], page[3, 3] = np.nan, np.inf
    with pytest.raises(PageError, match="2 of 30 pixels are not finite"):
        page_to_image(page)
    with pytest.raises(PageError, match="complex"):
        page_to_image(page.astype(complex))


def test_percentile_scaling_resists_a_hot_pixel():
    page = RNG.integers(100, 1000, (40, 40)).astype(np.uint16)
    hot = page.copy()
    hot[3, 3] = 65535
    assert np.median(page_to_image(hot)) <= 3
    assert np.abs(scale_page(hot, "percentile").astype(int) - scale_page(page, "percentile"))[4:].max() <= 3
    assert np.median(scale_page(hot, "percentile")) > 80
    assert scale_page(np.full((4, 4), 7), "percentile").max() == 0


def test_stack_scaling_keeps_brightness_between_pages():
    dark, bright = (RNG.integers(low, low + 100, (30, 30)) for low in (100, 1000))
    ends = stack_range_of([page_percentiles(dark), page_percentiles(bright)])
    assert scale_page(dark, "stack", ends).mean() < 30
    assert scale_page(bright, "stack", ends).mean() > 220
    assert abs(page_to_image(dark).mean() - page_to_image(bright).mean()) < 10
    with pytest.raises(ValueError, match="needs the stack's range"):
        scale_page(dark, "stack")


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.49), st.sampled_from([None, 0, 1, 2]))
def test_crop(height, width, fraction, pixels):
    image = np.arange(height * width, dtype=np.int64).reshape(height, width).astype(np.uint8)
    settings_ = TransformsConfig(crop_border_fraction=fraction, crop_border_pixels=pixels)
    if pixels and min(height, width) <= 2 * pixels:
        with pytest.raises(PageError, match="leaves nothing"):
            crop_border(image, settings_)
        return
    cropped = crop_border(image, settings_)
    if pixels is not None:
        expected = image[pixels : height - pixels, pixels : width - pixels]
    else:
        sides = [max(1, round(side * (1 - 2 * fraction))) for side in (height, width)]
        expected = np.asarray(tv.center_crop(Image.fromarray(image), sides))
    np.testing.assert_array_equal(cropped, expected)


def test_one_channel_equals_one_of_three():
    page = RNG.integers(0, 4000, (37, 53)).astype(np.uint16)
    settings_ = TransformsConfig(image_size=24, crop_border_fraction=0.05)
    gray, colour = prepare_image(scale_page(page), settings_), prepare_image(page_to_image(page), settings_)
    assert gray.shape == (24, 24)
    for channel in range(3):
        np.testing.assert_array_equal(colour[:, :, channel], gray)
    both = [eval_tensor(x, settings_) for x in (gray[None], np.moveaxis(colour, 2, 0))]
    assert torch.equal(both[0], both[1])
    with pytest.raises(ValueError, match="uint8 frames"):
        eval_tensor(torch.zeros(2, 4, 4), settings_)


def _pillow(image: np.ndarray, hflip: bool, vflip: bool, angle: float) -> np.ndarray:
    picture = Image.fromarray(image)
    if hflip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if vflip:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return np.asarray(picture.rotate(angle, Image.Resampling.NEAREST))


@pytest.mark.parametrize("shape", [(24, 31), (31, 24), (17, 17), (64, 64), (1, 9), (2, 2), (33, 50)])
def test_rotation_equals_pillow_bit_for_bit(shape):
    angles = np.concatenate(
        [RNG.uniform(-15, 15, 250), RNG.uniform(-720, 720, 60), [0, 15, -15, 1e-9, 30, 45, 360]]
    )
    images = RNG.integers(0, 256, (len(angles), *shape)).astype(np.uint8)
    hflip, vflip = RNG.random((2, len(angles))) < 0.5
    rotated = flip_rotate(torch.from_numpy(images)[:, None], hflip, vflip, angles)
    expected = np.stack([_pillow(*row) for row in zip(images, hflip, vflip, angles, strict=True)])
    np.testing.assert_array_equal(rotated[:, 0].numpy(), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-15, 15), st.booleans(), st.booleans())
@settings(max_examples=150)
def test_any_size_and_angle_equals_pillow(height, width, angle, hflip, vflip):
    image = np.random.default_rng(height * 41 + width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    frames = torch.from_numpy(np.moveaxis(image, 2, 0).copy())[None]
    found = np.moveaxis(flip_rotate(frames, [hflip], [vflip], [angle])[0].numpy(), 0, 2)
    np.testing.assert_array_equal(found, _pillow(image, hflip, vflip, angle))


def test_reflect_fill_mirrors_the_border():
    image = RNG.integers(1, 256, (20, 26)).astype(np.uint8)
    frames = torch.from_numpy(image)[None, None]
    reflected = flip_rotate(frames, [False], [False], [12.0], reflect=True)[0, 0].numpy()
    zero = flip_rotate(frames, [False], [False], [12.0])[0, 0].numpy()
    assert (zero == 0).any()
    assert (reflected > 0).all()
    np.testing.assert_array_equal(reflected[zero > 0], zero[zero > 0])
    padded = Image.fromarray(np.pad(image, 10, mode="reflect")).rotate(12.0, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(reflected, np.asarray(padded)[10:-10, 10:-10])


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_jitter_follows_torchvision(channels):
    images = RNG.integers(0, 256, (30, 12, 15, channels)).astype(np.uint8)
    factors = RNG.uniform(0.8, 1.2, (30, 3))
    order = np.stack([RNG.permutation(3) for _ in range(30)])
    found = color_jitter(torch.from_numpy(np.moveaxis(images, 3, 1).copy()), factors, order)
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for image, f, o, jittered in zip(images, factors, order, found, strict=True):
        picture = Image.fromarray(image if channels == 3 else image[:, :, 0])
        for operation in o:
            picture = steps[operation](picture, float(f[operation]))
        expected = np.asarray(picture).reshape(12, 15, channels)
        difference = np.abs(np.moveaxis(jittered.numpy(), 0, 2).astype(int) - expected)
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.98


def test_draws_depend_on_seed_epoch_and_sample_only():
    augmentation = Augmentation(TransformsConfig(image_size=16, color_jitter=True))
    few, many = (augmentation.draw(n, seed=4, epoch=2) for n in (50, 4000))
    for name in ("hflip", "vflip", "angle", "factors", "order"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:50])
    for other in (augmentation.draw(50, seed=4, epoch=3), augmentation.draw(50, seed=5, epoch=2)):
        assert not np.array_equal(few.angle, other.angle)
    assert np.abs(many.angle).max() <= 15
    assert abs(many.angle.mean()) < 0.6
    assert abs(many.hflip.mean() - 0.5) < 0.04
    assert abs((many.hflip & many.vflip).mean() - 0.25) < 0.04
    assert many.factors.min() >= 0.8
    assert many.factors.max() <= 1.2
    assert len({tuple(o) for o in many.order.tolist()}) == 6


def test_batches_do_not_influence_each_other():
    augmentation = Augmentation(TransformsConfig(image_size=16, color_jitter=True))
    draws = augmentation.draw(20, seed=0, epoch=1)
    frames = torch.from_numpy(RNG.integers(0, 256, (20, 1, 16, 16)).astype(np.uint8))
    before = frames.clone()
    whole = augmentation.apply(frames, draws, np.arange(20))
    order = RNG.permutation(20)
    parts = torch.cat([augmentation.apply(frames[p], draws, p) for p in np.array_split(order, 3)])
    assert torch.equal(parts, whole[order])
    assert torch.equal(frames, before)
    assert not torch.equal(whole, before)
    with pytest.raises(ValueError, match="2 samples"):
        augmentation.apply(frames, draws, [1, 2])


def test_switched_off_augmentation_changes_nothing():
    off = Augmentation(TransformsConfig(image_size=16, random_flip=False, random_rotation=False))
    frames = torch.from_numpy(RNG.integers(0, 256, (4, 1, 16, 16)).astype(np.uint8))
    assert torch.equal(off.apply(frames, off.draw(4, seed=0, epoch=0), [0, 1, 2, 3]), frames)
    flips = Augmentation(TransformsConfig(image_size=16, random_rotation=False))
    draws = flips.draw(4, seed=0, epoch=0)
    assert not draws.angle.any()


@pytest.mark.parametrize("shape", [(16, 16), (13, 22)])
def test_both_paths_of_a_batch_are_equal(shape):
    augmentation = Augmentation(TransformsConfig(image_size=16))
    draws = augmentation.draw(60, seed=0, epoch=1)
    frames = torch.from_numpy(RNG.integers(0, 256, (60, 3, *shape)).astype(np.uint8))
    gathered = flip_rotate(frames, draws.hflip, draws.vflip, draws.angle)
    assert torch.equal(augmentation.apply(frames, draws, np.arange(60)), gathered)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_pixels():
    augmentation = Augmentation(TransformsConfig(image_size=32, color_jitter=True))
    draws = augmentation.draw(40, seed=0, epoch=1)
    frames = torch.from_numpy(RNG.integers(0, 256, (40, 1, 32, 32)).astype(np.uint8))
    here = augmentation.apply(frames, draws, np.arange(40))
    there = augmentation.apply(frames.cuda(), draws, np.arange(40)).cpu()
    assert (here.int() - there.int()).abs().max() <= 1
    flips = Augmentation(TransformsConfig(image_size=32))
    assert torch.equal(
        flips.apply(frames, draws, np.arange(40)), flips.apply(frames.cuda(), draws, np.arange(40)).cpu()
    )
