"""New stacks: the numbers are those of the evaluation, unchanged stacks are not read twice, layouts are checked."""

import argparse
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from infection_mt import commands
from infection_mt.config import Config
from infection_mt.data.prepare import prepare_data
from infection_mt.inference import predict_table
from infection_mt.models.checkpoint import load_model
from infection_mt.plate_report import plate_map, well_place
from infection_mt.prediction import (
    COLUMNS,
    PredictionSettings,
    choose_positions,
    find_stacks,
    load_ensemble,
    parse_layout,
    predict_stacks,
    well_curves,
)
from medshared.files import read_json

CPU = torch.device("cpu")
SETTINGS = PredictionSettings(frames_per_hour=0.125)


@pytest.fixture
def best(tiny_run):
    return tiny_run / "checkpoints" / "best.pt"


@pytest.fixture
def folder(tiny_data, tmp_path):
    """Three infected stacks that may be changed."""
    target = tmp_path / "stacks"
    target.mkdir()
    for path in sorted(tiny_data.infected_dir.iterdir())[:3]:
        shutil.copy2(path, target)
    return target


def test_values_are_those_of_the_evaluation(tiny_run, best, tmp_path):
    config = Config.model_validate(read_json(tiny_run / "results.json")["config"]).resolved()
    data = prepare_data(config)
    table = data.tables["test"]
    expected = predict_table(load_model(best)[0], table, data.store, config, device=CPU, batch_size=7)
    paths = sorted({stack.path for stack in table.stacks})
    found = predict_stacks(paths, load_ensemble([best], CPU), tmp_path / "out", SETTINGS).table
    rows = found.set_index(["stack", "frame_index"])
    picked = rows.loc[
        [(table.stacks[s].path.name, f) for s, f in zip(table.stack_index, table.frame_index, strict=True)]
    ]
    np.testing.assert_allclose(picked["probability_infected"], expected.probability, atol=2e-6)
    np.testing.assert_allclose(picked["time_hours"], expected.time, atol=2e-5)
    np.testing.assert_array_equal(picked["hours_since_start"], table.hours)
    assert list(found.columns) == COLUMNS
    assert found["probability_std"].max() == 0


def test_unchanged_stacks_are_reused(best, folder, tmp_path):
    ensemble, paths, out = load_ensemble([best], CPU), find_stacks([folder]), tmp_path / "out"
    first = predict_stacks(paths, ensemble, out, SETTINGS, resume=True)
    assert (first.done, first.reused, len(first.failed)) == (3, 0, 0)
    again = predict_stacks(paths, ensemble, out, SETTINGS, resume=True)
    assert (again.done, again.reused) == (0, 3)
    pd.testing.assert_frame_equal(first.table, again.table, check_dtype=False)
    tifffile.imwrite(paths[1], np.random.default_rng(0).integers(0, 900, (2, 32, 32)).astype(np.uint16))
    changed = predict_stacks(paths, ensemble, out, SETTINGS, resume=True)
    assert (changed.done, changed.reused) == (1, 2)
    assert len(changed.table) == len(first.table) - 4
    other = PredictionSettings(frames_per_hour=0.25)
    assert predict_stacks(paths, ensemble, out, other, resume=True).done == 3
    assert predict_stacks(paths, ensemble, out, SETTINGS).done == 3


def test_failures_go_when_they_are_mended(best, folder, tmp_path):
    ensemble, out = load_ensemble([best], CPU), tmp_path / "out"
    sound = find_stacks([folder])[0].read_bytes()
    find_stacks([folder])[0].write_bytes(sound[:50])
    report = predict_stacks(find_stacks([folder]), ensemble, out, SETTINGS)
    assert list(report.failed) == [str(find_stacks([folder])[0])]
    assert (out / "failed.csv").exists()
    find_stacks([folder])[0].write_bytes(sound)
    assert not predict_stacks(find_stacks([folder]), ensemble, out, SETTINGS, resume=True).failed
    assert not (out / "failed.csv").exists()


