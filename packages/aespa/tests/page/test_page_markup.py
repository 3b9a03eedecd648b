"""The parts of the page."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aespa.page import markup
from aespa.page.samples import Sample
from aespa.page.session import Session


@pytest.fixture
def session(square_predictor) -> Session:
    image = np.zeros((16, 32, 3), np.uint8)
    image[4:10, 4:10] = 255
    made = Session(square_predictor)
    masks = (image[..., 0] > 0)[None]
    made.open(Sample("<b>evil</b>", image, masks, ("<i>rater</i>",)))
    return made


def test_names_that_visitors_give_are_text(session):
    shown = "".join(
        (
            markup.canvas(session),
            markup.raters(session),
            markup.facts(session, "<u>model</u>"),
            markup.message("<s>told</s>"),
        )
    )
    for tag in ("<b>evil", "<i>", "<u>", "<s>"):
        assert tag not in shown
    assert "&lt;b&gt;evil" in shown


def test_clicks_are_drawn_where_they_are(session):
    session.click(3, 5, 1)
    session.click(30, 15, 0)
    drawn = markup.canvas(session)
    places = re.findall(r'<g class="click (\w+)"><circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert places == [("inside", "70.0", "110.0"), ("outside", "610.0", "310.0")], "20 shown pixels each"
    assert 'data-width="32" data-height="16"' in drawn


def test_a_suggestion_is_drawn_until_it_is_taken(session):
    session.click(20, 8, 1)
    assert "suggested" not in markup.canvas(session)
    session.suggest()
    assert '<g class="suggested outside">' in markup.canvas(session)


def test_legends(session):
    assert "click inside" in markup.legend(session)
    session.view = "entropy"
    assert "1 bit" in markup.legend(session)
    session.view = "agreement"
    assert "share of raters" in markup.legend(session)
    session.open(Sample("alone", session.sample.image))
    assert "share of samples" in markup.legend(session)


def test_cards_carry_what_choosing_needs(session):
    drawn = markup.cards(session)
    assert re.findall(r'data-number="(\d)" data-revision="(\d+)"', drawn) == [
        (str(i), str(session.revision)) for i in range(4)
    ]
    assert "40% of samples" in drawn
    assert "hardly differ" not in drawn


def test_proposals_that_are_alike_are_named_so(session, monkeypatch):
    alike = session.proposals()[:1] * 2
    monkeypatch.setattr(session, "proposals", lambda: alike)
    assert "hardly differ" in markup.cards(session)
    monkeypatch.setattr(session, "proposals", lambda: alike[:1])
    assert "one outline" in markup.cards(session)


def test_the_best_rater_is_named(session):
    told = markup.raters(session)
    assert "Following: <b>&lt;i&gt;rater&lt;/i&gt;</b> | Dice 1.000 · IoU 1.000 | Clicks: 0" in told
    session.open(Sample("alone", session.sample.image))
    assert "No rater" in markup.raters(session)


def test_before_there_is_an_image(square_predictor):
    session = Session(square_predictor)
    assert "pick an example" in markup.canvas(session)
    assert markup.cards(session) == ""
    assert "model" in markup.facts(session, "model")
