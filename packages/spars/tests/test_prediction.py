"""New volumes: geometry, budget, what goes on past a bad file, and what is not made twice."""

from __future__ import annotations

import csv
import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medshared.configuration import dump_yaml
from medshared.files import read_json, write_json, write_text
from medshared.volumes import read_volume, write_volume
from spars import boards
from spars.agent import load_agent
from spars.data.layout import find_cases
from spars.errors import CheckpointError, DataError
from spars.game.scorers import CountingScorer
from spars.lattice import Lattice
from spars.prediction import COLUMNS, find_images, predict, search_config


@pytest.fixture
def run(tiny_runs):
    def predict_with(images: list[Path], output: Path, **keys) -> int:
        usual = {"agent": tiny_runs.agent, "classifier_weights": tiny_runs.weights, "device": "cpu"}
        return predict(images, output, **{**usual, **keys})

    return predict_with


@pytest.fixture(scope="module")
def images(tiny_runs) -> list[Path]:
    return [case.image for case in find_cases(tiny_runs.data)[-3:]]


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    return {row["case"]: row for row in rows}


def test_results_lie_where_the_images_lie(run, images, tmp_path):
    assert run(images, tmp_path) == 0
    rows = table(tmp_path)
    for path in images:
        name = path.name.removesuffix(".nii.gz")
        image = read_volume(path)
        mask, probability = (nibabel.load(tmp_path / part / f"{name}.nii.gz") for part in ("pred", "prob"))
        assert mask.shape == probability.shape == image.shape
        assert (mask.get_data_dtype(), probability.get_data_dtype()) == (np.uint8, np.float32)
        for each in (mask, probability):
            np.testing.assert_allclose(each.affine, image.affine, atol=1e-5)
        values, voxels = probability.get_fdata(), np.asarray(mask.dataobj)
        assert 0 <= values.min() <= values.max() <= 1
        threshold = float(rows[name]["threshold"])
        assert np.array_equal(voxels == 1, np.asarray(probability.dataobj) > threshold)
        ml = float(np.prod(image.spacing)) / 1000
        assert float(rows[name]["tumour_ml"]) == pytest.approx(voxels.sum() * ml, rel=1e-5)
    assert read_json(tmp_path / "predict-report.json")["counts"] == {"predict": {"done": 3}}


@pytest.mark.parametrize("budget", [0.05, 0.3])
def test_no_more_windows_are_scored_than_the_budget_allows(
    run, images, tiny_runs, tmp_path, monkeypatch, budget
):
    counters = []

    def counting(config):
        counters.append(CountingScorer(load(config)))
        return counters[-1]

    load = boards.load_scorer
    monkeypatch.setattr(boards, "load_scorer", counting)
    assert run(images[:1], tmp_path, budget=budget) == 0
    lattice = Lattice(tiny_runs.keys["full_image_size"], tiny_runs.keys["window_size"])
    (counter,) = counters
    assert 0 < counter.n_windows <= budget * len(lattice)
    (row,) = table(tmp_path).values()
    assert int(row["windows"]) == counter.n_windows
    assert float(row["windows_share"]) == pytest.approx(counter.n_windows / len(lattice))


def test_a_prediction_is_that_of_the_evaluation(run, tiny_runs, tmp_path):
    reading = read_json(tiny_runs.evaluation / "readings.json")["score_map"]
    write_json(tmp_path / "reading.json", reading)
    case = find_cases(tiny_runs.data)[-1]
    assert run([case.image], tmp_path / "full", full=True, reading=tmp_path / "reading.json") == 0
    (row,) = table(tmp_path / "full").values()
    assert float(row["windows_share"]) == 1
    with (tiny_runs.evaluation / "metrics.csv").open() as file:
        found = [r for r in csv.DictReader(file) if r["method"] == "score_map" and r["case"] == case.name]
    assert float(row["tumour_ml"]) == pytest.approx(float(found[0]["pred_ml"]), rel=1e-5)


