"""The flags of ``predict.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aespa.cli import add_prediction_flags
from aespa.errors import DataError
from aespa.prediction_options import PredictOptions, options_from_arguments
from medshared.leases import Shard


def parsed(*words: str) -> PredictOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_prediction_flags(parser)
    return options_from_arguments(parser.parse_args(["a.png", "-weights", "w.pt", "-output", "out", *words]))


def test_defaults():
    assert parsed() == PredictOptions((Path("a.png"),), Path("w.pt"), Path("out"))


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_every_flag(dashes):
    words = "clicks c.csv mode SPA num_samples 8 k 3 npy stretch axis 0 propagate image_size 128 overwrite"
    words += " shard 2/3 seed 7 device cpu"
    flags = [
        word if word[0].isdigit() or word in ("c.csv", "SPA", "cpu") else dashes + word
        for word in words.split()
    ]
    expected = PredictOptions(
        (Path("a.png"),), Path("w.pt"), Path("out"), clicks=Path("c.csv"), mode="SPA", num_samples=8, k=3,
        npy=True, stretch=True, axis=0, propagate=True, image_size=128, overwrite=True, shard=Shard(1, 3),
        device="cpu", seed=7,
    )  # fmt: skip
    assert parsed(*flags) == expected


@pytest.mark.parametrize(
    ("words", "window"),
    [
        ("", (0, 80)),
        ("-window lung", (-1350, 150)),
        ("-window soft", (-160, 240)),
        ("-window none", None),
        ("-level -600 -width 1500", (-1350, 150)),
        ("-window soft -level 0", (-200, 200)),
        ("-window none -level 50 -width 100", (0, 100)),
    ],
)
def test_windows(words, window):
    assert parsed(*words.split()).window == window


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-width 0", "above 0 HU"),
        ("-window none -level 3", "both"),
        ("-num_samples 0", "at least 1"),
        ("-k 9 -num_samples 8", "every proposal needs a sample"),
        ("-k -1", "from 0"),
    ],
)
def test_values_out_of_range(words, message):
    with pytest.raises(DataError, match=message):
        parsed(*words.split())


def test_a_shard_that_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        parsed("-shard", "3/2")
    assert "-shard: shard 3/2 does not exist" in capsys.readouterr().err
