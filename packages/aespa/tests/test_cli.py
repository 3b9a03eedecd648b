"""The verbs and their flags."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from aespa import cli, commands

VERBS = ["demo", "prepare", "train", "evaluate", "experiments", "predict", "serve", "report", "doctor"]
NEEDED = {
    "prepare": ["mbhseg"],
    "predict": ["a.png", "-weights", "w.pt", "-output", "out"],
    "report": ["run"],
}
PAGE = importlib.util.find_spec("aespa.page.options") is not None
HERE = [verb for verb in VERBS if PAGE or verb != "serve"]


@pytest.mark.parametrize("verb", HERE)
def test_every_verb_answers_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert f"usage: aespa {verb}" in capsys.readouterr().out


def test_help_names_the_verbs(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n    {verb}" in shown for verb in VERBS)


def test_help_loads_nothing_heavy():
    """One process for all verbs: what help loads, it loads in each of them."""
    code = (
        "import contextlib, io, json, sys\n"
        "from aespa import cli, scripts\n"
        "runs = [lambda verb=verb: cli.main([verb, '--help']) for verb in json.loads(sys.argv[1])]\n"
        "names = ['train', 'val', 'process_mbhseg', 'predict'] + ['aespa_demo'] * ('serve' in sys.argv[1])\n"
        "runs += [lambda name=name: getattr(scripts, name)(['--help']) for name in names]\n"
        "for run in runs:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        run()\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(HERE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert {"aespa", "medshared", "pydantic"} <= loaded
    heavy = {"torch", "torchvision", "gradio", "lightning_fabric", "matplotlib", "nibabel", "scipy", "PIL"}
    assert not loaded & heavy


@pytest.mark.parametrize("verb", HERE)
def test_every_verb_reaches_a_handler(verb, monkeypatch):
    words = [verb, *NEEDED.get(verb, [])]
    name = cli.build_parser(verb).parse_args(words).handler_name
    seen = []
    monkeypatch.setattr(commands, name, lambda given: seen.append(given.verb) or 7)
    assert cli.main(words) == 7
    assert seen == [verb]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["train", "-mode", "SAMBA"], "invalid choice: 'SAMBA'"),
        (["predict", "a.png", "-output", "out"], "-weights"),
        (["prepare", "synthetic", "isic", "-output", "out"], "invalid choice: 'isic'"),
        (["prepare"], "WHAT"),
        (["doctor", "-fast"], "-fast"),
    ],
)
def test_mistakes_are_named(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_expected_errors_take_one_line(capsys, tmp_path):
    assert (
        cli.main(["predict", str(tmp_path / "a.png"), "-weights", "w", "-output", str(tmp_path / "o")]) == 1
    )
    assert capsys.readouterr().err == f"error: {tmp_path / 'a.png'}: no such file or folder\n"
    assert cli.main(["train", "-data_path", str(tmp_path)]) == 1
    assert "-dataset: needed, one of LIDC" in capsys.readouterr().err
