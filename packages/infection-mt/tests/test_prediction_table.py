from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infection_mt.data.stacks import Stack, parse_name
from infection_mt.prediction_table import Predictions
from infection_mt.probabilities import infected_logit, logit_of, sigmoid
from infection_mt.sample_keys import group_name, sample_key


def rows(n: int, well: str = "b2", label: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "path": f"/d/x_s5_{well}_p{i // 4}_t0-94_ec.tiff",
            "condition": "infected" if label else "uninfected",
            "position": str(i // 4),
            "frame_index": i % 4,
            "hours_since_start": (i % 4) / 2,
            "label": label,
        }
        for i in range(n)
    ]


def table(n: int = 16, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    metadata = rows(n // 2) + rows(n // 2, "c4", 0)
    label = [row["label"] for row in metadata]
    hours = np.array([row["hours_since_start"] for row in metadata])
    return Predictions.from_outputs(
        rng.normal(size=(n, 2)), hours + rng.normal(size=n), label, hours, metadata=metadata
    )


@given(arrays(np.float64, (5, 4), elements=st.floats(-30, 30)))
def test_probability_of_infection_is_the_softmax_of_column_one(z: np.ndarray) -> None:
    softmax = np.exp(z - z.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    np.testing.assert_allclose(sigmoid(infected_logit(z)), softmax[:, 1], atol=1e-12)


@given(st.floats(1e-9, 1 - 1e-9))
def test_log_odds_are_undone_by_the_sigmoid(p: float) -> None:
    assert float(sigmoid(logit_of(p))) == pytest.approx(p, rel=1e-9)


def test_torch_tensors_are_accepted() -> None:
    metadata = rows(2)
    p = Predictions.from_outputs(
        torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([1, 1]),
        torch.tensor([[1.0], [1.5]]),
        metadata=metadata,
    )
    assert p.time.tolist() == [1.0, 2.0]
    assert p.logit.tolist() == [1.0, -1.0]
    assert p.keys == ["b2/0/0", "b2/0/1"]
    assert p.hours.tolist() == [0.0, 0.5]


def test_missing_outputs_are_known() -> None:
    only_time = Predictions.from_outputs(None, [1.0], [1], [1.0], metadata=rows(1))
    only_class = Predictions.from_outputs([0.5], None, [1], [1.0], metadata=rows(1))
    assert (only_time.has_classes, only_time.has_time) == (False, True)
    assert (only_class.has_classes, only_class.has_time) == (True, False)


def test_join_pairs_frames_whatever_their_order() -> None:
    p = table()
    shuffled = p.subset(np.random.default_rng(1).permutation(len(p))[:11])
    a, b = p.join(shuffled)
    assert a.keys == b.keys
    assert len(a) == 11
    np.testing.assert_array_equal(a.time, b.time)
    assert a.keys == [key for key in p.keys if key in set(shuffled.keys)]


def test_join_without_common_frames_is_an_error() -> None:
    p = table()
    with pytest.raises(ValueError, match="share no frame"):
        p.join(replace(p, keys=[f"other/{key}" for key in p.keys]))


def test_join_with_other_labels_is_an_error() -> None:
    p = table()
    with pytest.raises(ValueError, match="labels differ for 16 common frames"):
        p.join(replace(p, label=1 - p.label))


def test_groups_keep_equal_positions_of_different_wells_apart() -> None:
    p = table()
    assert np.unique(p.groups("stack")).size == 4
    assert np.unique(p.groups("position")).size == 4
    assert np.unique(p.groups("well")).size == 2
    assert np.unique(p.groups("well")[p.label == 1]).size == 1


def test_condition_stands_for_an_unknown_well() -> None:
    assert group_name({"path": "stack7.tif", "condition": "infected"}, "well") == "/infected"
    assert sample_key({"path": "stack7.tif", "frame_index": 3}) == "stack7/3"


def test_lengths_labels_and_keys_are_checked() -> None:
    p = table()
    with pytest.raises(ValueError, match="time has 3 entries for 16 keys"):
        replace(p, time=p.time[:3])
    with pytest.raises(ValueError, match="only 0 and 1"):
        replace(p, label=p.label + 1)
    with pytest.raises(ValueError, match="occur more than once"):
        replace(p, keys=["same"] * len(p))


def test_subset_by_mask_and_by_index_agree() -> None:
    p = table()
    mask = p.label == 0
    assert p.subset(mask).keys == p.subset(np.nonzero(mask)[0]).keys


@pytest.mark.parametrize(
    "name", ["x_s5_b2_p13_t0-94_ec.tiff", "e_B02_p7_x.tif", "stack7.tif", "s_p4_.tif", "well-C3_p1_.tif"]
)
@pytest.mark.parametrize(("plate", "run"), [(None, None), ("plate1", "r2")])
def test_keys_read_from_metadata_equal_those_of_the_frame_table(
    name: str, plate: str | None, run: str | None
) -> None:
    parsed = parse_name(name)
    stack = Stack(
        Path("/d") / name, 1, "infected", parsed.position, 9, well=parsed.well, plate=plate, run=run
    )
    metadata = {
        "path": str(stack.path),
        "condition": "infected",
        "position": stack.position,
        "frame_index": 4,
    }
    assert sample_key({**metadata, "plate": plate, "run": run}) == f"{stack.key}/4"
