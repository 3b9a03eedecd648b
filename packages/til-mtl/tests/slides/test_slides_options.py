"""Flags and their values."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from medshared.leases import Shard
from til_mtl.errors import DataError
from til_mtl.slides.options import SlideOptions, add_predict_options, slide_options

NEEDED = ["--checkpoint", "c.pt", "--slides", "s", "--out", "o"]


def parse(*flags: str) -> SlideOptions:
    parser = argparse.ArgumentParser()
    add_predict_options(parser)
    return slide_options(parser.parse_args([*NEEDED, *flags]))


def test_defaults():
    options = parse()
    assert (options.mpp, options.patch, options.margin, options.batch) == (0.5, 256, 32, 32)
    assert (options.conf, options.nms, options.cell_um, options.device) == (0.1, 12.0, 8.0, "auto")
    assert (options.counted_region, options.score, options.shard) == ("stroma", "default", Shard(0, 1))


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (["--faithful"], "nms", 18.0),
        (["--faithful", "--nms", "9"], "nms", 9.0),
        (["--shard", "2/3"], "shard", Shard(1, 3)),
        (["--mpp-of", "a=b=0.25", "--mpp-of", "c=0.5"], "mpp_of", {"a=b": 0.25, "c": 0.5}),
        (["--score", "tiager"], "counted_region", "bulk"),
        (["--score", "tiager", "--region", "stroma"], "counted_region", "stroma"),
        (["--score", "didsr"], "counted_region", "stroma"),
        (["--save-maps"], "save_maps", True),
        (["--jobs", "3"], "jobs", 3),
    ],
)
def test_flags(flags, name, value):
    assert getattr(parse(*flags), name) == value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mpp", "0"], "--mpp must be positive, found 0"),
        (["--mpp-of", "a"], r"--mpp-of a: expected SLIDE=VALUE"),
        (["--mpp-of", "a=-1"], "expected SLIDE=VALUE"),
        (["--conf", "1.5"], "--conf must lie between 0 and 1, found 1.5"),
        (["--nms", "-1"], "--nms must not be negative"),
        (["--margin", "128"], "leave nothing of a tile"),
        (["--jobs", "0"], "--jobs must be positive"),
        (["--max-fault-share", "2"], "--max-fault-share must lie between"),
    ],
)
def test_bad_values_are_named(flags, message):
    with pytest.raises(DataError, match=message):
        parse(*flags)


def test_regions_take_the_place_of_slides(capsys):
    parser = argparse.ArgumentParser()
    add_predict_options(parser)
    options = slide_options(parser.parse_args(["--checkpoint", "c.pt", "--regions", "r", "--out", "o"]))
    assert (options.slides, options.regions) == (None, Path("r"))
    for flags in ([], ["--slides", "s", "--regions", "r"]):
        with pytest.raises(SystemExit):
            parser.parse_args(["--checkpoint", "c.pt", "--out", "o", *flags])
    assert "one of the arguments --slides --regions is required" in capsys.readouterr().err
    with pytest.raises(DataError, match="--masks goes with --slides, not with --regions"):
        slide_options(parser.parse_args(["--checkpoint=c", "--regions=r", "--out=o", "--masks=m"]))


def test_a_bad_shard_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        parse("--shard", "4/3")
    assert "shard 4/3 does not exist" in capsys.readouterr().err


def test_what_changes_no_result_is_no_reason_to_work_again():
    settings = parse().result_settings()
    assert settings == parse("--batch", "4", "--jobs", "2", "--shard", "1/2", "--again").result_settings()
    assert settings != parse("--nms", "9").result_settings()
