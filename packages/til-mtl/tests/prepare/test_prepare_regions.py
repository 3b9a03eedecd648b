"""Regions out of whole slides: by their XML annotations, and enlarged where a patch needs more than the region."""

import json
import shutil

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image

from til_mtl.errors import DataError
from til_mtl.prepare.options import PrepareOptions
from til_mtl.prepare.regions import find_regions, read_region
from til_mtl.prepare.tiger_patches import prepare_tiger
from til_mtl.synthetic_slides import TigerSettings, write_tiger

SETTINGS = TigerSettings(
    region_px=96,
    tissue_regions=3,
    cell_regions=3,
    held_out_regions=0,
    slides=0,
    wsi_slides=3,
    spacing_um=0.45,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_tiger(tmp_path_factory.mktemp("whole"), 2, SETTINGS).tiger


def options(tiger, out, **values):
    return PrepareOptions(tiger, out, **{"patch": 48, "cell_size": 14, "folds": 2, **values})


def masks(out, task):
    return {p.name: np.array(Image.open(p)) for p in (out / "patches" / task / "mask").iterdir()}


def test_both_levels_give_the_same_labels_and_cells(drawn, tmp_path):
    assert prepare_tiger(options(drawn, tmp_path / "roi")) == 0
    assert prepare_tiger(options(drawn, tmp_path / "slide", level="slide")) == 0
    for task in ("segmentation", "detection"):
        from_images, from_slides = masks(tmp_path / "roi", task), masks(tmp_path / "slide", task)
        assert set(from_images) == set(from_slides)
        assert len(from_images) == 12
        assert all(np.array_equal(from_images[name], from_slides[name]) for name in from_images)
    first, second = (json.loads((tmp_path / kind / "points.json").read_text()) for kind in ("roi", "slide"))
    assert {name: sorted(points) for name, points in first.items()} == {
        n: sorted(p) for n, p in second.items()
    }
    assert sum(map(len, first.values())) > 10
    tables = [pd.read_csv(tmp_path / kind / "manifest.csv") for kind in ("roi", "slide")]
    assert set(tables[0]["mpp"]) == {0.5}  # nobody said otherwise
    assert np.allclose(tables[1]["mpp"], 0.45)
    pd.testing.assert_frame_equal(*(table.drop(columns="mpp") for table in tables))


def test_pixels_of_slides_are_those_of_the_region_images_but_for_jpeg(drawn):
    by_level = [find_regions(options(drawn, drawn, level=level)).regions for level in ("roi", "slide")]
    assert [r.name for r in by_level[0]] == [r.name for r in by_level[1]]
    for image, whole in zip(*by_level, strict=True):
        difference = read_region(image).image.astype(int) - read_region(whole).image
        assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("level", ["roi", "slide"])
def test_small_regions_are_enlarged_from_their_slide(drawn, tmp_path, level):
    slides = drawn / "wsirois/wsi-level-annotations/images"
    # A region that is too small at both ends of the slide's tissue: patches of 120 need 12 pixels more on each side.
    assert (
        prepare_tiger(options(drawn, tmp_path, patch=120, slides=slides, level=level, tissue_from_cells=True))
        == 0
    )
    table = pd.read_csv(tmp_path / "manifest.csv")
    assert len(table) == 9
    for row in table.itertuples():
        folder = tmp_path / "patches" / row.task
        image, mask = (np.array(Image.open(folder / kind / f"{row.patch}.png")) for kind in ("img", "mask"))
        with openslide.OpenSlide(str(slides / f"{row.slide}.tif")) as slide:
            wanted = np.array(slide.read_region((row.x, row.y), 0, (120, 120)))[..., :3]
        added = np.ones((120, 120), bool)
        added[12:108, 12:108] = False
        assert np.array_equal(image[added], wanted[added])
        assert (mask[added] == 250).all()
        assert (mask[~added] != 250).any()
        assert row.mpp == pytest.approx(0.45)


def xml(tiger, kind="tissue-cells"):
    return sorted((tiger / f"wsirois/wsi-level-annotations/annotations-{kind}-xmls").iterdir())[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: xml(t).write_text(xml(t).read_text()[:400]), r"not XML"),
        (lambda t: xml(t).write_text(xml(t).read_text().replace('"roi"', '"region"')), r"no annotation of the group 'roi'"),
        (lambda t: (t / "wsirois/wsi-level-annotations/images" / f"{xml(t).stem}.tif").unlink(), r"no slide .*\.tif"),
        (lambda t: (t / "wsirois/wsi-level-annotations/annotations-tissue-bcss-masks" / f"{xml(t).stem}.tif").unlink(), r"no such label slide"),
    ],
)  # fmt: skip
def test_bad_slides_are_recorded(drawn, tmp_path, change, text):
    tiger = shutil.copytree(drawn, tmp_path / "tiger")
    change(tiger)
    assert prepare_tiger(options(tiger, tmp_path / "out", level="slide")) == 1
    failed = json.loads((tmp_path / "out/prepare-report.json").read_text())["failed"]
    assert any(pd.Series([entry["message"]]).str.contains(text).item() for entry in failed), failed
    assert len(pd.read_csv(tmp_path / "out/manifest.csv")) >= 16


def test_no_regions_is_an_error(tmp_path):
    (tmp_path / "wsirois/roi-level-annotations").mkdir(parents=True)
    with pytest.raises(DataError, match="no regions: expected tissue-bcss and tissue-cells"):
        find_regions(options(tmp_path, tmp_path))
