"""Every golden case of frame selection, splits, frames and the data set, at the tolerance stated for it."""

import json
from pathlib import Path

import pytest

from infection_mt.data.policy import interval_override, resolve_policy, sliding_override

GOLDEN = Path(__file__).parents[1] / "golden"


def _json(name):
    return json.loads((GOLDEN / name).read_text())


POLICY = _json("frame_policy.json")


@pytest.mark.parametrize("case", POLICY["policies"], ids=lambda c: json.dumps(c["config"])[:60])
def test_policy(case):
    policy = resolve_policy(case["config"], "train")
    assert policy.to_dict() == case["policy"]
    assert policy.summary() == case["summary"]
    assert case["cases"]
    for n in case["cases"]:
        for condition in ("infected", "uninfected"):
            faithful = policy.indices(condition, n["total_frames"], faithful=True)
            assert faithful == n[condition]
            if policy.window_problem(condition, n["total_frames"]) is None:
                assert policy.indices(condition, n["total_frames"]) == n[condition]


@pytest.mark.parametrize("case", POLICY["resolve"], ids=lambda c: json.dumps(c["frames"])[:80])
def test_policy_of_each_split(case):
    for split, expected in case["resolved"].items():
        assert resolve_policy(case["frames"], split).to_dict() == expected


@pytest.mark.parametrize("number", range(len(POLICY["overrides"])))
def test_sweep_overrides(number):
    case = POLICY["overrides"][number]
    arguments = (case["frames"], case["start"], case["end"])
    if case["fn"] == "interval":
        result = interval_override(*arguments, case["mode"], case["match_uninfected"])
    else:
        result = sliding_override(*arguments, case["match_uninfected"])
    assert result == case["result"]
    for split, expected in case["resolved"].items():
        assert resolve_policy(result, split).to_dict() == expected
