from pathlib import Path

import numpy as np
import pytest

from infection_mt.analysis.training_log import history_to_log, parse_training_log, read_training_log

LOG = """2026-01-05 14:28:19,101 | INFO | Epoch 1/2
2026-01-05 14:30:34,658 | INFO | train_e1 - total_loss: 6.2359 | cls_loss: 0.1946
2026-01-05 14:30:53,211 | INFO | val: total_loss:4.0693 | cls_auc:inf | reg_mae:-1.5e-03
2026-01-05 14:30:54,961 | INFO | val time bin [0.0h, 8.0h): samples=4 | accuracy:0.500
2026-01-05 14:30:54,962 | INFO | Epoch 2/2
2026-01-05 14:33:41,191 | INFO | val: total_loss:1.9767 | cls_auc:0.9996
2026-01-05 14:33:42,000 | INFO | test: total_loss:9.9 | cls_auc:0.5
"""


def test_lines_belong_to_their_epochs() -> None:
    log = parse_training_log(LOG)
    assert log.train == {1: {"total_loss": 6.2359, "cls_loss": 0.1946}}
    assert log.validation[1] == {"total_loss": 4.0693, "cls_auc": np.inf, "reg_mae": -0.0015}
    assert log.validation[2] == {"total_loss": 1.9767, "cls_auc": 0.9996}
    assert log.test == {"total_loss": 9.9, "cls_auc": 0.5}


def test_series_are_aligned_with_the_epochs() -> None:
    log = parse_training_log(LOG)
    np.testing.assert_array_equal(log.series("train_total_loss"), [6.2359, np.nan])
    assert log.best("val_cls_auc") == (2, 0.9996)
    assert log.best("val_total_loss", largest=False) == (2, 1.9767)
    assert log.best("val_unknown") is None


def test_rows_of_a_log_make_the_same_log() -> None:
    log = parse_training_log(LOG)
    again = history_to_log(log.rows())
    assert (again.train, again.validation) == (log.train, log.validation)


def test_history_takes_slashes_and_leaves_out_what_is_no_number() -> None:
    log = history_to_log([{"epoch": "2", "train/loss": "1.5", "val_auc": "", "val_note": "x", "lr": "0.1"}])
    assert log.train == {2: {"loss": 1.5}}
    assert log.validation == {}


@pytest.mark.parametrize(
    "name",
    [
        "train.log/multitask_train.log",
        "multitask_train.log",
        "train.log",
        "log.txt",
        "train_cv.log/multitask_cv.log",
    ],
)
def test_logs_are_found_where_they_lie(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(LOG)
    found = read_training_log(tmp_path)
    assert found is not None
    assert found.epochs == [1, 2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("history.csv", "epoch,train_total_loss,val_cls_auc\n1,2.5,\n2,2.0,0.9\n"),
        ("metrics.csv", "epoch,train_total_loss,val_cls_auc\n1,2.5,nan\n2,2.0,0.9\n"),
        (
            "history.json",
            '[{"epoch": 1, "train_total_loss": 2.5}, '
            '{"epoch": 2, "train_total_loss": 2.0, "val_cls_auc": 0.9}]',
        ),
    ],
)
def test_history_files_win_over_the_log(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "log.txt").write_text(LOG)
    found = read_training_log(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.series("train_total_loss"), [2.5, 2.0])
    np.testing.assert_array_equal(found.series("val_cls_auc"), [np.nan, 0.9])
    assert found.test["cls_auc"] == 0.5


def test_a_folder_without_epochs_has_no_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("nothing of interest\n")
    assert read_training_log(tmp_path) is None
