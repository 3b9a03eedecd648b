"""Attention over a slide: four files that agree with each other and with the slide."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from advmil.data.regions import REGION
from advmil.heatmap import heatmap_of_slide
from medshared.bags import ClamAttributes, write_coordinates
from medshared.slides import read_geojson, write_pyramid

PATCH = 64  # level-0 pixels
COLUMNS, ROWS = 2, 3  # regions of 4 x 4 patches
START = (80, 40)


def _grid() -> np.ndarray:
    k = np.arange(REGION)
    offsets = np.stack([k % 4, k // 4], axis=1) * PATCH
    corners = [
        (START[0] + x * 4 * PATCH, START[1] + y * 4 * PATCH) for y in range(ROWS) for x in range(COLUMNS)
    ]
    return np.concatenate([np.asarray(corner) + offsets for corner in corners])


def _clam(coordinates_name: str = "S1") -> ClamAttributes:
    return ClamAttributes(16, 1, (4.0, 4.0), (160, 208), (160, 208), coordinates_name, "patches")


@pytest.fixture(scope="module")
def slide_folder(tmp_path_factory: pytest.TempPathFactory):
    """A slide of 640 x 832 px, with features and coordinates of its patches."""
    folder = tmp_path_factory.mktemp("slide")
    rng = np.random.default_rng(0)
    image = rng.integers(150, 220, (832, 640, 3), dtype=np.uint8)
    write_pyramid(folder / "slides" / "S1.svs", image, 0.5, downsamples=(1, 4))
    xy = _grid()
    write_coordinates(folder / "tiles" / "patches" / "S1.h5", xy, _clam())
    features = rng.standard_normal((len(xy), 16)).astype(np.float32)
    (folder / "features").mkdir()
    torch.save(torch.from_numpy(features), folder / "features" / "S1.pt")
    return folder


@pytest.fixture(scope="module")
def drawn(slide_folder, tiny_run):
    return heatmap_of_slide(
        tiny_run,
        slide_folder / "slides" / "S1.svs",
        slide_folder / "features" / "S1.pt",
        slide_folder / "tiles" / "patches" / "S1.h5",
        slide_folder / "out",
    )


def test_the_four_files_agree(drawn):
    table = pd.read_csv(drawn.table)
    assert table["weight"].sum() == pytest.approx(1)
    assert table[["x", "y"]].to_numpy().tolist() == _grid().tolist()
    assert table["row"].tolist() == list(range(96))
    squares = read_geojson(drawn.geojson)
    assert [square.contour.outer.min(axis=0).tolist() for square in squares] == _grid().tolist()
    assert {tuple(square.contour.box[2:]) for square in squares} == {(PATCH + 1, PATCH + 1)}
    measured = [square.properties["measurements"]["attention"] for square in squares]
    np.testing.assert_allclose(measured, table["weight"])
    with tifffile.TiffFile(drawn.ome_tiff) as file:
        values = file.asarray()
    # The slide in cells of a patch, beginning at the grid's own phase (16, 40).
    assert values.shape == (13, 10)
    assert values.dtype == np.float32
    column, row = (table["x"] - 16) // PATCH, (table["y"] - 40) // PATCH
    np.testing.assert_allclose(values[row, column], table["weight"], rtol=1e-6)
    assert np.isfinite(values).sum() == 96


def test_physical_size_is_written(drawn):
    with tifffile.TiffFile(drawn.ome_tiff) as file:
        assert file.is_ome
        description = file.ome_metadata or ""
    assert 'PhysicalSizeX="32.0"' in description
    assert 'PhysicalSizeXUnit="µm"' in description
    assert 'PositionX="8.0"' in description
    assert 'PositionY="20.0"' in description


def test_the_picture_is_changed_within_the_patches_only(drawn):
    from PIL import Image

    with Image.open(drawn.picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > pixels.shape[0] * 0.5
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000
