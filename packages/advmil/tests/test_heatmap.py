"""Attention over a slide: four files that agree with each other and with the slide."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from advmil import cli
from advmil.attention import PatchAttention
from advmil.data.regions import REGION
from advmil.heatmap import attention_map, draw_overlay, heatmap_of_slide, overlay, write_squares
from medshared.bags import BagAttributes, ClamAttributes, write_clam_bag, write_coordinates
from medshared.slides import Slide, TileError, open_slide, read_geojson, write_pyramid

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


@pytest.mark.parametrize("reduced", [1, 2.5])
def test_the_picture_is_coloured_within_the_patches_only(reduced):
    from matplotlib import colormaps

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (int(800 / reduced), int(600 / reduced), 3), dtype=np.uint8)
    xy = np.array([[100, 200], [350, 450]])
    found = overlay(
        image, attention_map(_attention(np.array([1.0, 3.0]), xy), xy, 50, (600, 800)), (600, 800)
    )
    covered = np.zeros(image.shape[:2], dtype=bool)
    for (x, y), rank in zip(xy.tolist(), (25, 75), strict=True):
        place = tuple(slice(round(low / reduced), round((low + 50) / reduced)) for low in (y, x))
        covered[place] = True
        colour = np.asarray(colormaps["viridis"](rank / 100)[:3]) * 255
        np.testing.assert_allclose(found[place], 0.45 * image[place] + 0.55 * colour, atol=0.51)
    np.testing.assert_array_equal(found[~covered], image[~covered])


def test_the_picture_has_the_slides_shape_and_a_bar(drawn):
    from PIL import Image

    with Image.open(drawn.picture) as picture:
        assert picture.size == (640 + 120, 832)


def _attention(weight: np.ndarray, xy: np.ndarray) -> PatchAttention:
    n = len(weight)
    return PatchAttention(
        ("S",), np.zeros(n, np.int64), np.arange(n), xy.astype(np.float64), weight / weight.sum()
    )


def test_planted_attention_appears_where_it_was_planted(slide_folder, tiny_run, tmp_path, monkeypatch):
    planted = 37
    features = torch.zeros(96, 16)
    features[planted, 0] = 5.0
    torch.save(features, tmp_path / "S1.pt")

    def first_feature(self: object, x: torch.Tensor, extra: object = None) -> torch.Tensor:
        return torch.softmax(x[0, :, 0], dim=0)

    monkeypatch.setattr("advmil.models.abmil.ABMIL.attention", first_feature)
    found = heatmap_of_slide(
        tiny_run,
        slide_folder / "slides" / "S1.svs",
        tmp_path / "S1.pt",
        slide_folder / "tiles" / "patches" / "S1.h5",
        tmp_path / "out",
    )
    x, y = _grid()[planted]
    strongest = max(read_geojson(found.geojson), key=lambda a: a.properties["measurements"]["attention"])
    assert strongest.contour.outer.min(axis=0).tolist() == [x, y]
    assert strongest.properties["objectType"] == "detection"
    values = tifffile.imread(found.ome_tiff)
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    assert (column * PATCH + 16, row * PATCH + 40) == (x, y)
    table = pd.read_csv(found.table)
    assert table.loc[table["rank"].idxmax(), ["x", "y"]].tolist() == [x, y]


def test_overlapping_patches_count_by_their_mean():
    xy = np.array([[0, 0], [32, 0], [64, 0]])
    grid = attention_map(_attention(np.array([1.0, 2.0, 5.0]), xy), xy, 64, (160, 64))
    assert grid.cell == 32
    assert grid.weights.shape == (2, 5)
    expected = np.array([1.0, 1.5, 3.5, 5.0]) / 8
    np.testing.assert_allclose(grid.weights[0, :4], expected)
    np.testing.assert_array_equal(grid.weights[0], grid.weights[1])
    assert np.isnan(grid.weights[:, 4]).all()


def test_patches_on_no_common_grid_are_rounded_to_an_eighth():
    xy = np.array([[0, 0], [1003, 517]])  # two pieces of tissue, each with its own grid
    grid = attention_map(_attention(np.array([1.0, 3.0]), xy), xy, 256, (2000, 1000))
    assert grid.cell == 32
    assert grid.weights.shape == (32, 63)
    assert np.isfinite(grid.weights).sum() == 2 * 64
    rows, columns = np.nonzero(grid.weights > 0.5)
    assert (columns.min(), rows.min()) == (31, 16)  # 1003 / 32 and 517 / 32


def test_legacy_coordinates_as_floats(slide_folder, tiny_run, tmp_path):
    """Early tools wrote floats, and small patches a quarter of their size apart."""
    k = np.arange(16)
    xy = (np.stack([k % 4, k // 4], axis=1) * 16 + 80).astype(np.float64)
    path = write_coordinates(tmp_path / "S1.h5", xy, _clam())
    with h5py.File(path, "a") as file:
        attributes = dict(file["coords"].attrs)
        del file["coords"]
        file["coords"] = xy
        file["coords"].attrs.update(attributes)
    torch.save(torch.randn(16, 16), tmp_path / "S1.pt")
    slide = slide_folder / "slides" / "S1.svs"
    found = heatmap_of_slide(tiny_run, slide, tmp_path / "S1.pt", path, tmp_path / "out")
    values = tifffile.imread(found.ome_tiff)
    assert values.shape == (52, 40)  # cells of 16 pixels
    assert np.isfinite(values).sum() == 49  # 3 steps and a patch of 4 cells, both ways
    assert np.nansum(values) > 0


def test_regions_become_one_square_each(slide_folder, untrained_run, tmp_path):
    run = untrained_run(tmp_path / "run", bcb_mode="patch")
    slide = slide_folder / "slides" / "S1.svs"
    features = slide_folder / "features" / "S1.pt"
    found = heatmap_of_slide(
        run, slide, features, slide_folder / "tiles" / "patches" / "S1.h5", tmp_path / "out"
    )
    squares = read_geojson(found.geojson)
    assert len(squares) == 6
    assert {tuple(square.contour.box[2:]) for square in squares} == {(4 * PATCH + 1, 4 * PATCH + 1)}
    assert sum(s.properties["measurements"]["attention"] for s in squares) == pytest.approx(1)
    table = pd.read_csv(found.table)
    assert len(table) == 96
    first = squares[0].properties["measurements"]["attention"]
    assert first == pytest.approx(table["weight"][:16].sum())


def test_patches_that_are_no_regions_stay_single(tmp_path):
    xy = np.stack([np.arange(16), np.zeros(16, dtype=int)], axis=1) * 64
    write_squares(tmp_path / "a.geojson", _attention(np.ones(16), xy), xy.astype(float), 64, by_region=True)
    assert len(read_geojson(tmp_path / "a.geojson")) == 16


def test_several_runs_are_averaged(slide_folder, tiny_run, untrained_run, tmp_path):
    runs = [tiny_run, untrained_run(tmp_path / "second", seed=3)]
    places = (
        slide_folder / "slides" / "S1.svs",
        slide_folder / "features" / "S1.pt",
        slide_folder / "tiles" / "patches" / "S1.h5",
    )
    weights = [
        pd.read_csv(heatmap_of_slide(run, *places, tmp_path / str(k)).table)["weight"]
        for k, run in enumerate([*runs, runs])
    ]
    np.testing.assert_allclose(weights[2], (weights[0] + weights[1]) / 2)


# --- the command


def _heatmap(*slides: Path, run: Path, features: Path, output: Path, more: tuple[str, ...] = ()) -> int:
    shown = [
        "heatmap",
        *map(str, slides),
        "--run",
        str(run),
        "--features",
        str(features),
        "--output",
        str(output),
    ]
    return cli.main([*shown, "--device", "cpu", *more])


def test_one_bad_slide_does_not_stop_the_others(slide_folder, tiny_run, tmp_path, caplog):
    slides = tmp_path / "slides"
    slides.mkdir()
    good = slide_folder / "slides" / "S1.svs"
    names = ("cut", "unknown", "short", "elsewhere", "S1")
    for name in names:
        shutil.copy(good, slides / f"{name}.svs")
    (slides / "cut.svs").write_bytes(good.read_bytes()[:5000])
    features = tmp_path / "features"
    xy = _grid()
    values = np.random.default_rng(0).standard_normal((96, 16)).astype(np.float32)
    info = BagAttributes("clam", "net", 0.5, float(PATCH), None, None)
    for name in ("cut", "S1"):
        write_clam_bag(features, name, values, xy, info)
    write_clam_bag(features, "elsewhere", values, xy + 5000, info)
    torch.save(torch.from_numpy(values[:, :5]), features / "short.pt")
    tiles = ("--coordinates", str(slide_folder / "tiles"))
    shutil.copy(slide_folder / "tiles" / "patches" / "S1.h5", slide_folder / "tiles" / "patches" / "short.h5")
    files = [slides / f"{name}.svs" for name in names]
    output = tmp_path / "out"
    assert _heatmap(*files, run=tiny_run, features=features, output=output, more=tiles) == 1
    assert sorted(p.name for p in output.iterdir()) == ["S1.csv", "S1.geojson", "S1.ome.tiff", "S1.png"]
    assert "cut.svs" in caplog.text
    assert "no features of unknown" in caplog.text
    assert "has 5 features a patch but the model was trained on 16" in caplog.text
    assert "outside elsewhere.svs of 640 x 832 pixels: the coordinates are another slide's" in caplog.text
    assert "4 of 5 slides failed: cut.svs, unknown.svs, short.svs, elsewhere.svs" in caplog.text


def test_a_folder_of_slides(slide_folder, tiny_run, tmp_path):
    features = slide_folder / "features"
    more = ("--coordinates", str(slide_folder / "tiles"))
    assert _heatmap(slide_folder / "slides", run=tiny_run, features=features, output=tmp_path, more=more) == 0
    assert (tmp_path / "S1.png").is_file()


def test_parts_that_cannot_be_decoded_do_not_spoil_the_picture(slide_folder, monkeypatch, caplog):
    def damaged(self: Slide, max_px: int = 0) -> np.ndarray:
        raise TileError(self.path, (0, 0), "damaged")

    xy = np.array([[100, 200]])
    with open_slide(slide_folder / "slides" / "S1.svs") as slide:
        grid = attention_map(_attention(np.ones(1), xy), xy, PATCH, slide.dimensions)
        whole = draw_overlay(slide, grid)
        monkeypatch.setattr(Slide, "thumbnail", damaged)
        assert draw_overlay(slide, grid)[:8] == whole[:8]
    assert "parts of the picture cannot be decoded" in caplog.text


def test_features_without_any_coordinates(slide_folder, tiny_run, tmp_path, caplog):
    shutil.copy(slide_folder / "features" / "S1.pt", tmp_path / "S1.pt")
    slide = slide_folder / "slides" / "S1.svs"
    assert _heatmap(slide, run=tiny_run, features=tmp_path, output=tmp_path / "out") == 1
    assert "no coordinates of the patches: give --coordinates" in caplog.text
    assert not (tmp_path / "out").exists()


def test_unknown_spacing_leaves_the_physical_size_out(slide_folder, tiny_run, tmp_path, caplog):
    image = np.random.default_rng(0).integers(150, 220, (832, 640, 3), dtype=np.uint8)
    slide = write_pyramid(tmp_path / "S1.tif", image, None, flavour="generic", downsamples=(1, 4))
    places = (slide, slide_folder / "features" / "S1.pt", slide_folder / "tiles" / "patches" / "S1.h5")
    found = heatmap_of_slide(tiny_run, *places, tmp_path / "a")
    with tifffile.TiffFile(found.ome_tiff) as file:
        assert "PhysicalSizeX" not in (file.ome_metadata or "")
    assert "µm per pixel unknown" in caplog.text
    found = heatmap_of_slide(tiny_run, *places, tmp_path / "b", spacing_um=0.25)
    with tifffile.TiffFile(found.ome_tiff) as file:
        assert 'PhysicalSizeX="16.0"' in (file.ome_metadata or "")


def test_stamp_coordinates_in_um_are_placed(slide_folder, tiny_run, tmp_path):
    xy = _grid()
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["feats"] = np.random.default_rng(0).standard_normal((96, 16)).astype(np.float32)
        file["coords"] = xy * 0.5
        file.attrs.update(
            {"unit": "um", "tile_size_um": PATCH * 0.5, "tile_size_px": 224, "extractor": "net"}
        )
    slide = slide_folder / "slides" / "S1.svs"
    found = heatmap_of_slide(tiny_run, slide, tmp_path / "S1.h5", None, tmp_path / "out")
    corners = [square.contour.outer.min(axis=0).tolist() for square in read_geojson(found.geojson)]
    assert corners == xy.tolist()
    assert tifffile.imread(found.ome_tiff).shape == (13, 10)
