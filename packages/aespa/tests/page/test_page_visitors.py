"""Who is on the page."""

from __future__ import annotations

import pytest

from aespa.errors import DataError
from aespa.page.session import Session
from aespa.page.visitors import Visitors


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def visitors(square_predictor, clock):
    return Visitors(lambda: Session(square_predictor), 2, idle_seconds=100, clock=lambda: clock[0])


def test_everybody_keeps_a_session(visitors):
    one, new = visitors.enter("a")
    assert new
    assert visitors.enter("a") == (one, False)
    assert visitors.enter("b")[0] is not one


def test_there_is_a_limit_and_leaving_makes_room(visitors):
    visitors.enter("a")
    visitors.enter("b")
    with pytest.raises(DataError, match="2 visitors are here already"):
        visitors.enter("c")
    assert visitors.enter("a")[1] is False, "those who are here stay"
    visitors.leave("b")
    visitors.leave("unknown")
    assert visitors.enter("c")[1] is True
    assert len(visitors) == 2


def test_who_did_nothing_for_long_makes_room(visitors, clock):
    visitors.enter("a")
    clock[0] = 60.0
    visitors.enter("b")
    clock[0] = 101.0
    assert visitors.enter("c")[1] is True
    assert visitors.enter("b")[1] is False
    with pytest.raises(DataError):
        visitors.enter("a")