def test_two_models_are_averaged(best, folder, tmp_path):
    state = torch.load(best, weights_only=True)
    state["model_state"] = {k: v * 1.3 if "classifier" in k else v for k, v in state["model_state"].items()}
    torch.save(state, tmp_path / "other.pt")
    paths = find_stacks([folder])
    tables = [
        predict_stacks(paths, load_ensemble(weights, CPU), tmp_path / str(i), SETTINGS).table
        for i, weights in enumerate(([best], [tmp_path / "other.pt"], [best, tmp_path / "other.pt"]))
    ]
    pair = np.stack([table["probability_infected"] for table in tables[:2]])
    np.testing.assert_allclose(tables[2]["probability_infected"], pair.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(tables[2]["probability_std"], pair.std(axis=0), atol=1e-12)
    assert read_json(tmp_path / "2" / "plate_predictions.json")["b2"]["n_folds"] == 2
    state["config"]["data"]["transforms"]["image_size"] = 48
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: was trained with other preprocessing"):
        load_ensemble([best, tmp_path / "other.pt"], CPU)


def test_positions_stride_clamp_and_threshold(best, tiny_data, tmp_path):
    paths = find_stacks([tiny_data.infected_dir, tiny_data.uninfected_dir])
    settings = PredictionSettings(
        0.125, stride=2, max_positions=2, clamp_range=(0.0, 0.001), threshold=0.0, layout={"b2": "virus"}
    )
    assert choose_positions(paths, settings) == choose_positions(paths, settings)
    table = predict_stacks(paths, load_ensemble([best], CPU), tmp_path, settings).table
    assert table.groupby("well")["stack"].nunique().to_dict() == {"b2": 2, "c4": 2}
    assert set(table["frame_index"]) == {0, 2, 4}
    assert table["time_hours"].between(0, 0.001).all()
    assert set(table["infected"]) == {1}
    assert table.groupby("well")["condition"].first().to_dict() == {"b2": "virus", "c4": ""}
    curves = well_curves(table)
    one = table[(table["well"] == "b2") & (table["frame_index"] == 2)]
    row = curves[(curves["well"] == "b2") & (curves["hours_since_start"] == 16)].iloc[0]
    assert row["n_positions"] == 2
    assert row["probability_mean"] == pytest.approx(one["probability_infected"].mean())


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], {}),
        (["mock=a4, B4", "moi5=a1"], {"a4": "mock", "b4": "mock", "a1": "moi5"}),
        (["mock"], "expected condition=well,well"),
        (["mock="], "expected condition=well,well"),
        (["mock=a1", "moi5=A1"], "well a1 is both mock and moi5"),
    ],
)
def test_layouts(entries, expected):
    if isinstance(expected, dict):
        assert parse_layout(entries) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            parse_layout(entries)


def test_the_plate_map_leaves_unknown_wells_out():
    assert (well_place("b12"), well_place("H1"), well_place(""), well_place("well-3")) == (
        (1, 11),
        (7, 0),
        None,
        None,
    )
    wells = pd.DataFrame(
        {
            "well": ["b2", "b2", "", "odd"],
            "hours_since_start": [0.0, 8.0, 0.0, 0.0],
            "probability_mean": [0.1, 0.9, 0.5, np.nan],
            "time_mean": [1.0, 7.0, np.nan, 2.0],
        }
    )
    texts = [text.get_text() for text in plate_map(wells).axes[0].texts]
    assert texts == ["0.90\n7 h"]


def test_watching_predicts_stacks_as_they_grow(best, folder, tmp_path, monkeypatch):
    """Each round predicts what is new; the loop ends with the interruption that a user sends."""
    paths = find_stacks([folder])
    paths[2].rename(tmp_path / paths[2].name)
    rounds = []

    def sleep(seconds):
        rounds.append((seconds, pd.read_csv(tmp_path / "out" / "predictions.csv")["stack"].nunique()))
        if len(rounds) == 2:
            raise KeyboardInterrupt
        shutil.move(tmp_path / paths[2].name, paths[2])

    monkeypatch.setattr(commands.time, "sleep", sleep)
    arguments = argparse.Namespace(
        weights=[best], device="cpu", frames_per_hour=0.125, stride=1, batch_size=8, threshold=None, plate_layout=[],
        max_positions=0, clamp=None, resume=False, watch=2.5, stacks=[folder], output=tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        commands.predict(arguments)
    assert rounds == [(2.5, 2), (2.5, 3)]
    assert len(list((tmp_path / "out" / "stacks").glob("*.json.done.json"))) == 3
    assert json.loads((tmp_path / "out" / "plate_predictions.json").read_text())["b2"]["n_positions"] == 3
