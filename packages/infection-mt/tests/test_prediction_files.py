import json
from pathlib import Path

import numpy as np
import pytest

from infection_mt.prediction_files import PredictionFileError
from infection_mt.prediction_table import Predictions
from medshared.files import write_npz

N = 6
LABEL = np.array([1, 1, 1, 0, 0, 0])
HOURS = np.array([1.0, 1.5, 2.0, 1.0, 1.5, 2.0])
TARGET = np.array([0.0, 0.5, 1.0, 1.0, 1.5, 2.0])
METADATA = [
    {
        "path": f"/d/x_s5_{'b2' if y else 'c4'}_p6_t0-94_ec.tiff",
        "condition": "infected" if y else "uninfected",
        "position": "6",
        "frame_index": int(h * 2),
        "hours_since_start": float(h),
        "label": int(y),
    }
    for y, h in zip(LABEL, HOURS, strict=True)
]


def predictions() -> Predictions:
    logits = np.stack([np.zeros(N), [40.0, 30.0, 1.0, -1.0, -30.0, -40.0]], axis=1)
    return Predictions.from_outputs(logits, TARGET + 0.25, LABEL, TARGET, metadata=METADATA)


def first_layout(
    folder: Path, rows: slice = slice(None), metadata: list | None = None, **changes: object
) -> Path:
    arrays = {
        "time_preds": np.float32(TARGET + 0.25)[rows],
        "time_targets": np.float32(TARGET)[rows],
        "cls_preds": np.float32([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])[rows],
        "cls_targets": LABEL[rows],
    }
    arrays.update(changes)  # type: ignore[arg-type]
    path = write_npz(folder / "test_predictions.npz", **{k: v for k, v in arrays.items() if v is not None})
    lines = [json.dumps(row) for row in (METADATA if metadata is None else metadata)]
    (folder / "test_metadata.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_predictions_survive_saving(tmp_path: Path) -> None:
    p = predictions()
    paths = p.save(tmp_path / "run")
    assert [path.name for path in paths] == ["test_predictions.npz", "test_metadata.jsonl"]
    loaded = Predictions.load(tmp_path / "run")
    for name in ("probability", "logit", "time", "time_target", "label", "hours", "stack_index"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(p, name), err_msg=name)
    assert loaded.keys == p.keys
    assert loaded.metadata == p.metadata


def test_stored_probabilities_are_clipped_but_the_logits_are_not(tmp_path: Path) -> None:
    path, _ = predictions().save(tmp_path)
    with np.load(path) as stored:
        assert stored["cls_preds"][0] == stored["cls_preds"][1] == np.float32(1) - np.float32(1e-7)
        assert stored["logit"][0] == 40.0


def test_a_time_model_stores_one_half_and_is_recognised(tmp_path: Path) -> None:
    Predictions.from_outputs(None, TARGET, LABEL, TARGET, metadata=METADATA).save(tmp_path)
    with np.load(tmp_path / "test_predictions.npz") as stored:
        assert (stored["cls_preds"] == 0.5).all()
    assert not Predictions.load(tmp_path).has_classes


def test_files_of_the_original_are_read(tmp_path: Path) -> None:
    first_layout(tmp_path)
    p = Predictions.load(tmp_path)
    assert p.keys[0] == "b2/6/2"
    assert p.hours.tolist() == HOURS.tolist()
    np.testing.assert_allclose(p.probability, [0.9, 0.8, 0.7, 0.3, 0.2, 0.1], atol=1e-7)
    assert p.stack_index.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("rows", "label"), [(slice(0, 3), 1), (slice(3, 6), 0)])
def test_single_class_runs_meet_their_own_metadata(tmp_path: Path, rows: slice, label: int) -> None:
    first_layout(tmp_path, rows, cls_preds=np.full(3, 0.5, np.float32))
    p = Predictions.load(tmp_path)
    assert {row["label"] for row in p.metadata} == {label}
    assert p.hours.tolist() == HOURS[rows].tolist()


def test_files_without_metadata_are_read(tmp_path: Path) -> None:
    path = first_layout(tmp_path)
    (tmp_path / "test_metadata.jsonl").unlink()
    p = Predictions.load(path)
    assert len(p) == N
    assert np.isnan(p.hours).all()


def test_second_layout_needs_the_onset(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "test_predictions.npz",
        cls_probs=np.full((N, 2), 0.5) + np.array([[-0.1, 0.1]]),
        cls_preds=np.ones(N, dtype=np.int64),
        cls_labels=LABEL,
        reg_preds=TARGET,
        reg_labels=HOURS,
        image_paths=np.array([row["path"] for row in METADATA]),
    )
    with pytest.raises(PredictionFileError, match="give the run's onset_hour"):
        Predictions.load(path)
    p = Predictions.load(path, onset_hour=1.0, clamp_range=(0.0, 1.25))
    assert p.time_target.tolist() == [0.0, 0.5, 1.0, 1.0, 1.25, 1.25]
    assert p.keys[0] == "b2/6/1.0h"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_preds": None}, r"arrays \['time_preds'\] are missing"),
        ({"cls_targets": 1 - LABEL}, "row 0 has label 0 but test_metadata.jsonl 1"),
        ({"metadata": METADATA[:4]}, "6 predictions but 4 rows"),
        ({"metadata": METADATA * 2}, "6 predictions but 12 rows"),
    ],
)
def test_files_at_odds_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    path = first_layout(tmp_path, **changes)
    with pytest.raises(PredictionFileError, match=message):
        Predictions.load(path)


def test_cut_files_are_named(tmp_path: Path) -> None:
    path = first_layout(tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(PredictionFileError, match=r"test_predictions\.npz: unreadable"):
        Predictions.load(tmp_path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test_predictions.npz"
    np.savez(path, time_preds=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PredictionFileError, match="unreadable"):
        Predictions.load(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test_predictions\.npz: no predictions there"):
        Predictions.load(tmp_path)
