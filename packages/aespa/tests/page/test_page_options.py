"""Flags of the page."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from aespa.errors import DataError
from aespa.page.options import PageOptions, add_page_options, page_options


def parsed(*words: str) -> PageOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_page_options(parser)
    parser.add_argument("-device", default="auto")
    return page_options(parser.parse_args(words))


def test_the_defaults_stay_on_this_machine():
    options = parsed()
    assert options == PageOptions()
    assert (options.host, options.port, options.is_local) == ("127.0.0.1", 7860, True)


def test_one_and_two_dashes_and_the_originals_ways_to_say_no_file():
    options = parsed(
        "-weights", "a.pth", "--sam_ckpt", "0", "-image", "a.png", "b", "-raters", "r.png", "-port", "80"
    )
    assert options.weights == Path("a.pth")
    assert options.sam_ckpt is None
    assert options.images == (Path("a.png"), Path("b"))
    assert options.raters == (Path("r.png"),)
    assert options.port == 80


@pytest.mark.parametrize("host", ["example.org", "192.168.0.7", "::"])
def test_other_hosts_are_not_local(host):
    assert not parsed("-host", host).is_local


def test_a_tunnel_to_the_internet_is_refused(capsys):
    with pytest.raises(SystemExit):
        parsed("-share")
    assert "-share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-port", "70000"), "-port: expected 1 to 65535, found 70000"),
        (("-max_megapixels", "50"), "at most 40, found 50"),
        (("-max_megapixels", "0"), "more than 0"),
        (("-max_visitors", "0"), "-max_visitors: expected at least 1"),
        (("-seed", "-1"), "-seed: expected at least 0"),
        (("-raters", "r.png"), "no -image was given"),
    ],
)
def test_values_that_cannot_be(words, told):
    with pytest.raises(DataError, match=told):
        parsed(*words)
