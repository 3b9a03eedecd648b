"""From stacks to frames."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infection_mt.data.policy import FramePolicy
from infection_mt.data.stacks import Stack
from infection_mt.data.table import build_table

POLICY = FramePolicy(infected_window_hours=(0, 48), uninfected_window_hours=(0, 48))


def test_rows(make_stacks):
    stacks = make_stacks({("b2", 1): 2, ("c4", 0): 1})
    stacks[1] = replace(stacks[1], onset_hour=3.0)
    table = build_table(stacks, POLICY, pre_onset="keep", onset_hour=1.0)
    assert len(table) == 30
    assert table.stack_index.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert table.frame_index.tolist() == list(range(10)) * 3
    np.testing.assert_array_equal(table.hours, table.frame_index / 2)
    assert table.label.tolist() == [1] * 20 + [0] * 10
    assert table.onset.tolist() == [1.0] * 10 + [3.0] * 10 + [1.0] * 10
    assert table.infected().tolist() == [True] * 20 + [False] * 10
    assert table.keys()[10:12] == ["b2/2/0", "b2/2/1"]
    assert len(set(table.keys())) == 30
    assert table.groups("well").tolist() == [0] * 20 + [1] * 10
    assert table.groups("stack").tolist() == table.stack_index.tolist()
    assert table.metadata(11) == {
        "path": str(stacks[1].path),
        "condition": "infected",
        "position": "2",
        "frame_index": 1,
        "hours_since_start": 0.5,
        "label": 1,
    }


def test_frames_before_the_onset(make_stacks):
    stacks = make_stacks({("b2", 1): 1, ("c4", 0): 1})
    excluded = build_table(stacks, POLICY, pre_onset="exclude", onset_hour=1.0)
    assert excluded.frame_index.tolist() == [*range(2, 10), *range(10)]
    counted = build_table(stacks, POLICY, pre_onset="uninfected", onset_hour=1.0)
    assert counted.label.tolist() == [0, 0] + [1] * 8 + [0] * 10
    assert counted.infected().tolist() == [False, False] + [True] * 8 + [False] * 10
    other = [replace(stacks[0], label=2), replace(stacks[1], label=5)]
    assert build_table(other, POLICY, pre_onset="uninfected", onset_hour=1.0).label[:3].tolist() == [5, 5, 2]


def test_subset_keeps_order_and_rate(make_stacks):
    table = build_table(make_stacks({("b2", 1): 2}), replace(POLICY, frames_per_hour=4.0), pre_onset="keep")
    some = table.subset([13, 2])
    assert some.keys() == ["b2/2/3", "b2/1/2"]
    assert some.frames_per_hour == 4.0
    assert table.subset(table.hours > 2).frame_index.tolist() == [9, 9]
    assert len(table.subset([])) == 0
    with pytest.raises(ValueError, match="mask"):
        table.subset(np.ones(3, bool))


def test_windows_without_frames_name_stack_and_window(make_stacks, caplog):
    long, short, mock = make_stacks({("b2", 1): 2, ("c4", 0): 1})
    short = replace(short, n_frames=4)
    policy = FramePolicy(infected_window_hours=(3, 5))
    with caplog.at_level(logging.WARNING):
        table = build_table([long, short, mock], policy)
    assert short.path.name in caplog.text
    assert "window [3.0,5.0] h begins after the last of 4 frames" in caplog.text
    assert set(table.stack_index.tolist()) == {0, 2}
    faithful = build_table([long, short, mock], policy, faithful=True, pre_onset="keep")
    assert faithful.frame_index[faithful.stack_index == 1].tolist() == [3]
    for window, words in (((50, 60), "begins after"), ((4, 3), "reversed")):
        with pytest.raises(ValueError, match=rf"none of the 2 infected stacks.*p1_.*{words}"):
            build_table([long, short, mock], FramePolicy(infected_window_hours=window))
    with pytest.raises(ValueError, match="before the onset"):
        build_table([long], POLICY, onset_hour=40.0)


def test_keys_must_differ(make_stacks):
    a, b = make_stacks({("b2", 1): 2})
    with pytest.raises(ValueError, match="two stacks have the key b2/1"):
        build_table([a, replace(b, position="1")], POLICY, pre_onset="keep")


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=5),
    st.floats(0, 30),
    st.sampled_from(["exclude", "uninfected", "keep"]),
)
def test_every_frame_lies_inside_its_stack(shapes, onset, pre_onset):
    stacks = [
        Stack(Path(f"s5_b2_p{i}_.tif"), int(inf), "infected" if inf else "uninfected", str(i), n, "b2")
        for i, (inf, n) in enumerate(shapes)
    ]
    try:
        table = build_table(stacks, POLICY, pre_onset=pre_onset, onset_hour=onset)
    except ValueError as error:
        assert "before the onset" in str(error)  # noqa: PT017
        return
    frames = np.array([s.n_frames for s in stacks])[table.stack_index]
    assert ((table.frame_index >= 0) & (table.frame_index < frames)).all()
    assert len(set(table.keys())) == len(table)
    if pre_onset != "keep":
        assert not (table.infected() & (table.hours < onset)).any()
