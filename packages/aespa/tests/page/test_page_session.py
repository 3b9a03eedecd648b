"""One visitor's session, without a browser."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.errors import DataError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.page.samples import Sample
from aespa.page.session import VIEWS, Session
from aespa.predictor import AespaPredictor, Click


@pytest.fixture
def sample() -> Sample:
    image = np.zeros((30, 40, 3), np.uint8)
    image[10:20, 10:20] = 255
    big, small = np.zeros((2, 30, 40), bool)
    big[8:22, 8:22] = True
    small[12:18, 12:18] = True
    return Sample("bright", image, np.stack([big, small, np.zeros_like(big)]), ("big", "small", "nothing"))


@pytest.fixture
def session(square_predictor, sample) -> Session:
    made = Session(square_predictor)
    made.open(sample)
    return made


def test_the_network_answers_without_a_click(session):
    assert session.prediction().mask.sum() == 100
    assert session.n_interactions == 0
    assert session.timing.encoding > 0
    assert session.timing.answer is None


def test_before_there_is_an_image(square_predictor):
    session = Session(square_predictor)
    assert not session.has_image
    assert session.overlaps() == []
    with pytest.raises(DataError, match="there is no image yet"):
        _ = session.sample


def test_a_click_undo_and_redo(session):
    before = session.prediction().mask
    session.click(30, 5, 1)
    after = session.prediction().mask
    assert after[3:8, 28:33].all()
    assert (after != before).sum() == 25
    assert session.clicks == [Click(30, 5, 1)]
    assert session.timing.answer is not None
    session.undo()
    assert np.array_equal(session.prediction().mask, before)
    assert session.can_redo
    session.redo()
    assert np.array_equal(session.prediction().mask, after)
    session.reset()
    assert np.array_equal(session.prediction().mask, before)
    assert not session.can_undo


def test_a_click_outside_changes_nothing(session):
    with pytest.raises(DataError, match="outside of the image of 40 x 30"):
        session.click(40, 5, 1)
    assert session.n_interactions == 0


def test_an_image_that_cannot_be_used_leaves_the_one_before(session, sample):
    session.click(1, 1, 1)
    with pytest.raises(DataError, match="uint8"):
        session.open(Sample("deep", sample.image.astype(np.uint16)))
    assert session.sample is sample
    assert session.clicks == [Click(1, 1, 1)]


def test_choosing_a_proposal(session):
    wanted = session.proposals()[3].mask
    session.choose(3, session.revision)
    assert np.array_equal(session.prediction().mask, wanted)
    assert session.n_interactions == 1
    assert session.clicks == []


def test_a_proposal_that_was_seen_before_a_click_cannot_be_chosen(session):
    seen = session.revision
    session.click(1, 1, 1)
    with pytest.raises(DataError, match="have changed"):
        session.choose(0, seen)


def test_overlaps_and_the_best_rater(session):
    found = {each.name: each for each in session.overlaps()}
    assert found["big"].dice == pytest.approx(200 / 296)
    assert found["big"].iou == pytest.approx(100 / 196)
    assert found["small"].dice == pytest.approx(72 / 136)
    assert found["nothing"].dice == pytest.approx(0, abs=1e-6)
    assert session.best_rater().name == "big"
    session.choose(3, session.revision)
    session.choose(3, session.revision)
    assert session.best_rater().name == "big"


def test_an_empty_mask_does_not_make_the_empty_rater_the_best(session):
    for x in (12, 17):
        for y in (12, 17):
            session.click(x, y, 0)
    assert not session.prediction().mask.any()
    assert session.best_rater().name != "nothing"


def test_a_suggestion_is_shown_first_and_then_taken(session):
    told = session.suggest()
    x, y, label = session.suggestion
    assert label == 1
    assert session.sample.raters[0][y, x]
    assert not session.prediction().mask[y, x]
    assert f"({x}, {y}), inside" in told
    assert session.n_interactions == 0
    session.suggest()
    assert session.clicks == [Click(x, y, 1)]
    assert session.suggestion is None
    assert session.prediction().mask[y, x]


def test_a_click_elsewhere_forgets_the_suggestion(session):
    session.suggest()
    session.click(0, 0, 0)
    assert session.suggestion is None


def test_suggestions_need_a_rater_and_an_error(session, sample):
    session.open(Sample("alone", sample.image))
    with pytest.raises(DataError, match="no rater"):
        session.suggest()
    exact = sample.image[..., 0] > 0
    session.open(Sample("right", sample.image, exact[None], ("exact",)))
    assert "nothing to suggest" in session.suggest()


def test_agreement_is_of_raters_or_of_samples(session, sample):
    assert session.agreement()[15, 15] == pytest.approx(2 / 3)
    assert session.agreement()[9, 9] == pytest.approx(1 / 3)
    session.open(Sample("alone", sample.image))
    share = session.agreement()
    assert share[15, 15] == pytest.approx(0.4 + 0.3 + 0.2)
    assert share[0, 0] == pytest.approx(0.2 + 0.1)
    assert share[0, 39] == pytest.approx(0.1)


def test_views(session):
    for view in VIEWS:
        session.view = view
        heat = session.heat()
        assert (heat is None) == (view == "mask")
        if heat is not None:
            assert heat.shape == (30, 40)
            assert 0 <= heat.min() <= heat.max() <= 1


def test_two_visitors_share_the_network_and_nothing_else(sample):
    network = build_network(Architecture(encoder="tiny", image_size=32, n_components=4)).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    one, two = (Session(AespaPredictor(network, n_samples=6)) for _ in range(2))
    one.open(sample)
    two.open(sample)
    first = two.prediction().probability.copy()
    one.click(12, 12, 0)
    one.choose(0, one.revision)
    assert two.clicks == []
    assert np.array_equal(two.prediction().probability, first)
    assert not np.array_equal(one.prediction().probability, first)
    assert all(bool((value == before[key]).all()) for key, value in network.state_dict().items())
