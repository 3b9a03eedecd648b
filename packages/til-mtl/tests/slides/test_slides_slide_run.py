"""One slide from start to end, against the model run on the whole image at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from medshared.batch import EmptyResultError
from medshared.slides import SlideError, open_slide, write_label_pyramid, write_pyramid
from til_mtl.errors import DataError
from til_mtl.leaderboard import evaluate_l1
from til_mtl.peaks import find_peaks
from til_mtl.slides.slide_run import RESULTS, clear_results, score_slide
from til_mtl.til_score import STROMA, score_map

from .conftest import CELL, HEIGHT, WIDTH, colour_rule
from .conftest import TUMOR as TUMOR_COLOUR


def expected_maps(pixels, tissue_width=WIDTH * 6 // 7):
    logits, cells = colour_rule(pixels[None])
    labels = np.array([3, 1, 2], np.uint8)[logits[0].argmax(axis=0)]
    labels[:, tissue_width:] = 0
    return labels, np.where(labels > 0, cells[0], np.nan)


def read_cells(folder, mpp=0.5):
    content = json.loads((folder / "detected-lymphocytes.json").read_text())
    assert content["type"] == "Multiple points"
    assert content["version"] == {"major": 1, "minor": 0}
    return np.array([(*each["point"], each["probability"]) for each in content["points"]]) / (
        mpp / 1000,
        mpp / 1000,
        1,
        1,
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"patch": 64, "margin": 2, "batch": 1}, {"patch": 256, "margin": 60, "batch": 64, "nms": 18.0}],
)
def test_equals_the_whole_image_whatever_the_tiles(slide, masks, pixels, options, tmp_path, changes):
    chosen = options(**changes)
    facts = score_slide(slide, masks / "a_tissue.tif", tmp_path / "a", chosen, colour_rule)
    labels, cells = expected_maps(pixels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / "segmentation.tif"), labels)
    peaks = find_peaks(cells, chosen.conf, chosen.nms)
    assert len(peaks) > 60
    found = read_cells(tmp_path / "a")
    np.testing.assert_allclose(found[:, [0, 1, 3]], peaks, rtol=1e-9)
    expected = score_map(labels, peaks, 0.5)
    row = facts["row"]
    assert row["tils-score"] == pytest.approx(expected.score)
    assert row["n_lymphocytes_stroma"] == expected.n
    assert 10 < expected.n < len(peaks) - 10
    assert row["stroma_area_mm2"] == pytest.approx(expected.stroma_area_mm2)
    assert row["tissue_area_mm2"] == pytest.approx((labels > 0).sum() * 0.25e-6)
    assert json.loads((tmp_path / "a" / "til-score.json").read_text()) == pytest.approx(expected.score)


def test_files_open_in_other_programs(slide, masks, options, tmp_path):
    folder = tmp_path / "a"
    score_slide(slide, masks / "a_tissue.tif", folder, options(), colour_rule)
    with open_slide(folder / "segmentation.tif") as opened:
        assert opened.spacing_um == pytest.approx(0.5)
        assert opened.dimensions == (WIDTH, HEIGHT)
        assert len(opened.level_dimensions) == 2
        assert set(np.unique(opened.read_level((0, 0), 0, (WIDTH, HEIGHT)))) == {0, 1, 2, 3}
    tissue = json.loads((folder / "tissue.geojson").read_text())["features"]
    names = [feature["properties"]["classification"]["name"] for feature in tissue]
    assert {"Tumor", "Stroma", "Other"} <= set(names)
    borders = np.concatenate([feature["geometry"]["coordinates"][0] for feature in tissue])
    assert (borders.max(axis=0) <= (WIDTH, HEIGHT)).all()
    cells = json.loads((folder / "cells.geojson").read_text())["features"]
    assert {feature["geometry"]["type"] for feature in cells} == {"Point"}
    points = [feature["geometry"]["coordinates"] for feature in cells]
    found = read_cells(folder)
    np.testing.assert_array_equal(points, np.round(found[:, :2]) + 0.5)
    described = [feature["properties"] for feature in cells]
    assert {each["objectType"] for each in described} == {"detection"}
    np.testing.assert_allclose(
        [each["measurements"]["Probability"] for each in described], found[:, 3], atol=5.1e-5
    )
    classes = {each["classification"]["name"] for each in described}
    assert classes == {"Lymphocyte: Tumor", "Lymphocyte: Stroma", "Lymphocyte: Other"}
    assert all(len(each["classification"]["color"]) == 3 for each in described)
    page = (folder / "report.html").read_text()
    assert "TIL score of a" in page
    assert "data:image/png" in page


def test_a_slide_of_finer_pixels_is_reduced(pixels, options, tmp_path):
    fine = pixels.repeat(2, axis=0).repeat(2, axis=1)
    path = write_pyramid(
        tmp_path / "f.tif", fine, 0.25, "generic", tile_px=64, subsampling=(1, 1), quality=100
    )
    facts = score_slide(path, None, tmp_path / "f", options(masks=None), colour_rule)
    labels, _ = expected_maps(pixels)
    found = tifffile.imread(tmp_path / "f" / "segmentation.tif")
    assert found.shape == (HEIGHT, WIDTH)
    inside = found > 0
    assert inside.mean() > 0.75
    assert (found[inside] == labels[inside]).mean() > 0.97
    assert (facts["mpp_level0"], facts["row"]["mpp"]) == pytest.approx((0.25, 0.5))
    cells = json.loads((tmp_path / "f" / "cells.geojson").read_text())["features"]
    points = np.array([feature["geometry"]["coordinates"] for feature in cells])
    assert points.max() > WIDTH  # level-0 pixels
    colours = fine[points[:, 1].astype(int), points[:, 0].astype(int)]
    assert np.median(colours.mean(axis=1)) < 100


@pytest.mark.parametrize(("mpp", "map_mpp"), [(0.25, 0.5), (0.4567, 0.4567), (0.4, 0.5), (0.2323, 0.5)])
def test_cells_lie_where_they_are_whatever_the_slides_pixels(options, tmp_path, mpp, map_mpp):
    """Discs every 40 µm are found in µm, without drift over the slide."""
    width, height = round(300 / mpp), round(220 / mpp)
    places = np.array([(x, y) for x in range(30, 300, 40) for y in range(30, 220, 40)], float)
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width, 3), TUMOR_COLOUR, np.uint8)
    for x, y in places / mpp:
        image[np.hypot(columns + 0.5 - x, rows + 0.5 - y) <= 4 / mpp] = CELL
    path = write_pyramid(
        tmp_path / "s.tif", image, mpp, "generic", tile_px=128, downsamples=(1, 4), subsampling=(1, 1)
    )
    facts = score_slide(path, None, tmp_path / "s", options(masks=None, nms=20.0), colour_rule)
    assert facts["row"]["mpp"] == pytest.approx(map_mpp, rel=0.02)
    with open_slide(tmp_path / "s" / "segmentation.tif") as opened:
        assert opened.spacing_um == pytest.approx(facts["row"]["mpp"], rel=1e-5)
        assert np.array(opened.dimensions) * opened.spacing_um == pytest.approx([300, 220], abs=1)
    content = json.loads((tmp_path / "s" / "detected-lymphocytes.json").read_text())
    in_um = np.array([each["point"][:2] for each in content["points"]]) * 1000
    points = json.loads((tmp_path / "s" / "cells.geojson").read_text())["features"]
    in_level0 = np.array([each["geometry"]["coordinates"] for each in points]) * mpp
    for found in (in_um, in_level0):
        assert len(found) == len(places)
        distance = np.hypot(*(found[:, None] - places[None]).transpose(2, 0, 1)).min(axis=0)
        assert distance.max() < 4  # within the disc: the rule is flat there


def damage(slide, target, tiles):
    target.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        places = [(page.dataoffsets[y * across + x], page.databytecounts[y * across + x]) for x, y in tiles]
    with target.open("r+b") as handle:
        for offset, size in places:
            handle.seek(offset)
            handle.write(b"\0" * size)
    return target


def test_a_corrupt_tile_is_recorded_and_left_out_of_the_area(slide, masks, options, tmp_path):
    path = damage(slide, tmp_path / "a.tif", [(4, 3)])
    folder = tmp_path / "out"
    whole = score_slide(slide, masks / "a_tissue.tif", tmp_path / "whole", options(), colour_rule)
    facts = score_slide(path, masks / "a_tissue.tif", folder, options(), colour_rule)
    assert 1 <= facts["n_faulty_tiles"] <= 4
    labels = tifffile.imread(folder / "segmentation.tif")
    assert (labels[3 * 64 : 4 * 64, 4 * 64 : 5 * 64] == 0).all()
    lost = (tifffile.imread(tmp_path / "whole" / "segmentation.tif") > 0).sum() - (labels > 0).sum()
    area = whole["row"]["tissue_area_mm2"] - facts["row"]["tissue_area_mm2"]
    assert area == pytest.approx(lost * 0.25e-6)
    assert (folder / "faults.csv").read_text().startswith("x,y,reason\n")
    assert "cannot be decoded" in facts["reason"]
    assert "cannot be decoded" in (folder / "report.html").read_text()
    x, y = read_cells(folder)[:, :2].astype(int).T
    assert (labels[y, x] > 0).all()


def test_too_many_corrupt_tiles_fail_the_slide(slide, masks, options, tmp_path):
    path = damage(slide, tmp_path / "a.tif", [(x, y) for x in range(4) for y in range(4)])
    with pytest.raises(SlideError, match=r"more than the allowed share of 0\.1; the first is at"):
        score_slide(path, masks / "a_tissue.tif", tmp_path / "out", options(), colour_rule)
    assert not (tmp_path / "out" / "segmentation.tif").exists()
    assert not (tmp_path / "out" / "til-score.json").exists()


def test_without_stroma_the_score_is_null_with_a_reason(masks, slide, options, tmp_path, caplog):
    def no_stroma(tiles):
        logits, cells = colour_rule(tiles)
        logits[:, 2] = -1e9
        return logits, cells

    facts = score_slide(slide, masks / "a_tissue.tif", tmp_path / "a", options(), no_stroma)
    assert facts["row"]["tils-score"] is None
    assert facts["row"]["n_lymphocytes"] > 0
    assert (tmp_path / "a" / "til-score.json").read_text() == "null\n"
    assert "No stroma was found" in facts["reason"]
    assert "left out of statistics" in caplog.text


def test_classes_instead_of_scores_give_the_same(slide, masks, options, tmp_path):
    def classes(tiles):
        logits, cells = colour_rule(tiles)
        return logits.argmax(axis=1).astype(np.uint8), cells

    for name, model in (("a", colour_rule), ("b", classes)):
        score_slide(slide, masks / "a_tissue.tif", tmp_path / name, options(), model)
    first, second = (tifffile.imread(tmp_path / name / "segmentation.tif") for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_probability_maps_are_written_when_asked_for(slide, masks, pixels, options, tmp_path):
    def shares(tiles):
        logits, cells = colour_rule(tiles)
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / 5000)
        return powers / powers.sum(axis=1, keepdims=True), cells

    score_slide(slide, masks / "a_tissue.tif", tmp_path / "a", options(save_maps=True), shares)
    tissue, cells = shares(pixels[None])
    inside = np.arange(WIDTH) < WIDTH * 6 // 7
    for name, truth in (("stroma", tissue[0, 2]), ("cell", cells[0])):
        found = tifffile.imread(tmp_path / "a" / f"{name}-probability.tif")
        np.testing.assert_allclose(found, np.rint(255 * truth * inside), atol=1)


def test_the_tumour_bulk_limits_the_stroma(slide, masks, options, tmp_path):
    biopsy = score_slide(slide, masks / "a_tissue.tif", tmp_path / "a", options(region="bulk"), colour_rule)
    assert "as in a biopsy" in biopsy["reason"]
    anywhere = score_slide(slide, masks / "a_tissue.tif", tmp_path / "b", options(), colour_rule)
    assert biopsy["row"]["tils-score"] == anywhere["row"]["tils-score"]


def test_a_slide_without_spacing_names_the_flag(pixels, options, tmp_path):
    path = write_pyramid(tmp_path / "n.tif", pixels, None, "generic", tile_px=64, downsamples=(1, 4))
    with pytest.raises(DataError, match=r"n\.tif: the slide does not say .* --mpp-of n=VALUE"):
        score_slide(path, None, tmp_path / "n", options(masks=None), colour_rule)
    for name in ("n", "n.tif"):
        given = options(masks=None, mpp_of={name: 0.5})
        assert score_slide(path, None, tmp_path / "n", given, colour_rule)["mpp_level0"] == 0.5


def test_blank_slides_and_empty_masks_have_no_score(options, slide, tmp_path):
    blank = np.full((300, 400, 3), 245, np.uint8)
    path = write_pyramid(tmp_path / "b.tif", blank, 0.5, "generic", tile_px=64, downsamples=(1, 4))
    with pytest.raises(EmptyResultError, match="no tissue was found by colour; give --masks"):
        score_slide(path, None, tmp_path / "b", options(), colour_rule)
    mask = write_label_pyramid(tmp_path / "m.tif", np.zeros((HEIGHT, WIDTH), np.uint8), 0.5, tile_px=64)
    with pytest.raises(EmptyResultError, match=r"m\.tif is empty"):
        score_slide(slide, mask, tmp_path / "a", options(), colour_rule)


def test_a_mask_of_another_slide_is_refused(slide, options, tmp_path):
    mask = write_label_pyramid(tmp_path / "m.tif", np.ones((300, 700), np.uint8), 0.5, tile_px=64)
    with pytest.raises(DataError, match=r"700 x 300 px, but a\.tif has 700 x 520"):
        score_slide(slide, mask, tmp_path / "a", options(), colour_rule)


def test_a_model_of_the_wrong_shape_is_named(slide, masks, options, tmp_path):
    with pytest.raises(ValueError, match="the model returned maps of shape"):
        score_slide(
            slide,
            masks / "a_tissue.tif",
            tmp_path / "a",
            options(),
            lambda tiles: (np.zeros((len(tiles), 3, 5, 5)), np.zeros((len(tiles), 5, 5))),
        )


def test_clearing_leaves_other_files(tmp_path):
    for name in (*RESULTS, "notes.txt", "til-score.json.done.json", ".cells.geojson.12-ab.tmp"):
        (tmp_path / name).write_text("x")
    clear_results(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_stroma_is_the_challenges_value():
    assert STROMA == 2


def test_regions_of_slides_can_be_scored_by_leaderboard_1(slide, masks, pixels, options, tmp_path):
    """What is predicted for a slide, cut to its regions, is what is predicted for the regions."""
    chosen = options(conf=0.3, nms=6.0)
    score_slide(slide, masks / "a_tissue.tif", chosen.out / "a", chosen, colour_rule)
    labels, cells = expected_maps(pixels)
    peaks = find_peaks(cells, 0.3, 6.0)
    truth = tmp_path / "truth"
    (truth / "masks").mkdir(parents=True)
    images, annotations = [], []
    for number, (x1, y1, x2, y2) in enumerate([(40, 60, 240, 190), (180, 300, 420, 520)]):
        name = f"a_[{x1}, {y1}, {x2}, {y2}]"
        Image.fromarray(labels[y1:y2, x1:x2]).save(truth / "masks" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "width": x2 - x1, "height": y2 - y1})
        inside = peaks[(peaks[:, 0] >= x1) & (peaks[:, 0] < x2) & (peaks[:, 1] >= y1) & (peaks[:, 1] < y2)]
        annotations += [
            {"image_id": number, "bbox": [x - x1 - 8, y - y1 - 8, 16, 16]} for x, y, _ in inside.tolist()
        ]
    content = {"images": images, "annotations": annotations, "categories": []}
    (truth / "tiger-coco.json").write_text(json.dumps(content))
    metrics = evaluate_l1(chosen.out, truth, 0.5, 8, tmp_path / "l1")
    assert [metrics["dice"][tissue] for tissue in ("tumour", "stroma", "rest")] == [1.0, 1.0, 1.0]
    assert metrics["froc"]["score"] == 1.0
    assert metrics["froc"]["n_predictions"] == metrics["froc"]["n_truth"] == len(annotations) > 10
