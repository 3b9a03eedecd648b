"""Held-out patients: metrics and pairing by hand, files in the geometry of the source, nothing learnt from the test."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon

from medshared.files import read_json
from medshared.metrics.segmentation import overlap
from spars.agent import Agent, AgentMeta, build_policy
from spars.boards import load_boards
from spars.config import GameConfig
from spars.data.layout import find_cases
from spars.errors import DataError
from spars.evaluation import Truth, evaluate, measure, score_maps
from spars.evaluation_tables import METRICS, compare, summarise, verdict
from spars.lattice import Lattice
from spars.models.build import ClassifierMeta, save_classifier
from spars.models.window_net import WindowNet
from spars.readout import read_map
from spars.synthetic import write_synthetic

GRID, WINDOW, HU = (16, 16, 12), (8, 8, 4), (-60.0, 160.0)
SEARCHES = {
    "agent": 2,
    "untrained_agent": 2,
    "random_walk": 2,
    "greedy_restarts": 2,
    "best_first": 1,
    "greedy": 1,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_synthetic(folder / "data", 3, 2, 3, size=(16, 16, 12))
    torch.manual_seed(2)
    meta = ClassifierMeta("window", WINDOW, "native", HU, 2)
    network = WindowNet(WINDOW, 2).eval()
    with torch.no_grad():  # scores worth telling apart
        network.logits.weight *= 20
    save_classifier(folder / "w.pth", network, meta)
    agent = AgentMeta("mlp", GRID, WINDOW, 4, 2, 2, 1, ("liver_0", "liver_1", "liver_2"))
    Agent(build_policy(agent), agent).save(folder / "agent.pt")
    return folder


def config(home: Path, **keys) -> GameConfig:
    sizes = {"full_image_size": GRID, "window_size": WINDOW, "hu_window": HU, "device": "cpu", "memory": 1}
    paths = {"data_dir": home / "data", "classifier_weights": home / "w.pth"}
    return GameConfig(
        **{**sizes, **paths, "budget": 0.2, "eval_seeds": 2, "candidates": 4, "max_steps": 4, **keys}
    )


@pytest.fixture(scope="module")
def done(home) -> Path:
    evaluate(config(home), home / "run", agent=home / "agent.pt")
    return home / "run"


def rows(folder: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_every_method_on_every_test_case(done) -> None:
    found = rows(done)
    assert {row["case"] for row in found} == {"liver_5", "liver_6", "liver_7"}
    for method in {row["method"] for row in found}:
        mine = [row for row in found if row["method"] == method]
        assert len(mine) == 3 * SEARCHES.get(method, 1), method
    windows = len(Lattice(GRID, WINDOW, 4))
    budget = int(0.2 * windows)
    for row in found:
        if row["method"] in SEARCHES and row["method"] != "greedy":
            assert float(row["windows"]) == budget
            assert float(row["windows_share"]) == pytest.approx(budget / windows)
    shown = read_json(done / "results.json")
    assert set(shown["methods"]) == {row["method"] for row in found}


def test_the_metrics_are_those_of_the_files_in_the_geometry_of_the_source(done, home) -> None:
    first = {
        row["case"]: row for row in reversed(rows(done)) if row["method"] == "agent" and row["seed"] == "0"
    }
    threshold = read_json(done / "readings.json")["agent"]["threshold"]
    for name, row in first.items():
        truth = nibabel.load(home / "data" / "labelsTr" / f"{name}.nii.gz")
        mask = nibabel.load(done / "pred" / f"{name}.nii.gz")
        probability = nibabel.load(done / "prob" / f"{name}.nii.gz")
        np.testing.assert_allclose(mask.affine, truth.affine, atol=1e-4)
        np.testing.assert_allclose(probability.affine, truth.affine, atol=1e-4)
        predicted, tumour = np.asarray(mask.dataobj) > 0, np.asarray(truth.dataobj) == 2
        np.testing.assert_array_equal(predicted, np.asarray(probability.dataobj, np.float32) > threshold)
        both, sizes = (predicted & tumour).sum(), (predicted.sum(), tumour.sum())
        assert float(row["dice"]) == pytest.approx(2 * both / sum(sizes) if sum(sizes) else 1.0)
        assert int(row["tp"]) == both
        ml = abs(np.linalg.det(truth.affine[:3, :3])) / 1000
        assert float(row["true_ml"]) == pytest.approx(sizes[1] * ml, rel=1e-5)
        assert float(row["volume_error_ml"]) == pytest.approx((sizes[0] - sizes[1]) * ml, rel=1e-5, abs=1e-9)


def test_thresholds_and_searches_know_nothing_of_the_test_labels(home, done, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)
    for name in ("liver_5", "liver_6", "liver_7"):
        path = data / "labelsTr" / f"{name}.nii.gz"
        image = nibabel.load(path)
        other = np.zeros(image.shape, np.uint8)
        other[:3, :3, :3] = 2
        nibabel.save(nibabel.Nifti1Image(other, image.affine), path)
    evaluate(config(home, data_dir=data), tmp_path / "run", agent=home / "agent.pt")
    assert read_json(tmp_path / "run" / "readings.json") == read_json(done / "readings.json")
    for name in ("liver_5", "liver_6", "liver_7"):
        ours, theirs = (
            np.asarray(nibabel.load(run / "prob" / f"{name}.nii.gz").dataobj)
            for run in (tmp_path / "run", done)
        )
        np.testing.assert_array_equal(ours, theirs)
    assert [row["dice"] for row in rows(tmp_path / "run")] != [row["dice"] for row in rows(done)]


def test_the_frame_of_the_grid_and_a_given_threshold(home, tmp_path) -> None:
    made = config(home, eval_space="grid", segmentation_threshold=0.4)
    evaluate(made, tmp_path / "run", agent=None)
    made = made.resolved()
    found = [row for row in rows(tmp_path / "run") if row["method"] == "score_map"]
    for one, row in zip(load_boards(made, find_cases(made.data_dir)[5:]), found, strict=True):
        lattice = one.table.lattice
        full = read_map(lattice, one.scores(), np.ones(len(lattice), np.bool_), "visits")
        assert row["case"] == one.name
        assert float(row["dice"]) == pytest.approx(overlap(full > 0.4, one.target(), 1.0).dice)
    assert not (tmp_path / "run" / "comparisons.csv").exists()
    assert read_json(tmp_path / "run" / "results.json")["play"] is None


def test_an_agent_is_not_judged_on_what_it_was_trained_on(home, tmp_path) -> None:
    splits = {"train": ["liver_3"], "val": ["liver_4"], "test": ["liver_0", "liver_5"], "seed": 0}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    made = config(home, splits=tmp_path / "splits.json")
    with pytest.raises(
        DataError, match=r"the agent was trained on liver_0 of part 'test'; results would be too good"
    ):
        evaluate(made, tmp_path / "run", agent=home / "agent.pt")
    assert not (tmp_path / "run").exists()


def test_by_agreement_one_volume_is_trained_on_and_judged(home, tmp_path, caplog) -> None:
    made = config(home, protocol="per_image", case="liver_0", eval_seeds=1, memory=2)
    results = evaluate(made, tmp_path / "run", agent=home / "agent.pt")
    assert results["cases"] == ["liver_0"]
    play = results["play"]  # what an agent is shown is a matter of the agent, whose memory is 1
    assert play["ratio"] == pytest.approx(play["agent"] / play["random_walk"])
    made = config(home, eval_seeds=1)
    assert evaluate(made, tmp_path / "val", agent=None, part="val")["cases"] == ["liver_3", "liver_4"]
    assert "thresholds are chosen on the part val, which is reported" in caplog.text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "paper", "memory": None}, "mode standard, found mode paper"),
        ({"window_size": (8, 8, 8)}, "window"),
        ({"full_image_size": (16, 16, 16)}, "was trained with full_image_size"),
        ({"step_size": 2}, "was trained with step_size 4, this run has 2"),
    ],
)
def test_what_cannot_be_evaluated(home, tmp_path, keys, message) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(config(home, **keys), tmp_path / "run", agent=home / "agent.pt")


def test_validation_without_labels_is_named(home, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)
    for name in ("liver_3", "liver_4"):
        (data / "labelsTr" / f"{name}.nii.gz").unlink()
    with pytest.raises(DataError, match=r"part 'val' of the split has no case with voxel labels"):
        evaluate(config(home, data_dir=data), tmp_path / "run", agent=None)


def test_maps_of_all_windows(home, tmp_path) -> None:
    made = config(home)
    assert score_maps(made, tmp_path)["cases"] == ["liver_5", "liver_6", "liver_7"]
    made = made.resolved()
    one = load_boards(made, find_cases(made.data_dir)[5:6])[0]
    lattice = one.table.lattice
    full = read_map(lattice, one.scores(), np.ones(len(lattice), np.bool_), "lattice")
    written = nibabel.load(tmp_path / "prob" / "liver_5.nii.gz")
    np.testing.assert_allclose(np.asarray(written.dataobj), one.to_source(full), atol=1e-6)


# ---------------------------------------------------------------------- numbers by hand


def row(
    case: str, method: str, seed: int, dice: float, hd95: float | None = 1.0, share: float | None = 0.1
) -> dict:
    found = dict.fromkeys(METRICS, dice)
    return {**found, "case": case, "method": method, "seed": seed, "hd95_mm": hd95, "windows_share": share}


ROWS = [
    *(row("a", "agent", s, d) for s, d in ((0, 0.4), (1, 0.6))),
    *(row("b", "agent", s, d, h) for s, d, h in ((0, 0.9, None), (1, 0.7, 5.0))),
    *(row("c", "agent", s, d, None) for s, d in ((0, 0.0), (1, 0.2))),
    *(row(c, "walk", 0, d) for c, d in (("c", 0.3), ("b", 0.5), ("a", 0.1))),
]


def test_a_patient_counts_once() -> None:
    found = summarise(ROWS)["agent"]
    values = [0.5, 0.8, 0.1]
    assert (found["n"], found["seeds"], found["n_hd95_undefined"]) == (3, 2, 3)
    assert found["dice_mean"] == pytest.approx(np.mean(values))
    assert found["dice_sd"] == pytest.approx(np.std(values, ddof=1))
    assert found["dice_sd_population"] == pytest.approx(np.std(values))
    assert found["dice_median"] == pytest.approx(0.5)
    assert found["hd95_mm_mean"] == pytest.approx(np.mean([1.0, 5.0]))  # a: 1 and 1, b: 5, c: none
    low, high = found["dice_ci95"]
    assert 0.1 <= low < np.mean(values) < high <= 0.8 + 1e-9
    alone = summarise([row("a", "x", 0, 0.5, None, None)])["x"]
    assert alone["dice_sd"] is None
    assert alone["dice_ci95"] is None
    assert alone["hd95_mm_mean"] is None
    assert alone["windows_share"] is None


def test_comparisons_are_paired_by_patient() -> None:
    (found,) = compare(ROWS, "agent")
    differences = [0.5 - 0.1, 0.8 - 0.5, 0.1 - 0.3]
    assert found["n"] == 3
    assert found["difference"] == pytest.approx(np.mean(differences))
    assert found["p_wilcoxon"] == pytest.approx(wilcoxon(differences).pvalue)
    assert min(differences) - 1e-9 <= found["low"] <= found["high"] <= max(differences) + 1e-9
    fewer = [r for r in ROWS if not (r["method"] == "walk" and r["case"] == "c")]
    assert compare(fewer, "agent")[0]["difference"] == pytest.approx(np.mean(differences[:2]))
    same = [{**r, "method": m} for m in ("one", "two") for r in ROWS[:4]]
    assert compare(same, "one")[0]["p_wilcoxon"] is None


def test_nothing_found_anywhere_is_said_without_dividing_by_it() -> None:
    nothing = [row(c, m, 0, 0.0) for c in "ab" for m in ("agent", "score_map", "random_walk")]
    text = verdict(summarise(nothing), compare(nothing, "agent"))
    assert "reaches Dice 0.000, the score map of all windows 0." in text
    assert "not told apart from random_walk" in text


BOX = np.zeros((6, 6, 6), np.bool_)
BOX[1:3, 1:3, 1:3] = True
NONE = np.zeros_like(BOX)


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [
        (NONE, NONE, {"dice": 0.7, "precision": None, "recall": None, "hd95_mm": 0.0, "lesion_recall": None}),
        (BOX, NONE, {"dice": 0.0, "precision": 0.0, "recall": None, "hd95_mm": None, "lesion_recall": None}),
        (NONE, BOX, {"dice": 0.0, "precision": None, "recall": 0.0, "hd95_mm": None, "lesion_recall": 0.0}),
        (BOX, BOX, {"dice": 1.0, "precision": 1.0, "recall": 1.0, "hd95_mm": 0.0, "lesion_recall": 1.0}),
    ],
)
def test_what_is_undefined_is_null(mask, truth, expected) -> None:
    found = measure(mask, Truth(truth, (1.0, 2.0, 3.0), native=True), 0.7)
    assert {name: found[name] for name in expected} == expected
    assert found["pred_ml"] == pytest.approx(mask.sum() * 6 / 1000)
    assert found["volume_error_ml"] == pytest.approx((int(mask.sum()) - int(truth.sum())) * 6 / 1000)