def test_a_folder_of_slices_is_a_volume(run, images, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    image = read_volume(images[0])
    folder = tmp_path / "patient_7"
    folder.mkdir()
    for k in range(image.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.{k + 1}"
        data.SeriesInstanceUID, data.Modality = "1.2.3", "CT"
        data.PhotometricInterpretation, data.SamplesPerPixel = "MONOCHROME2", 1
        data.Columns, data.Rows = image.shape[:2]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelSpacing, data.ImagePositionPatient = [1.0, 1.0], [0.0, 0.0, 1.5 * k]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelData = image.array[:, :, k].T.astype("<i2").tobytes()
        data.save_as(folder / f"slice{k}", enforce_file_format=True)
    assert run([folder], tmp_path / "out") == 0
    mask = read_volume(tmp_path / "out" / "pred" / "patient_7.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, np.diag([-1, -1, 1.5, 1]), atol=1e-6)


def test_a_seed_gives_the_same_map(run, images, tmp_path):
    def voxels(seed: int, name: str) -> np.ndarray:
        run(images[:1], tmp_path / name, seed=seed)
        return read_volume(next((tmp_path / name / "prob").glob("*.nii.gz"))).array

    first = voxels(1, "a")
    assert np.array_equal(first, voxels(1, "b"))
    assert not np.array_equal(first, voxels(2, "c"))


def test_bad_volumes_do_not_stop_good_ones(run, images, tmp_path):
    bad = tmp_path / "bad"
    good = read_volume(images[0])
    write_volume(
        bad / "nan.nii.gz", np.where(good.array > 90, np.nan, good.array).astype(np.float32), good.affine
    )
    nibabel.save(nibabel.Nifti1Image(np.stack([good.array] * 2, -1), good.affine), bad / "four.nii.gz")
    content = gzip.decompress(images[0].read_bytes())
    (bad / "cut.nii.gz").write_bytes(gzip.compress(content)[:-400])
    (bad / "empty.nii.gz").write_bytes(b"")
    (bad / "notes.txt").write_text("no volume")
    assert run([images[0], bad, tmp_path / "missing.nii.gz", images[1]], tmp_path / "out") == 1
    rows = table(tmp_path / "out")
    said = {
        "nan": "voxels are NaN or infinite",
        "four": "expected three axes",
        "cut": "could not be read",
        "empty": "the file is empty",
        "missing": "no such volume",
    }
    assert {name for name, row in rows.items() if row["status"] == "failed"} == set(said)
    for name, text in said.items():
        assert text in rows[name]["message"]
        assert f"{name}.nii.gz" in rows[name]["message"]
    assert rows[images[0].name.removesuffix(".nii.gz")]["moves"].isdecimal()
    done = {path.name for path in images[:2]}
    for part in ("pred", "prob"):
        assert {path.name for path in (tmp_path / "out" / part).glob("*.nii.gz")} == done


def test_what_is_done_is_not_done_again(run, images, tmp_path):
    output = tmp_path / "out"
    run(images[:2], output)
    made = {path: path.stat().st_mtime_ns for path in output.glob("p*/*.nii.gz")}
    broken = min(made)
    broken.write_bytes(broken.read_bytes()[:-9])
    assert run(images, output) == 0
    assert read_json(output / "predict-report.json")["counts"] == {"predict": {"done": 2, "skipped": 1}}
    again = {path: path.stat().st_mtime_ns for path in made}
    name = broken.name
    assert all((again[path] != made[path]) == (path.name == name) for path in made)
    assert len(table(output)) == 3
    run(images, output, budget=0.2)
    assert read_json(output / "predict-report.json")["counts"] == {"predict": {"done": 3}}
    run(images[:1], output, budget=0.2, overwrite=True)
    assert read_json(output / "predict-report.json")["counts"] == {"predict": {"done": 1}}


def test_threads_give_the_same(run, images, tmp_path):
    run(images, tmp_path / "one")
    run(images, tmp_path / "two", jobs=2)
    for path in (tmp_path / "one").glob("p*/*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "two" / path.parent.name / path.name).read_bytes()


def test_small_lesions_can_be_dropped(run, images, tmp_path):
    run(images[:1], tmp_path / "all", segmentation_threshold=0.02)
    run(images[:1], tmp_path / "one", segmentation_threshold=0.02, largest_component=True)
    run(images[:1], tmp_path / "none", segmentation_threshold=0.02, min_volume_ml=1e6)
    before, one, none = (next(iter(table(tmp_path / name).values())) for name in ("all", "one", "none"))
    assert int(one["lesions"]) == 1
    assert float(one["tumour_ml"]) == pytest.approx(float(before["largest_lesion_ml"]))
    assert (float(none["tumour_ml"]), int(none["lesions"])) == (0, 0)
    assert float(none["removed_ml"]) == pytest.approx(float(before["tumour_ml"]))


def test_folders_of_volumes_and_of_slices(tmp_path):
    for name in ("b10.nii.gz", "b9.nii", ".hidden.nii", "notes.txt"):
        (tmp_path / name).touch()
    output = tmp_path / "out"
    output.mkdir()
    assert [case.name for case in find_images([tmp_path], output)] == ["b9", "b10"]
    series = tmp_path / "patient"
    series.mkdir()
    for k in range(4):
        (series / f"slice{k}").touch()
    (case,) = find_images([series], output)
    assert (case.name, case.image) == ("patient", series)
    parent = tmp_path / "many"
    parent.mkdir()
    shutil.copytree(series, parent / "p1")
    shutil.copytree(series, parent / "p2")
    assert [case.name for case in find_images([parent], output)] == ["p1", "p2"]
    with pytest.raises(DataError, match=r"would both become b9\.nii\.gz"):
        find_images([tmp_path, tmp_path / "b9.nii"], output)
    with pytest.raises(DataError, match="no volumes"):
        find_images([output], tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no images"):
        find_images([], output)


def changed(folder: Path, runs, **meta) -> dict[str, Path]:
    """Return copies of agent and classifier with another description."""
    for path in (runs.agent, runs.agent.with_suffix(".json"), runs.game / "reading.json"):
        shutil.copy(path, folder)
    for path in (runs.weights, runs.weights.with_suffix(".json")):
        shutil.copy(path, folder)
    for name, keys in meta.items():
        file = folder / f"{name}.json"
        write_json(file, {**read_json(file), **keys})
    return {"agent": folder / "agent.pt", "classifier_weights": folder / "classifier.pth"}


def test_agent_and_classifier_must_be_of_one_window(run, images, tiny_runs, tmp_path):
    files = changed(tmp_path, tiny_runs, classifier={"window": [8, 8, 4]})
    with pytest.raises(CheckpointError, match="trained on windows of 8×8×4 voxels, asked to score 6×6×4"):
        run(images, tmp_path / "out", **files)
    assert not list((tmp_path / "out").glob("p*"))


def test_agent_and_classifier_must_be_of_one_hu_window(run, images, tiny_runs, tmp_path):
    files = changed(tmp_path, tiny_runs, classifier={"hu_window": [-100, 300]})
    shutil.copy(tiny_runs.game / "config.yaml", tmp_path)
    with pytest.raises(DataError, match="give the classifier that the agent was trained with"):
        run(images, tmp_path / "out", **files)


def test_weights_must_be_those_of_an_agent_and_a_classifier(run, images, tiny_runs, tmp_path):
    files = changed(tmp_path, tiny_runs)
    with pytest.raises(CheckpointError, match="these are no classifier's weights"):
        run(
            images,
            tmp_path / "out",
            classifier_weights=_alone(tiny_runs.agent, tmp_path),
            agent=files["agent"],
        )
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    shutil.copy(tiny_runs.agent.with_suffix(".json"), tmp_path / "other.json")
    with pytest.raises(CheckpointError, match=r"other\.pt"):
        run(images, tmp_path / "out", agent=other, reading=tiny_runs.game / "reading.json")
    with pytest.raises(CheckpointError, match="no such file"):
        run(images, tmp_path / "out", agent=tiny_runs.game / "none.pt")


def _alone(path: Path, folder: Path) -> Path:
    return Path(shutil.copy(path, folder / "alone.pth"))


def test_settings_are_checked_before_anything_is_written(run, images, tiny_runs, tmp_path):
    reading = tmp_path / "reading.json"
    write_json(reading, {"rule": "best", "threshold": 0.5})
    faults = [
        ({"budget": 0.0}, "budget is a share"),
        ({"window_size": (8, 8, 4)}, r"was trained with window_size \(6, 6, 4\)"),
        ({"mode": "faithful"}, "in mode standard"),
        ({"min_volume_ml": -1.0}, "min_volume_ml must be at least 0"),
        ({"reading": reading}, "expected rule visits, lattice, smoothed"),
        ({"reading": tmp_path / "none.json"}, "cannot be used as reading rule"),
    ]
    for keys, text in faults:
        with pytest.raises(DataError, match=text):
            run(images, tmp_path / "out", **keys)
    for keys in ({"segmentation_threshold": 2.0}, {"buget": 0.1}):
        with pytest.raises(ValidationError, match=next(iter(keys))):
            run(images, tmp_path / "out", **keys)
    assert not (tmp_path / "out").exists()


def test_an_agent_searches_as_its_run_says_unless_it_is_told_otherwise(tiny_runs, tmp_path):
    files = changed(tmp_path, tiny_runs)
    written = {"budget": 0.25, "spacing": [1.0, 1.0, 1.0], "start_moves": 5, "n_games": 3}
    write_text(tmp_path / "config.yaml", dump_yaml(written))
    agent = load_agent(files["agent"])
    config = search_config(agent, files["agent"], files["classifier_weights"], {"start_moves": 7, "seed": 3})
    assert (config.budget, config.spacing, config.start_moves, config.seed) == (0.25, (1, 1, 1), 7, 3)
    assert (config.window_size, config.hu_window) == ((6, 6, 4), (-60, 160))
    assert config.n_games == 64
    (tmp_path / "config.yaml").write_text("budget: much")
    with pytest.raises(DataError, match=r"config\.yaml: cannot be used as the configuration"):
        search_config(agent, files["agent"], files["classifier_weights"], {})
