"""One page for each kind of run, made from the files of its folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from medshared.configuration import dump_yaml, load_yaml_or_json
from medshared.files import read_json, write_npz, write_text
from medshared.volumes import write_volume
from spars.config import GameConfig
from spars.data.grid import load_grid_case
from spars.data.layout import find_cases, named_case
from spars.errors import DataError
from spars.game.scorers import StubScorer
from spars.original.selfplay import train_faithful
from spars.prediction import predict
from spars.report_parts import load_shown, read_rows, spread
from spars.reporting import find_kind, try_report, write_report


@pytest.fixture
def copy(tmp_path):
    def copied(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copied


@pytest.fixture(scope="module")
def paper(tiny_runs, tmp_path_factory) -> Path:
    """A game of mode paper of three iterations on one volume."""
    config = GameConfig(
        mode="paper",
        data_dir=tiny_runs.data,
        case="liver_5",
        full_image_size=(24, 24, 16),
        window_size=(6, 6, 4),
        target_size=(6, 6, 4),
        iterations=3,
        device="cpu",
    )
    case = load_grid_case(named_case(find_cases(tiny_runs.data), "liver_5"), config.resolved())
    folder = tmp_path_factory.mktemp("paper") / "run"
    train_faithful(config, folder, case.image, case.label, StubScorer(30, 60))
    return folder


def figures(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").glob("*.png")}


def test_a_classifier_run(tiny_runs, copy):
    folder = copy(tiny_runs.classifier)
    page = write_report(folder).read_text()
    assert find_kind(folder) == "classifier"
    assert figures(folder) == {"learning"}
    auc = read_json(folder / "results.json")["metrics"]["val_auc"]
    for text in (f"{auc:.4f}"[:5], "supervision by region", "crop_size", "Provenance"):
        assert text in page
    assert "not finished" not in page


def test_an_agent_run(tiny_runs, copy):
    folder = copy(tiny_runs.game)
    page = write_report(folder).read_text()
    assert find_kind(folder) == "self-play"
    assert figures(folder) == {"learning", "opponents"}
    for text in ("share of games won", "training volumes", "chosen on validation volumes", "window_size"):
        assert text in page


def test_an_evaluation(tiny_runs, copy):
    folder = copy(tiny_runs.evaluation)
    page = write_report(folder).read_text()
    assert find_kind(folder) == "evaluation"
    assert figures(folder) == {"methods", "dice_over_share", "montage", "probability"}
    verdict = read_json(folder / "results.json")["verdict"]
    for text in (verdict.split(".")[0], "random_walk", "paired by patient", "Grad-CAM"):
        assert text in page
    for name in ("final_predictions_3d", "predicted_and_ground_truth_labels_3d"):
        assert (folder / f"{name}.html").is_file()
        assert (folder / f"{name}.png").is_file()
    assert "http" not in page.split("Provenance")[0].replace("http-equiv", "")


def test_an_evaluation_whose_volumes_are_gone(tiny_runs, copy):
    folder = copy(tiny_runs.evaluation)
    config = load_yaml_or_json(folder / "config.yaml")
    write_text(folder / "config.yaml", dump_yaml({**config, "data_dir": str(folder / "gone")}))
    page = write_report(folder).read_text()
    assert "The volumes cannot be shown" in page
    assert figures(folder) == {"methods", "dice_over_share"}


def test_a_game_of_mode_paper(paper, copy):
    folder = copy(paper)
    page = write_report(folder).read_text()
    assert find_kind(folder) == "original"
    assert figures(folder) == {"learning", "map"}
    for text in ("one and the same volume (liver_5)", "not over patients", "mode paper"):
        assert text in page
    assert (folder / "predicted_and_ground_truth_labels_3d.png").is_file()


def test_a_faithful_game_shows_a_map_of_another_frame(paper, copy):
    folder = copy(paper)
    config = load_yaml_or_json(folder / "config.yaml")
    # The map of a grid that the volume does not have.
    changed = {**config, "mode": "faithful", "opponent": "live", "full_image_size": [20, 20, 12]}
    write_text(folder / "config.yaml", dump_yaml(changed))
    total = np.zeros((20, 20, 12), np.float32)
    total[4:10, 4:10, 4:8] = 0.8
    write_npz(folder / "map.npz", map=total, threshold=0.5)
    page = write_report(folder).read_text()
    assert "map and label lie in different frames" in page
    assert "144" in page
    assert figures(folder) == {"learning"}


def test_a_folder_of_predictions(tiny_runs, tmp_path):
    images = [case.image for case in find_cases(tiny_runs.data)[-2:]] + [tmp_path / "none.nii.gz"]
    keys = {"agent": tiny_runs.agent, "classifier_weights": tiny_runs.weights, "device": "cpu"}
    predict(images, tmp_path / "out", **keys)
    page = write_report(tmp_path / "out").read_text()
    assert find_kind(tmp_path / "out") == "prediction"
    assert figures(tmp_path / "out") == {"montage"}
    assert "Some volumes could not be used" in page
    assert "no such volume" in page


def test_results_may_come_before_their_file(tiny_runs, copy):
    folder = copy(tiny_runs.game)
    results = read_json(folder / "results.json")
    (folder / "results.json").unlink()
    assert "not finished" in write_report(folder).read_text()
    assert "not finished" not in write_report(folder, results).read_text()
    assert not (folder / "results.json").exists()


def test_without_the_extra_the_page_says_what_is_missing(tiny_runs, copy, monkeypatch):
    folder = copy(tiny_runs.evaluation)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    assert "spars[overlay]" in write_report(folder).read_text()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected the folder of a training"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("window_size: [4, 4, 4]\n")
    with pytest.raises(DataError, match=r"found config\.yaml"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        write_report(tmp_path / "none")


def test_damaged_files_are_named(tiny_runs, copy, caplog):
    folder = copy(tiny_runs.evaluation)
    (folder / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="a file is not as this package writes it"):
        write_report(folder)
    assert try_report(folder) is None
    assert "no report" in caplog.text
    (folder / "metrics.csv").write_text('a,b\n1,2,3,"')
    with pytest.raises(DataError, match=r"metrics\.csv: cannot be read as a table"):
        read_rows(folder / "metrics.csv")


def test_a_report_at_the_end_of_a_run(tiny_runs, copy):
    folder = copy(tiny_runs.classifier)
    assert try_report(folder) == folder / "report.html"


def test_empty_cells_are_null(tmp_path):
    (tmp_path / "a.csv").write_text("step,dice,name\n1,,x\n2,0.5,\n")
    assert read_rows(tmp_path / "a.csv") == [
        {"step": 1, "dice": None, "name": "x"},
        {"step": 2, "dice": 0.5, "name": None},
    ]
    assert read_rows(tmp_path / "none.csv") == []


def test_best_worst_and_some_between_are_shown():
    assert spread(list("abcdefg"), 4) == ["a", "c", "e", "g"]
    assert spread(["a"], 4) == ["a"]
    assert spread([], 4) == []


def test_a_segmentation_of_another_volume_is_refused(tiny_runs, tmp_path):
    case = find_cases(tiny_runs.data)[0]
    write_volume(tmp_path / "pred" / f"{case.name}.nii.gz", np.zeros((3, 3, 3), np.uint8), np.eye(4))
    with pytest.raises(DataError, match="the segmentation has"):
        load_shown(case, tmp_path)


def test_shown_volumes_are_in_canonical_axes(tiny_runs):
    """Image, truth and map are turned alike: in all of them the tumour is where it is in the others."""
    for case in find_cases(tiny_runs.data)[-2:]:
        shown = load_shown(case, tiny_runs.evaluation)
        assert shown.truth is not None
        tumour, liver = shown.image[shown.truth].mean(), shown.image[shown.image > -500].mean()
        assert tumour < 30 < liver
        assert shown.probability is not None
        assert shown.probability.shape == shown.image.shape
