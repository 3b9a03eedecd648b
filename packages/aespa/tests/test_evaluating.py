"""What a checkpoint was trained for, against what it is asked to do."""

from __future__ import annotations

import pytest

from aespa.config import Config
from aespa.errors import CheckpointError
from aespa.evaluating import evaluate_run
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import save_network
from aespa.synthetic_drawing import draw_arrays


def config_of(**keys) -> Config:
    given = {
        "encoder": "tiny", "image_size": 32, "runs": 2, "num_samples": 3, "n_clusters": 2, "n_components": 4,
        "device": "cpu", "progress": False, "dataset": "LIDC",
    }  # fmt: skip
    return Config(**{**given, **keys})


def saved(folder, mode: str, **keys):
    config = config_of(mode=mode, **keys).resolved()
    network = build_network(Architecture.from_config(config))
    return save_network(folder / f"{mode}.pt", network, config={"mode": mode})


@pytest.mark.parametrize(("trained", "asked"), [("SAM", "AESPA"), ("SAM", "SPA"), ("SPA", "SAM")])
def test_a_plain_sam_and_a_network_with_preferences_are_not_mixed_up(trained, asked, tmp_path):
    config = config_of(mode=asked, weights=saved(tmp_path, trained))
    with pytest.raises(CheckpointError, match=f"{trained}.pt.*give -mode {trained}"):
        evaluate_run(config, tmp_path / "run", arrays=draw_arrays(1, 32, 0))
    assert not (tmp_path / "run").exists()


def test_another_method_and_another_size_are_told(tmp_path, caplog):
    config = config_of(mode="AESPA", image_size=48, weights=saved(tmp_path, "SPA"))
    results = evaluate_run(config, tmp_path / "run", arrays=draw_arrays(1, 48, 0))
    assert "trained as SPA and is measured as AESPA" in caplog.text
    assert "trained at -image_size 32 and is measured at 48" in caplog.text
    assert 0 <= results["metrics"]["dice_late"] <= 1


@pytest.mark.parametrize("mode", ["AESPA", "SAM"])
def test_the_originals_scores_come_with_its_order(mode, tmp_path):
    config = config_of(mode=mode, faithful=True, weights=saved(tmp_path, mode, faithful=True))
    results = evaluate_run(config, tmp_path / "run", arrays=draw_arrays(1, 32, 0))
    assert ("original" in results) == (mode == "AESPA")
