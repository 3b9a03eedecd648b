"""The truth of the drawing through all of the scoring, without any learning: every score must be perfect."""

import json

import numpy as np
import pytest
from PIL import Image

from til_mtl.data.store import component_centres
from til_mtl.data.tiger import tissue_classes
from til_mtl.leaderboard import evaluate_l1
from til_mtl.original.detection import (
    FROC,
    compute_froc_score,
    extract_predictions,
    non_max_supression_distance,
)
from til_mtl.prepare.cells import rasterise_cells
from til_mtl.synthetic_slides import TigerSettings, write_tiger
from til_mtl.til_score import score_map

SMALL = TigerSettings(tissue_regions=0, cell_regions=0, held_out_regions=3, slides=4, tissue_px=(192, 128))
MPP = 0.5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiger(tmp_path_factory.mktemp("truth"), 1, SMALL)


def test_true_maps_and_centres_give_the_planted_scores(data):
    for each in data.slide_truth:
        with np.load(data.truth / "slides" / f"{each.slide}.npz", allow_pickle=False) as truth:
            score = score_map(truth["segmentation"], truth["centres"], data.spacing_um, cell_um=data.cell_um)
        assert score.score == pytest.approx(each.score, rel=1e-12)


def test_true_regions_have_dice_1_and_froc_1(data, tmp_path):
    table = json.loads((data.held_out / "tiger-coco.json").read_text())
    for image in table["images"]:
        name = image["file_name"].rsplit("/", 1)[1].removesuffix(".png")
        classes = tissue_classes(np.array(Image.open(data.held_out / "masks" / f"{name}.png")))
        Image.fromarray(np.array([3, 1, 2], np.uint8)[classes]).save(tmp_path / f"{name}.png")
        boxes = [box["bbox"] for box in table["annotations"] if box["image_id"] == image["id"]]
        centres = [[(x + w / 2) * MPP / 1000, (y + h / 2) * MPP / 1000, 0.5] for x, y, w, h in boxes]
        points = [{"point": point, "probability": 0.9} for point in centres]
        (tmp_path / f"{name}.json").write_text(json.dumps({"type": "Multiple points", "points": points}))
    metrics = evaluate_l1(tmp_path, data.held_out, mpp=MPP)
    assert [metrics["dice"][tissue] for tissue in ("tumour", "stroma", "rest")] == [1.0, 1.0, 1.0]
    assert metrics["froc"]["score"] == 1.0
    assert len(table["annotations"]) > 10


@pytest.mark.parametrize(("shape", "low", "high"), [("disk", 1.0, 1.0), ("square", 0.2, 0.7)])
def test_squares_break_the_points_that_the_original_takes_from_masks(shape, low, high):
    """Of a 16-pixel square the suppression of 18 pixels keeps two corners, both far from the centre."""
    columns, rows = np.meshgrid(np.arange(24, 500, 32), np.arange(24, 500, 32))
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    mask = rasterise_cells(np.column_stack([centres - 8, np.full((len(centres), 2), 16)]), (512, 512), shape)
    truth = non_max_supression_distance(extract_predictions(mask.astype(float), 0.1), 18)
    perfect = np.column_stack([centres - 0.5, np.ones(len(centres))])  # pixels, not corners between them
    sensitivity, false_positives = FROC([perfect], [truth], faithful=True)
    assert low <= compute_froc_score(false_positives, sensitivity, faithful=True) <= high
    assert (len(truth) > 1.5 * len(centres)) == (shape == "square")
    # Component centroids have neither fault.
    assert np.array_equal(component_centres(mask == 1), centres)
