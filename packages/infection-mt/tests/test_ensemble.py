"""Averages of models: joined by frame, refused for other frames, scored on their own."""

from dataclasses import replace

import numpy as np
import pytest

from infection_mt import cli
from infection_mt.ensemble import average, evaluate_ensemble, spread
from infection_mt.evaluation import Predictions
from infection_mt.rescoring import load_run
from medshared.files import read_json


def shifted(predictions, probability, time):
    return replace(predictions, probability=probability, time=time)


def reordered(predictions, order):
    fields = {
        name: getattr(predictions, name)[order]
        for name in ("probability", "logit", "time", "time_target", "label", "hours", "stack_index")
    }
    return replace(
        predictions,
        **fields,
        keys=[predictions.keys[i] for i in order],
        metadata=[predictions.metadata[i] for i in order],
    )


@pytest.fixture
def two(tiny_run):
    a = Predictions.load(tiny_run)
    rng = np.random.default_rng(0)
    return a, shifted(a, rng.uniform(0.1, 0.9, len(a)), a.time + rng.normal(size=len(a)))


def test_means_are_taken_frame_by_frame(two):
    a, b = two
    expected = (a.probability + b.probability) / 2, (a.time + b.time) / 2
    order = np.random.default_rng(1).permutation(len(a))
    for second in (b, reordered(b, order)):
        found = average([a, second])
        np.testing.assert_allclose(found.probability, expected[0], atol=1e-12)
        np.testing.assert_allclose(found.time, expected[1], atol=1e-12)
        np.testing.assert_allclose(found.logit, np.log(expected[0] / (1 - expected[0])), atol=1e-9)
        assert found.keys == a.keys
        doubt = spread([a, second])
        np.testing.assert_allclose(doubt["time_std"], np.abs(a.time - b.time) / 2, atol=1e-12)


def test_other_frames_are_refused(two):
    a, b = two
    with pytest.raises(ValueError, match="tested on different frames"):
        average([a, reordered(b, np.arange(len(b) - 1))])
    with pytest.raises(ValueError, match="2 are not in both, for example"):
        average([a, replace(b, keys=["other/1/0", *b.keys[1:]])])


def test_a_model_with_itself_scores_as_it_did(tiny_run, tmp_path):
    config, before = load_run(tiny_run)
    results = evaluate_ensemble([tiny_run, tiny_run], tmp_path, config.resolved())
    assert results["mean_spread"] == {"probability_std": 0, "time_std": 0}
    assert len(results["member_metrics"]) == 2
    for name, value in before["test_metrics"].items():
        assert results["test_metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert read_json(tmp_path / "results.json")["members"] == [str(tiny_run)] * 2


def test_the_command(tiny_run, tmp_path):
    assert cli.main(["ensemble", str(tiny_run), str(tiny_run), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "test_predictions.npz").exists()
