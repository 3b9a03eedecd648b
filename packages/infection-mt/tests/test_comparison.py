"""Runs side by side: differences, their order and the page."""

from dataclasses import replace

import numpy as np
import pytest

from infection_mt import cli
from infection_mt.comparison import HEADERS, compare_runs, comparison_rows, task_config
from infection_mt.config import Config
from infection_mt.evaluation import Predictions
from medshared.files import read_json
from medshared.metrics.statistics import holm


@pytest.fixture
def better(tiny_run, tmp_path):
    """A run that knows the answers."""
    p = Predictions.load(tiny_run)
    probability = np.where(p.label == 1, 0.95, 0.05)
    known = replace(
        p, probability=probability, logit=np.log(probability / (1 - probability)), time=p.time_target + 0.5
    )
    known.save(tmp_path / "better")
    return tmp_path / "better"


def test_differences_are_first_minus_second(tiny_run, better, tmp_path):
    rows = compare_runs([better, tiny_run], tmp_path / "out")
    by_metric = {row["metric"]: row for row in rows}
    before = read_json(tiny_run / "results.json")["test_metrics"]
    mae = by_metric["reg_mae"]
    assert mae["value_first"] == pytest.approx(0.5, abs=1e-6)
    assert mae["value_second"] == pytest.approx(before["reg_mae"], rel=1e-5)
    assert mae["difference"]["estimate"] == pytest.approx(0.5 - before["reg_mae"], rel=1e-5)
    assert mae["difference"]["high"] < 0
    assert by_metric["cls_auc"]["value_first"] == 1.0
    np.testing.assert_allclose([r["p_holm"] for r in rows], holm([r["p_value"] for r in rows]))
    assert all(row["p_holm"] >= row["p_value"] for row in rows)
    assert {(row["first"], row["second"]) for row in rows} == {("better", tiny_run.name)}
    assert read_json(tmp_path / "out" / "comparison.json")[0]["metric"] == rows[0]["metric"]
    assert "Paired comparison" in (tmp_path / "out" / "report.html").read_text()
    table = comparison_rows(rows)
    assert all(len(line) == len(HEADERS) for line in table)


def test_a_run_against_itself_shows_no_difference(tiny_run, tmp_path):
    rows = compare_runs([tiny_run, tiny_run], tmp_path)
    assert all(row["difference"]["estimate"] == 0 for row in rows)
    assert all(row["p_holm"] == 1 for row in rows)


def test_one_run_is_not_enough(tiny_run, tmp_path, capsys):
    assert cli.main(["compare", str(tiny_run), "--output", str(tmp_path / "x")]) == 1
    assert "compare needs at least two runs" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_only_the_task_changes_between_the_three_models():
    config = Config.model_validate({"data": {"manifest": "m.csv"}, "regression": {"target_class": 1}})
    other = task_config(config, "classification")
    assert (other.task.type, other.regression) == ("classification", None)
    assert other.model_dump(exclude={"task", "regression"}) == config.model_dump(
        exclude={"task", "regression"}
    )
    assert config.task.type == "multitask"
