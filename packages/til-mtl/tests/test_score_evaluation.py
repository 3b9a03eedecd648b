"""``evaluate.py``: tables in, statistics and pictures out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medshared.tables import TableError
from til_mtl.agreement import agreement
from til_mtl.errors import DataError
from til_mtl.score_evaluation import ScoreEvaluation, evaluate_scores, harrell, join_scores

HEADER = "image-id,tils-score,tils-score-raw,n_lymphocytes\n"


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 100, 20)
    predicted = np.clip(truth * 0.5 + rng.normal(0, 6, 20), 0, 100)
    rows = [f"s{i},{p:.3f},{p:.3f},9" for i, p in enumerate(predicted)]
    rows[3] = "s3,,,"  # a slide without stroma
    (tmp_path / "til_scores.csv").write_text(HEADER + "\n".join([*rows, "unknown,4,4,4"]) + "\n")
    # The challenge's own page writes tils-scores, its file tils-score.
    (tmp_path / "truth.csv").write_text(
        "image-id,tils-scores\n" + "".join(f"s{i},{t}\n" for i, t in enumerate(truth)) + "extra,5\n"
    )
    return tmp_path


def evaluation(folder, **changes) -> ScoreEvaluation:
    return ScoreEvaluation(
        folder / "til_scores.csv", folder / "truth.csv", folder / "out", resamples=50, **changes
    )


def test_all_files_are_written(tables):
    content = evaluate_scores(evaluation(tables))
    out = tables / "out"
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "scatter.png",
        "bland_altman.png",
        "predictions.csv",
    }
    assert json.loads((out / "metrics.json").read_text())["n"] == 19
    assert content["left_out"] == {
        "without_score": ["s3"],
        "not_predicted": ["extra"],
        "without_truth": ["unknown"],
    }
    for name in ("scatter", "bland_altman"):
        assert Image.open(out / f"{name}.png").size[0] > 300
    joined, _ = join_scores(tables / "til_scores.csv", tables / "truth.csv")
    wanted = agreement(joined["tils-score"], joined["truth"])
    for name, found in content["agreement"].items():
        assert found["estimate"] == pytest.approx(wanted[name])
        assert found["low"] <= found["estimate"] <= found["high"]


def test_calibration_mends_the_scale_but_not_the_ranking(tables):
    content = evaluate_scores(evaluation(tables, calibrate="linear"))
    assert (
        content["agreement"]["mae"]["estimate"] < 0.6 * content["agreement_uncalibrated"]["mae"]["estimate"]
    )
    assert content["agreement"]["mae"]["estimate"] < content["baseline"]["median_mae"]


def test_the_same_seed_gives_the_same_intervals(tables):
    assert evaluate_scores(evaluation(tables, seed=3)) == evaluate_scores(evaluation(tables, seed=3))


def test_survival_counts_a_high_score_as_low_risk(tables):
    joined, _ = join_scores(tables / "til_scores.csv", tables / "truth.csv")
    rows = [
        f"{name},{score + 1},1" for name, score in zip(joined["image-id"], joined["tils-score"], strict=True)
    ]
    (tables / "survival.csv").write_text("image-id,time,event\n" + "\n".join(rows) + "\n")
    found = harrell(tables / "til_scores.csv", tables / "survival.csv")
    assert found == {"c_index": 1.0, "n": 19, "n_events": 19}
    censored = [row[:-1] + "0" for row in rows]
    (tables / "survival.csv").write_text("image-id,time,event\n" + "\n".join(censored) + "\n")
    assert np.isnan(harrell(tables / "til_scores.csv", tables / "survival.csv")["c_index"])
    (tables / "survival.csv").write_text("image-id,time,event\nother,1,1\n")
    with pytest.raises(DataError, match="must hold the same ids"):
        harrell(tables / "til_scores.csv", tables / "survival.csv")


def test_harrell_equals_the_golden(golden_json, golden_npz, tmp_path):
    arrays = golden_npz("tiger")
    score = -arrays["harrell.risk"]
    rows = [f"s{i},{value!r}" for i, value in enumerate(score.tolist())]
    (tmp_path / "til_scores.csv").write_text("image-id,tils-score\n" + "\n".join(rows) + "\n")
    times = zip(arrays["harrell.time"].tolist(), arrays["harrell.event"].astype(int).tolist(), strict=True)
    lines = [f"s{i},{t!r},{e}" for i, (t, e) in enumerate(times)]
    (tmp_path / "survival.csv").write_text("image-id,time,event\n" + "\n".join(lines) + "\n")
    found = harrell(tmp_path / "til_scores.csv", tmp_path / "survival.csv")
    assert found["c_index"] == pytest.approx(golden_json("tiger")["harrell"], rel=1e-12)


def test_an_xml_list_of_scores_is_read_too(tables):
    xml = "".join(f'<slide image-id="s{i}" tils-score="{i * 5}"/>' for i in range(20))
    (tables / "truth.xml").write_text(f"<scores>{xml}</scores>")
    joined, _ = join_scores(tables / "til_scores.csv", tables / "truth.xml")
    assert joined["truth"].tolist() == [i * 5.0 for i in range(20) if i != 3]


def test_tables_that_share_nothing_are_refused(tables):
    (tables / "truth.csv").write_text("image-id,tils-score\nA,1\nB,2\n")
    with pytest.raises(DataError, match="share 0 slides with a score, at least 3 are needed"):
        evaluate_scores(evaluation(tables))
    assert not (tables / "out").exists()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("image-id,score\ns1,4\n", DataError, "no column tils-score"),
        (HEADER + "s1,many,1,1\n", TableError, "many"),
        (HEADER + "s1,4,4,1\ns1,5,5,1\n", TableError, "s1"),
    ],
)
def test_a_broken_table_is_named(tables, text, error, message):
    (tables / "til_scores.csv").write_text(text)
    with pytest.raises(error, match=message):
        evaluate_scores(evaluation(tables))
