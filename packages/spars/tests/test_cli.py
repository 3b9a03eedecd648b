"""The verbs and their flags."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from spars import cli

VERBS = [
    "demo",
    "prepare",
    "train-classifier",
    "train",
    "play",
    "score-map",
    "evaluate",
    "baselines",
    "predict",
]
VERBS += ["ablate", "make-synthetic", "report", "doctor"]
NEEDED = {
    "evaluate": ["--agent", "a"],
    "predict": ["i.nii.gz", "--agent", "a"],
    "ablate": ["--family", "window"],
    "make-synthetic": ["out"],
    "prepare": ["--data_dir", "d"],
    "report": ["run"],
}


def test_every_verb_answers_help(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            cli.main([verb, "--help"])
        assert stop.value.code == 0
        name = "train" if verb == "play" else verb
        assert f"usage: spars {name}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reaches_a_handler(verb, monkeypatch):
    from spars import commands

    arguments = cli.build_parser(verb).parse_args([verb, *NEEDED.get(verb, [])])
    seen = []
    monkeypatch.setattr(commands, arguments.handler_name, lambda given: seen.append(given.verb) or 7)
    assert cli.main([verb, *NEEDED.get(verb, [])]) == 7
    assert seen == [verb]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "VERB"),
        (["play", "--preset", "ex1_8in"], "invalid choice: 'ex1_8in'"),
        (["evaluate"], "--agent"),
        (["ablate"], "one of the arguments --family --presets is required"),
        (["ablate", "--family", "window", "--presets", "best_RL"], "not allowed with"),
        (["prepare", "--shares", "0.5"], "expected 3 arguments"),
    ],
)
def test_a_wrong_command_line_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_of_all_verbs_and_scripts_imports_no_torch():
    """One process asks everything; what it has imported at the end is what any of them would."""
    code = f"""
import contextlib, io, json, runpy, sys
from pathlib import Path
from spars import cli
from spars.presets import PRESETS
root = Path({str(cli.__file__)!r}).parents[2]
scripts = [preset.script for preset in PRESETS.values()]
scripts += ["RL_threshold_experiments/net_threshold.py", "RL_window_size_experiments/net_window_size.py"]
codes = []
for words in [[verb, "--help"] for verb in {VERBS!r}]:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit as stop:
            codes.append(stop.code)
for script in scripts:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            runpy.run_path(str(root / script), run_name="__main__")
        except SystemExit as stop:
            codes.append(stop.code)
    assert "--faithful" in shown.getvalue(), script
heavy = ["torch", "stable_baselines3", "pettingzoo", "gymnasium", "matplotlib", "nibabel", "scipy", "pandas"]
print(json.dumps([codes, [name for name in heavy if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    codes, heavy = json.loads(done.stdout)
    assert set(codes) == {0}
    assert len(codes) == len(VERBS) + 19
    assert heavy == []


def test_prediction_has_a_flag_for_everything_it_can_be_told():
    import inspect

    from spars.prediction import predict

    found = vars(cli.build_parser("predict").parse_args(["predict", "i.nii.gz", "--agent", "a"]))
    wanted = {n: p for n, p in inspect.signature(predict).parameters.items() if p.kind is not p.VAR_KEYWORD}
    found |= {"classifier_weights": None}  # of the agent's run, where the flag is not given
    assert set(wanted) <= set(found)
    defaults = {
        name: each.default for name, each in wanted.items() if each.default is not inspect.Parameter.empty
    }
    assert {name: found[name] for name in defaults} == defaults
