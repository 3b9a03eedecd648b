"""Leaderboard 1 on the reference's regions, written as files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from til_mtl.errors import DataError
from til_mtl.leaderboard import evaluate_l1, tissue_confusion

BOX = 8  # edge of an annotated cell's box


def write_points(path, points, mpp=0.5):
    listed = [{"point": [x * mpp / 1000, y * mpp / 1000, 0.5], "probability": p} for x, y, p in points]
    path.write_text(json.dumps({"type": "Multiple points", "points": listed}))


def write_coco(path, regions):
    images = [
        {"id": i, "file_name": f"tissue-cells/images/{name}.png", "width": w, "height": h}
        for i, (name, (w, h), _) in enumerate(regions)
    ]
    boxes = [
        {"id": 0, "image_id": i, "category_id": 1, "bbox": [x - BOX / 2, y - BOX / 2, BOX, BOX]}
        for i, (_, _, points) in enumerate(regions)
        for x, y in np.asarray(points).tolist()
    ]
    path.write_text(json.dumps({"categories": [], "images": images, "annotations": boxes}))


@pytest.fixture
def folders(tmp_path, golden_npz):
    arrays = golden_npz("tiger")
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    masks = truth / "roi-level-annotations" / "tissue-bcss" / "masks"
    masks.mkdir(parents=True)
    pred.mkdir()
    for i in range(3):
        Image.fromarray(arrays[f"dice.gt.{i}"]).save(masks / f"t{i}_[0, 0, 25, 20].png")
        Image.fromarray(arrays[f"dice.pred.{i}"]).save(pred / f"t{i}_[0, 0, 25, 20].png")
    regions = []
    for i in range(5):  # 0.2 mm² in all at 0.5 µm/px
        name = f"c{i}_[0, 0, 400, 400]"
        regions.append((name, (400, 400), arrays[f"froc.gt.{i}"]))
        write_points(pred / f"{name}.json", arrays[f"froc.pred.{i}"])
    cells = truth / "roi-level-annotations" / "tissue-cells"
    cells.mkdir()
    write_coco(cells / "tiger-coco.json", regions)
    return pred, truth


def test_equals_the_reference(folders, golden_json, golden_npz, tmp_path):
    expected, arrays = golden_json("tiger"), golden_npz("tiger")
    metrics = evaluate_l1(*folders, 0.5, 8, tmp_path / "out")
    dice = {key: metrics["dice"][key] for key in expected["dice"]}
    assert dice == pytest.approx(expected["dice"], rel=1e-12)
    np.testing.assert_array_equal(
        metrics["dice"]["confusion"], arrays["dice.confusion_gt_rows_tumour_stroma_rest"]
    )
    for key in ("score", "sensitivities", "area_mm2", "targets"):
        assert metrics["froc"][key] == pytest.approx(expected["froc"][key], rel=1e-12)
    written = json.loads((tmp_path / "out" / "l1_metrics.json").read_text())
    assert written == metrics
    curve = pd.read_csv(tmp_path / "out" / "froc.csv")
    np.testing.assert_allclose(curve["threshold"], arrays["froc.thresholds"])
    np.testing.assert_allclose(curve["sensitivity"], arrays["froc.tpr"])
    np.testing.assert_allclose(curve["fp_per_mm2"], arrays["froc.fp_per_mm2"])
    assert (tmp_path / "out" / "froc.png").stat().st_size > 1000


def test_the_truth_itself_is_perfect(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    (truth / "masks").mkdir(parents=True)
    pred.mkdir()
    name = "a_[10, 20, 74, 68]"
    mask = np.repeat(np.arange(8, dtype=np.uint8), 8 * 48).reshape(64, 48).T
    Image.fromarray(mask).save(truth / "masks" / f"{name}.png")
    Image.fromarray(mask).save(pred / f"{name}.png")
    points = [(8.0, 8.0), (30.5, 20.0), (50.0, 40.0)]
    write_coco(truth / "tiger-coco.json", [(name, (64, 48), points), ("b", (64, 48), [])])
    write_points(pred / f"{name}.json", [(x, y, 1.0) for x, y in points])
    write_points(pred / "b.json", [])
    metrics = evaluate_l1(pred, truth)
    assert [metrics["dice"][tissue] for tissue in ("tumour", "stroma", "rest")] == [1.0, 1.0, 1.0]
    assert np.sum(metrics["dice"]["confusion"]) == 7 * 8 * 48  # label 0 does not count
    assert metrics["froc"]["score"] == 1.0


def test_a_part_that_was_not_predicted_is_left_out_with_its_reason(folders, caplog):
    pred, truth = folders
    for file in pred.glob("*.json"):
        file.unlink()
    metrics = evaluate_l1(pred, truth)
    assert metrics["froc"] is None
    assert "predicted cells" in metrics["left_out"]["froc"]
    assert "froc is left out" in caplog.text
    assert metrics["dice"]["tumour"] > 0
    assert not (pred / "froc.csv").exists()


def test_regions_may_have_any_name(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    truth.mkdir()
    pred.mkdir()
    write_coco(truth / "tiger-coco.json", [("breast 7", (64, 48), [(8.0, 8.0)])])
    write_points(pred / "breast 7.json", [(8.0, 8.0, 0.7)])
    (pred / "predict-report.json").write_text("{}")
    assert evaluate_l1(pred, truth)["froc"]["score"] == 1.0


def _drop_mask(pred, truth):
    next(iter(sorted(pred.glob("*.png")))).unlink()


def _resize_mask(pred, truth):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(pred / "t0_[0, 0, 25, 20].png")


def _colour_mask(pred, truth):
    Image.fromarray(np.full((20, 25, 3), (9, 1, 2), np.uint8)).save(pred / "t0_[0, 0, 25, 20].png")


def _cut_mask(pred, truth):
    file = pred / "t0_[0, 0, 25, 20].png"
    file.write_bytes(file.read_bytes()[:60])


def _label_9(pred, truth):
    file = next(truth.rglob("t0*.png"))
    Image.fromarray(np.full((20, 25), 9, np.uint8)).save(file)


def _drop_points(pred, truth):
    next(pred.glob("c0*.json")).unlink()


def _no_probability(pred, truth):
    next(pred.glob("c0*.json")).write_text('{"points": [{"point": [1, 2, 3]}]}')


def _half_json(pred, truth):
    next(pred.glob("c0*.json")).write_text('{"points": [')


def _box_outside(pred, truth):
    coco = next(truth.rglob("*coco.json"))
    content = json.loads(coco.read_text())
    content["annotations"][3]["bbox"] = [500, 10, 16, 16]
    coco.write_text(json.dumps(content))


def _no_bbox(pred, truth):
    coco = next(truth.rglob("*coco.json"))
    content = json.loads(coco.read_text())
    del content["annotations"][0]["bbox"]
    coco.write_text(json.dumps(content))


def _no_size(pred, truth):
    coco = next(truth.rglob("*coco.json"))
    content = json.loads(coco.read_text())
    del content["images"][0]["width"]
    coco.write_text(json.dumps(content))


def _no_region(pred, truth):
    coco = next(truth.rglob("*coco.json"))
    content = json.loads(coco.read_text())
    content["annotations"][0]["image_id"] = 99
    coco.write_text(json.dumps(content))


def _empty_pred(pred, truth):
    for file in pred.iterdir():
        file.unlink()


def _empty_truth(pred, truth):
    for file in truth.rglob("*.*"):
        file.unlink()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (_drop_mask, r"segmentation\.tif: missing, and there is no t0_.*png either"),
        (_resize_mask, "6 x 5 px, but the region has 25 x 20"),
        (_colour_mask, r"a mask has one channel of labels, found a colour image \(RGB\)"),
        (_cut_mask, "cannot be decoded"),
        (_label_9, r"labels \[9\] are not TIGER's"),
        (_drop_points, r"detected-lymphocytes\.json: missing, and there is no c0_.*json either"),
        (_no_probability, "point 0: expected a point .* and a probability"),
        (_half_json, "the file ends too early"),
        (_box_outside, r"box \[500\.0, 10\.0, 16\.0, 16\.0\] lies outside c\d_.* of 400 x 400 px"),
        (_no_bbox, r"annotations\[0\]: bbox must be \[x, y, width, height\], found None"),
        (_no_size, r"the image 'c0_\[0, 0, 400, 400\]' lacks width or height"),
        (_no_region, r"annotations\[0\]: image_id 99 is unknown"),
        (_empty_pred, "name the files after the regions"),
        (_empty_truth, r"no masks/<region>\.png and no tiger-coco\.json"),
    ],
)
def test_bad_files_are_named(folders, breakage, message):
    breakage(*folders)
    with pytest.raises(DataError, match=message):
        evaluate_l1(*folders)
    assert not (folders[0] / "l1_metrics.json").exists()


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="no such folder; --truth is a folder"):
        evaluate_l1(tmp_path, tmp_path / "nowhere")
    with pytest.raises(DataError, match="--mpp must be positive"):
        evaluate_l1(tmp_path, tmp_path, mpp=0)


def test_unannotated_pixels_do_not_count():
    truth = np.array([[0, 255], [1, 2]], np.uint8)
    prediction = np.array([[0, 0], [2, 2]], np.uint8)
    assert tissue_confusion(prediction, truth).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
