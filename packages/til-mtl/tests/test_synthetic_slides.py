"""The written data set: the download's layout, slides that OpenSlide opens, and a truth that agrees with itself."""

import json
import re

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image

from til_mtl.synthetic import draw_canvas, tissue_labels
from til_mtl.synthetic_slides import TigerSettings, without_corners, write_tiger

SMALL = TigerSettings(tissue_regions=4, cell_regions=6, held_out_regions=2, slides=4, tissue_px=(128, 96))
NAME = re.compile(
    r"^(TCGA-\w\w-\w{4}-01Z-00-DX1\.[0-9A-F-]{36}|TC_S01_P\d{6}_C0001_B\d{3}|\d+[SB])_\[(\d+), (\d+), (\d+), (\d+)\]$"
)
OF_LABEL = np.array([255, 1, 2, 0, 0, 0, 2, 0])  # 0 is not annotated


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiger(tmp_path_factory.mktemp("synthetic"), 3, SMALL)


def regions(data, kind):
    return data.tiger / "wsirois/roi-level-annotations" / kind


def test_regions_have_the_names_and_labels_of_the_download(data):
    for folder, count in (
        (regions(data, "tissue-bcss"), 4),
        (regions(data, "tissue-cells"), 6),
        (data.held_out, 2),
    ):
        images = sorted((folder / "images").glob("*.png"))
        assert len(images) == count
        assert [p.name for p in images] == [p.name for p in sorted((folder / "masks").glob("*.png"))]
        for path in images:
            x1, y1, x2, y2 = map(int, NAME.match(path.stem).groups()[1:])
            picture, mask = Image.open(path), Image.open(folder / "masks" / path.name)
            assert picture.size == mask.size == (x2 - x1, y2 - y1) == (128, 128)
            assert (picture.mode, mask.mode) == ("RGB", "L")
            assert set(np.unique(np.array(mask))) <= set(range(8))


def test_regions_for_evaluation_have_a_size_of_their_own(tmp_path):
    settings = TigerSettings(
        region_px=64, held_out_px=112, tissue_regions=0, cell_regions=1, held_out_regions=1, slides=0
    )
    data = write_tiger(tmp_path, 0, settings)
    folders = (regions(data, "tissue-cells"), data.held_out)
    assert [Image.open(next((each / "images").iterdir())).size for each in folders] == [(64, 64), (112, 112)]


def test_sources_and_unannotated_corners(data):
    sources = {path.name.split("_")[0][:4] for path in (regions(data, "tissue-cells") / "images").iterdir()}
    assert any(name.startswith("TCGA") for name in sources)
    assert "TC" in sources
    assert any(name[0].isdigit() for name in sources)
    corners = [np.array(Image.open(p))[0, 0] for p in (regions(data, "tissue-bcss") / "masks").iterdir()]
    assert sorted(corner == 0 for corner in corners) == [False, False, False, True]


def test_cell_boxes_are_markers_round_dark_centres(data):
    table = json.loads((regions(data, "tissue-cells") / "tiger-coco.json").read_text())
    assert table["categories"] == [{"id": 1, "name": "lymphocytes and plasma cells"}]
    names = {image["id"]: image["file_name"] for image in table["images"]}
    assert len(names) == 6
    assert len(table["annotations"]) > 10
    for box in table["annotations"]:
        x, y, width, height = box["bbox"]
        assert (width, height, box["category_id"]) == (16, 16, 1)
        name = names[box["image_id"]].removeprefix("tissue-cells/images/")
        pixels = np.array(Image.open(regions(data, "tissue-cells") / "images" / name))
        cx, cy = x + 8, y + 8
        assert pixels[max(0, cy - 2) : cy + 2, max(0, cx - 2) : cx + 2].mean() < 100


def test_slides_open_with_their_spacing_and_masks_cover_the_tissue(data):
    assert len(data.slide_truth) == 4
    for each in data.slide_truth:
        with openslide.OpenSlide(str(data.slides / f"{each.slide}.tif")) as slide:
            assert slide.dimensions == (192, 160)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-6)
            assert slide.level_count == 2
            pixels = np.array(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
        with openslide.OpenSlide(str(data.tissue_masks / f"{each.slide}_tissue.tif")) as mask:
            assert mask.dimensions == (192, 160)
            tissue = np.array(mask.read_region((0, 0), 0, mask.dimensions))[..., 0] > 0
        assert pixels[~tissue].mean() > 238
        assert tissue.sum() == 128 * 96


def test_the_truth_gives_the_score_of_the_generator(data):
    given = pd.read_csv(data.scores, dtype={"image-id": str}).set_index("image-id")["tils-score"]
    exact = pd.read_csv(data.truth / "til_scores.csv", dtype={"image-id": str}).set_index("image-id")[
        "tils-score"
    ]
    assert set(given.index) == {each.slide for each in data.slide_truth}
    for each in data.slide_truth:
        with np.load(data.truth / "slides" / f"{each.slide}.npz", allow_pickle=False) as truth:
            segmentation, centres = truth["segmentation"], truth["centres"]
        inside = segmentation[np.floor(centres[:, 1]).astype(int), np.floor(centres[:, 0]).astype(int)] == 2
        area_um2 = (segmentation == 2).sum() * data.spacing_um**2
        assert each.score == min(100, 100 * inside.sum() * data.cell_um**2 / area_um2)
        assert each.score == pytest.approx(exact[each.slide], abs=1e-9)
        assert given[each.slide] == round(each.score)
        assert len(centres) == each.cells
        assert (segmentation == 2).sum() == each.stroma_px
    assert [each.trials for each in data.slide_truth] == sorted(each.trials for each in data.slide_truth)


def test_labels_of_the_download_mean_the_drawn_classes():
    generator = np.random.default_rng(0)
    canvas = draw_canvas(generator, 128, 128, 10)
    labels = tissue_labels(generator, canvas)
    assert np.array_equal(OF_LABEL[labels], canvas.classes)
    assert len(np.unique(labels)) > 3
    cornered = without_corners(labels)
    assert cornered[0, 0] == cornered[-1, -1] == cornered[0, -1] == cornered[-1, 0] == 0
    assert 0.9 < (cornered > 0).mean() < 1
    assert np.array_equal(cornered[cornered > 0], labels[cornered > 0])


def test_the_same_seed_gives_the_same_files(data, tmp_path):
    again = write_tiger(tmp_path, 3, SMALL)
    files = sorted(p.relative_to(data.folder) for p in data.folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((again.folder / p).read_bytes() == (data.folder / p).read_bytes() for p in files)
