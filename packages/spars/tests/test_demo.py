"""The demonstration's mechanics, at a size that takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spars import cli, demo
from spars.data.splits import read_splits
from spars.demo import classifier_keys, run_demo
from spars.errors import DataError

METRICS = {
    *("window_auc", "window_auc_50_voxels", "score_map_dice", "dice_mean", "dice_sd", "hd95_mm"),
    *("policy_score_over_random_walk", "classifier_calls_share"),
}
BASELINE = {"random_walk_dice", "greedy_dice", "cam_dice", "all_positive_dice"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small demonstration: few volumes, few steps, one seed of the evaluation."""
    from spars import synthetic

    output = tmp_path_factory.mktemp("demo") / "out"
    draw, classifier, game = synthetic.write_synthetic, demo.classifier_keys, demo.game_keys
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            synthetic,
            "write_synthetic",
            lambda folder, seed: draw(folder, n_train=6, n_val=2, n_test=3, seed=seed),
        )
        patched.setattr(demo, "classifier_keys", lambda *given: classifier(*given) | {"epochs": 3})
        patched.setattr(
            demo,
            "game_keys",
            lambda *given: game(*given) | {"iterations": 2, "n_games": 8, "eval_seeds": 2},
        )
        assert cli.main(["demo", "--output", str(output), "--seed", "3", "--device", "cpu"]) == 0
    return output


def test_results_have_every_number_that_is_promised(finished):
    content = json.loads((finished / "results.json").read_text())
    assert content["metrics"].keys() == METRICS
    assert content["baseline"].keys() >= BASELINE
    assert content["seconds"] > sum(content["steps_seconds"].values()) * 0.99
    shares = [
        *content["baseline"].values(),
        content["metrics"]["window_auc"],
        content["metrics"]["dice_mean"],
    ]
    assert all(0 <= value <= 1 for value in shares)
    assert content["metrics"]["classifier_calls_share"] <= 0.1


def test_numbers_are_those_of_the_evaluation(finished):
    content = json.loads((finished / "results.json").read_text())
    summary = json.loads((finished / "demo" / "evaluation" / "summary.json").read_text())
    assert content["metrics"]["dice_mean"] == summary["agent"]["dice_mean"]
    assert content["baseline"]["cam_dice"] == summary["cam"]["dice_mean"]
    named = json.loads((finished / "demo" / "evaluation" / "results.json").read_text())["cases"]
    assert tuple(named) == read_splits(finished / "demo" / "data" / "splits.json").test


def test_the_page_shows_the_comparison_first(finished):
    page = (finished / "report.html").read_text()
    assert page.index("evaluation methods") < page.index("game learning") < page.index("classifier learning")
    assert "score map of all windows" in page
    assert len(list((finished / "figures").glob("*.png"))) >= 4


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not an earlier demonstration"):
        run_demo(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_image_labels_never_show_the_classifier_a_voxel_label(tmp_path):
    keys = classifier_keys(tmp_path, 0, "image", "cpu")
    assert keys["label_source"] == "csv"
    assert classifier_keys(tmp_path, 0, "mask", "cpu")["label_source"] == "mask"
