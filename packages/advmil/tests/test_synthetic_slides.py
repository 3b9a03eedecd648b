"""Slides with known truth, and the encoder that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from advmil.synthetic import SlidePlan, SyntheticCohort, draw_directions
from advmil.synthetic_slides import (
    MARGIN_PX,
    PATCH_PX,
    REGION_PX,
    SyntheticEncoder,
    draw_slide,
    draw_slides,
    make_encoder,
    region_truth,
    save_encoder,
)
from medshared.slides import find_tissue, open_slide

PLAN = SlidePlan("P0-S1", np.array([True, False, True, False]), np.array([False, False, True, True]))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    directions = draw_directions(32, np.random.RandomState(0))
    return SyntheticCohort(tmp_path_factory.mktemp("cohort"), pd.DataFrame(), directions, [PLAN])


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return draw_slide(PLAN, np.random.RandomState(0))


@pytest.fixture(scope="module")
def features(cohort, picture) -> np.ndarray:
    """Features of the small patches of each region, [4, 16, 32]."""
    reduced = picture.reshape(picture.shape[0] // 4, 4, picture.shape[1] // 4, 4, 3).mean(axis=(1, 3))
    patches = []
    for x, y, _ in region_truth(PLAN):
        for k in range(16):
            left, top = int(x) // 4 + k % 4 * PATCH_PX, int(y) // 4 + k // 4 * PATCH_PX
            patches.append(reduced[top : top + PATCH_PX, left : left + PATCH_PX])
    images = torch.from_numpy(np.stack(patches) / 255).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return make_encoder(cohort, 0)(images).numpy().reshape(4, 16, -1)


def test_regions_lie_where_they_should(picture):
    assert picture.shape == (REGION_PX + 2 * MARGIN_PX, 4 * REGION_PX + 2 * MARGIN_PX, 3)
    dark = (picture.mean(axis=2) < 130)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    shares = dark.reshape(REGION_PX, 4, REGION_PX).mean(axis=(0, 2))
    np.testing.assert_array_equal(shares > 0.05, PLAN.tumour)
    outside = picture.copy()
    outside[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = 255
    assert (outside == 255).all()
    np.testing.assert_array_equal(region_truth(PLAN)[:, 2], PLAN.tumour)


def test_encoder_follows_the_recipe(features, cohort):
    """Unit noise, plus a shift of two along one direction for tumour and along the other for irrelevant tissue."""
    along = features.mean(axis=1) @ cohort.directions.T
    np.testing.assert_allclose(along[:, 0], 2 * PLAN.tumour, atol=0.8)
    np.testing.assert_allclose(along[:, 1], 2 * PLAN.irrelevant, atol=0.8)
    plain = features[~PLAN.tumour]
    rest = plain - plain.mean(axis=1, keepdims=True)
    assert 0.7 < rest.std() < 1.3


def test_drawn_slides_are_real_ones(cohort, tmp_path: Path):
    """Both flavours open in OpenSlide with three levels and a spacing, and their tissue is found."""
    small = SlidePlan("P1-S1", np.array([True]), np.array([False]))
    other = SlidePlan("P2-S1", small.tumour, small.irrelevant)
    two = SyntheticCohort(tmp_path, pd.DataFrame(), cohort.directions, [small, other])
    files = draw_slides(two, tmp_path / "slides", 0)
    assert [path.name for path in files] == ["P1-S1.svs", "P2-S1.tif"]
    for path, vendor in zip(files, ("aperio", "generic-tiff"), strict=True):
        with open_slide(path) as slide:
            assert slide.vendor == vendor
            assert slide.spacing_um == pytest.approx(0.25, rel=1e-3)
            assert slide.level_downsamples == (1.0, 4.0, 16.0)
            tissue = find_tissue(slide).mask
        share = REGION_PX**2 / (slide.dimensions[0] * slide.dimensions[1])
        assert tissue.mean() == pytest.approx(share, rel=0.1)


def test_saved_encoder_is_the_same(cohort, tmp_path: Path):
    encoder = make_encoder(cohort, 0)
    path = save_encoder(tmp_path / "encoder.pt", encoder)
    loaded = SyntheticEncoder(32)
    loaded.load_state_dict(torch.load(path, weights_only=True))
    images = torch.rand(2, 3, PATCH_PX, PATCH_PX, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder(images), loaded(images))
    assert not torch.equal(make_encoder(cohort, 1)(images), encoder(images))
