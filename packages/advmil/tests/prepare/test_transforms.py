"""Blur, colour variation and colour normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter

from advmil.errors import DataError
from advmil.prepare.transforms import (
    BLUR_SIGMAS,
    HED_THETA,
    RGB_FROM_HED,
    blur,
    build_transform,
    hed_variation,
    macenko,
    stain_basis,
    vary_stains,
)

STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])  # Macenko's own reference


def stained(seed: int, strengths: tuple[float, float] = (1.0, 0.8), edge: int = 48) -> np.ndarray:
    """An image made of two stains of random amounts by Beer–Lambert's law."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.1, 1.0, (edge, edge, 2)) * strengths
    amounts[::7, ::3, 0], amounts[::5, ::4, 1] = 0.02, 0.02  # nearly pure stains among them
    density = amounts @ STAINS
    return np.clip(240 * np.exp(-density) - 1, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("kind", sorted(BLUR_SIGMAS))
def test_blur_is_a_gaussian_of_an_allowed_strength(kind):
    """A white dot on black becomes the Gaussian of one of the listed strengths, cut off at its kernel."""
    low, high = BLUR_SIGMAS[kind]
    dot = torch.zeros((6, 41, 41, 3), dtype=torch.uint8)
    dot[:, 20, 20] = 255
    sigmas = np.arange(round(low * 10), round(high * 10) + 1) / 10
    assert len(sigmas) in (8, 11)
    for done in blur(kind, 0)(dot).numpy():
        residuals = [
            np.abs(
                done[..., 0] - gaussian_filter(dot[0, ..., 0].numpy().astype(float), s, truncate=9.0)
            ).max()
            for s in sigmas
        ]
        assert min(residuals) <= 1.0
        reach = 3 * int(np.ceil(sigmas[int(np.argmin(residuals))] + 0.2))
        assert not done[:, : 20 - reach].any()
        assert not done[: 20 - reach].any()


@pytest.mark.parametrize("kind", ["lighter", "light", "strong", "hed_lighter", "hed_light", "hed_strong"])
def test_seed_decides_and_batches_do_not(kind):
    patches = torch.from_numpy(np.stack([stained(k, edge=32) for k in range(5)]))
    whole = build_transform(kind, None, 7)
    parts = build_transform(kind, None, 7)
    other = build_transform(kind, None, 8)
    assert whole is not None
    assert parts is not None
    assert other is not None
    done = whole(patches)
    assert done.dtype == torch.uint8
    assert done.shape == patches.shape
    assert torch.equal(done, torch.cat([parts(patches[:2]), parts(patches[2:])]))
    assert not torch.equal(done, other(patches))


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.uint8, (2, 4, 4, 3)))
def test_no_variation_gives_every_colour_back(pixels):
    patches = torch.from_numpy(pixels)
    same = vary_stains(patches, torch.zeros(2, 3), torch.zeros(2, 3))
    assert (same.int() - patches.int()).abs().max() <= 1


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(sorted(HED_THETA)))
def test_nearly_black_and_nearly_white_patches_stay(seed, kind):
    rng = np.random.default_rng(seed)
    dark, light = rng.integers(0, 12, (4, 4, 3)), rng.integers(244, 256, (4, 4, 3))
    patches = torch.from_numpy(np.stack([dark, light, stained(0, edge=4)]).astype(np.uint8))
    done = hed_variation(kind, seed)(patches)
    assert torch.equal(done[:2], patches[:2])


def test_variation_changes_the_stains_as_asked():
    """Twice the haematoxylin: the amount of that stain doubles and the others stay."""
    patches = torch.from_numpy(stained(3, (0.4, 0.4))[None])
    done = vary_stains(patches, torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3))
    inverse = np.linalg.inv(RGB_FROM_HED)
    before, after = (-np.log((p.numpy()[0].astype(float) + 1e-6) / 255) @ inverse for p in (patches, done))
    np.testing.assert_allclose(after[..., 0], 2 * before[..., 0], atol=0.03)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=0.03)


def test_stains_are_found_again():
    """The estimated stain vectors are those that the image was made of."""
    basis, strongest = stain_basis(stained(0))
    cosines = (basis * STAINS.T / np.linalg.norm(STAINS, axis=1)).sum(axis=0)
    assert (cosines > 0.98).all()
    assert (strongest > 0.5).all()


def test_an_image_normalised_to_itself_stays(tmp_path: Path):
    image = stained(0)
    Image.fromarray(image).save(tmp_path / "template.png")
    done = macenko(tmp_path / "template.png")(torch.from_numpy(image[None]))[0].numpy()
    assert np.abs(done.astype(int) - image).mean() < 1.0
    assert np.abs(done.astype(int) - image).max() <= 4


def test_normalisation_brings_another_staining_close(tmp_path: Path):
    template, weak = stained(0), stained(0, (0.6, 0.4))
    Image.fromarray(template).save(tmp_path / "template.png")
    done = macenko(tmp_path / "template.png")(torch.from_numpy(weak[None]))[0].numpy()
    before, after = (np.abs(p.astype(int) - template).mean() for p in (weak, done))
    assert after < 0.3 * before  # pixels of little stain are left out of the estimates, so it is not exact


def test_patches_without_tissue_are_left_alone(tmp_path: Path):
    Image.fromarray(stained(0)).save(tmp_path / "template.png")
    white = torch.full((1, 48, 48, 3), 255, dtype=torch.uint8)
    assert torch.equal(macenko(tmp_path / "template.png")(white), white)


def test_normalisation_comes_before_the_variation(tmp_path: Path):
    Image.fromarray(stained(0)).save(tmp_path / "template.png")
    patches = torch.from_numpy(stained(5, (0.6, 0.4))[None])
    both = build_transform("light", tmp_path / "template.png", 3)
    assert both is not None
    expected = blur("light", 3)(macenko(tmp_path / "template.png")(patches))
    assert torch.equal(both(patches), expected)


def test_refused(tmp_path: Path):
    assert build_transform(None, None, 0) is None
    with pytest.raises(
        DataError, match="transform 'sharp': expected one of lighter, light, strong, hed_lighter"
    ):
        build_transform("sharp", None, 0)
    Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(tmp_path / "white.png")
    with pytest.raises(
        DataError, match=r"white\.png: cannot serve as a template of colours: 0 pixels of tissue"
    ):
        macenko(tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: cannot serve"):
        macenko(tmp_path / "text.png")
