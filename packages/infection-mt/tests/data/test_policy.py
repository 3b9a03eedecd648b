"""Frame selection beyond the golden cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infection_mt.config import FramesConfig
from infection_mt.data.policy import FramePolicy, interval_override, resolve_policy

hours = st.floats(-20, 80, allow_nan=False)
policies = st.builds(
    FramePolicy,
    frames_per_hour=st.floats(0.1, 6),
    infected_window_hours=st.none() | st.tuples(hours, hours),
    uninfected_window_hours=st.none() | st.tuples(hours, hours),
    infected_stride=st.integers(-2, 7),
    uninfected_stride=st.integers(-2, 7),
    uninfected_use_all=st.booleans(),
)


@given(policies, st.sampled_from(["infected", "uninfected"]), st.integers(1, 120), st.booleans())
def test_indices_lie_inside_the_stack_and_increase(policy, condition, n_frames, faithful):
    indices = policy.indices(condition, n_frames, faithful=faithful)
    assert all(0 <= i < n_frames for i in indices)
    assert indices == sorted(set(indices))
    assert len(indices) >= 1 or policy.window_problem(condition, n_frames) is not None
    if faithful:
        assert indices


@given(policies, st.sampled_from(["infected", "uninfected"]), st.integers(1, 120))
def test_correct_and_faithful_differ_only_where_a_problem_is_named(policy, condition, n_frames):
    correct = policy.indices(condition, n_frames)
    if policy.window_problem(condition, n_frames) is None:
        assert correct == policy.indices(condition, n_frames, faithful=True)
    else:
        assert correct == []


@pytest.mark.parametrize(
    ("window", "n_frames", "faithful", "words"),
    [
        ((50, 60), 93, [92], "begins after the last of 93 frames"),
        ((10, 4), 93, [20], "reversed"),
        ((-9, -3), 93, [0], "ends before the recording"),
        ((1, 48), 1, [0], "last of 1 frames, which is at 0 h"),
    ],
)
def test_windows_without_frames(window, n_frames, faithful, words):
    policy = FramePolicy(infected_window_hours=window)
    assert policy.indices("infected", n_frames) == []
    assert policy.indices("infected", n_frames, faithful=True) == faithful
    assert words in str(policy.window_problem("infected", n_frames))


def test_configuration_model_counts_only_keys_that_were_set():
    frames = FramesConfig.model_validate({"infected_window_hours": [1, 30], "test": {"infected_stride": 2}})
    assert resolve_policy(frames, "test").infected_window_hours == (1.0, 30.0)
    assert resolve_policy(frames, "test").infected_stride == 2
    assert resolve_policy(frames, "val").infected_stride == 1


def test_null_window_takes_all_pages():
    policy = resolve_policy({"infected_window_hours": None, "infected_stride": 2}, "train")
    assert policy.indices("infected", 5) == [0, 2, 4]
    assert "infected=all" in policy.summary()


def test_interval_override_wins_over_the_old_name_and_leaves_the_source_alone():
    frames = {"window_hours": [16, 30], "test": {"window_hours": [2, 3]}}
    rewritten = interval_override(frames, 1, 7)
    assert all(resolve_policy(rewritten, s).infected_window_hours == (1, 7) for s in ("train", "val", "test"))
    assert frames == {"window_hours": [16, 30], "test": {"window_hours": [2, 3]}}


@pytest.mark.parametrize("value", [[1], 5, ["a", 2], [0, float("nan")]])
def test_bad_windows_name_the_key(value):
    with pytest.raises(ValueError, match="uninfected_window_hours"):
        resolve_policy({"uninfected_window_hours": value}, "train")


def test_unknown_split_and_mode():
    with pytest.raises(ValueError, match="train, val, test"):
        resolve_policy({}, "dev")
    with pytest.raises(ValueError, match="train-test"):
        interval_override({}, 1, 2, "both")  # pyright: ignore[reportArgumentType]
