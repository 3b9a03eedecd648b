"""Output files in the original's formats, against files that it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advmil import outputs

GOLDEN = Path(__file__).parent / "golden" / "output_files"


def read_rows(name: str) -> tuple[list[str], list[list[str]]]:
    lines = (GOLDEN / name).read_text().splitlines()
    return lines[0].split(","), [line.split(",") for line in lines[1:]]


def test_configuration_text_is_the_original_one():
    text = (GOLDEN / "adv__print_config.txt").read_text()
    pairs = [line.partition(outputs.ARROW) for line in text.splitlines()[1:-1]]
    config = {key.rstrip(): value for key, _, value in pairs}
    assert outputs.config_text(config).rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize(
    "name",
    [
        "adv__train_metrics-best",
        "semi_both__semitrain_LD_UD_metrics-best",
        "adv_test__test_mode_metrics-best",
    ],
)
def test_metrics_text_round_trips(name, tmp_path):
    path = GOLDEN / f"{name}.txt"
    metrics = outputs.read_metrics_text(path)
    written = outputs.write_metrics(tmp_path / "m.txt", metrics)
    assert written.read_text().rstrip("\n") == path.read_text().rstrip("\n")


def test_broken_metrics_text_is_named(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("test/cindex 0.5\n")
    with pytest.raises(ValueError, match=r"m\.txt:1: expected"):
        outputs.read_metrics_text(path)


@pytest.mark.parametrize(
    "name", ["adv__train_best_pred_test.csv", "adv_test__test_mode_best_pred_exec-test.csv"]
)
def test_continuous_predictions(name, tmp_path):
    _, rows = read_rows(name)
    ids, t, e, predicted = zip(*rows, strict=True)
    numbers = [np.asarray(column, dtype=np.float32) for column in (t, e, predicted)]
    path = outputs.write_continuous_predictions(tmp_path / "p.csv", ids, *numbers)
    assert path.read_text() == (GOLDEN / name).read_text().replace("\r\n", "\n")
    assert not (tmp_path / "p_dist.npz").exists()


def test_samples_lie_beside_the_table(tmp_path):
    with np.load(GOLDEN / "adv__train_best_pred_test_dist.npz", allow_pickle=False) as golden:
        ids, samples = golden["patient_id"], golden["pred_dist"]
    labels = np.ones(len(ids))
    outputs.write_continuous_predictions(tmp_path / "p.csv", list(ids), labels, labels, labels, samples)
    with np.load(tmp_path / "p_dist.npz", allow_pickle=False) as written:
        assert written["patient_id"].dtype == ids.dtype
        assert (written["patient_id"] == ids).all()
        assert written["pred_dist"].dtype == np.float32
        assert (written["pred_dist"] == samples).all()


def test_discrete_predictions(tmp_path):
    header, rows = read_rows("nll__train_best_pred_test.csv")
    ids, t, e, risk, *surv = zip(*rows, strict=True)
    survival = np.asarray(surv, dtype=np.float32).T
    path = outputs.write_discrete_predictions(
        tmp_path / "p.csv", ids, np.asarray(t, np.float32), np.asarray(e, np.float32), survival
    )
    written = [line.split(",") for line in path.read_text().splitlines()]
    assert written[0] == header
    for mine, theirs in zip(written[1:], rows, strict=True):
        assert mine[:3] == theirs[:3]
        assert mine[4:] == theirs[4:]
        assert float(mine[3]) == pytest.approx(float(theirs[3]), rel=1e-6)
    assert len(risk) == len(ids)


def test_cox_predictions(tmp_path):
    _, rows = read_rows("cox__train_best_pred_test.csv")
    ids, t, e, predicted = zip(*rows, strict=True)
    numbers = [np.asarray(column, dtype=np.float32) for column in (t, e, predicted)]
    path = outputs.write_risk_predictions(tmp_path / "p.csv", ids, *numbers)
    assert path.read_text() == (GOLDEN / "cox__train_best_pred_test.csv").read_text()
