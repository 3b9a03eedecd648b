"""What the controls of the page do, called as Gradio calls them."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from aespa.page.handlers import HALF_PRECISION_ABOVE, STARTED_ANEW, Handlers
from aespa.page.options import PageOptions
from aespa.page.samples import Sample

MESSAGE, CANVAS = 0, 1


@pytest.fixture
def handlers(square_model) -> Handlers:
    return Handlers(square_model, PageOptions(max_visitors=2, max_megapixels=1))


def visitor(name="a"):
    return SimpleNamespace(session_hash=name)


def event(**data):
    return SimpleNamespace(_data=data)


def session_of(handlers, name="a"):
    return handlers.visitors.enter(name)[0]


@pytest.fixture
def opened(handlers) -> Handlers:
    handlers.load(handlers.examples.names[0], visitor())
    return handlers


@pytest.mark.parametrize(
    ("label", "other", "wanted"),
    [("inside", False, 1), ("outside", False, 0), ("inside", True, 0), ("outside", True, 1)],
)
def test_clicks_say_what_the_label_and_the_button_say(opened, label, other, wanted):
    opened.click(label, event(x=7, y=9, other=other), visitor())
    assert session_of(opened).clicks == [(7, 9, wanted)]


@pytest.mark.parametrize(
    "data", [{}, {"x": 1.5, "y": 2}, {"x": "1", "y": 2}, {"x": True, "y": 2}, {"x": None, "y": 0}]
)
def test_clicks_that_no_browser_sends(opened, data):
    told = opened.click("inside", event(**data), visitor())
    assert "expected a whole number" in told[MESSAGE]
    assert session_of(opened).clicks == []


def test_clicks_beyond_the_image(opened):
    told = opened.click("inside", event(x=64, y=0), visitor())
    assert "outside of the image of 64 x 64" in told[MESSAGE]
    assert "bad" in told[MESSAGE]


def test_the_steps_of_a_visitor(opened):
    session = session_of(opened)
    opened.click("inside", event(x=7, y=9), visitor())
    opened.undo(visitor())
    assert session.n_interactions == 0
    opened.redo(visitor())
    assert session.n_interactions == 1
    opened.choose(event(number=1, revision=session.revision), visitor())
    assert session.n_interactions == 2
    assert "have changed" in opened.choose(event(number=1, revision=0), visitor())[MESSAGE]
    opened.reset(visitor())
    assert session.n_interactions == 0
    assert opened.undo(visitor())[MESSAGE] == opened.redo(visitor())[MESSAGE]
    opened.view("entropy", visitor())
    assert session.view == "entropy"
    opened.view("something else", visitor())
    assert session.view == "mask"
    assert "Suggested" in opened.suggest(visitor())[MESSAGE]


def test_a_visitor_who_was_forgotten_begins_anew(handlers):
    told = handlers.click("inside", event(x=7, y=9), visitor())
    assert STARTED_ANEW in told[MESSAGE]
    assert session_of(handlers).clicks == []
    assert 'class="picture"' in told[CANVAS]


def test_too_many_visitors_are_told_so(opened):
    opened.load(opened.examples.names[0], visitor("b"))
    told = opened.load(opened.examples.names[0], visitor("c"))
    assert "2 visitors are here already" in told[MESSAGE]
    assert opened.proposals(visitor("c")) == ""
    assert opened.mask_file(visitor("c"))[0] is None
    opened.unload(visitor("b"))
    assert "bad" not in opened.load(opened.examples.names[0], visitor("c"))[MESSAGE]


def test_uploads_are_read_and_not_kept(opened, tmp_path):
    path = tmp_path / "own image.png"
    Image.fromarray(np.full((5, 9), 200, np.uint8)).save(path)
    told = opened.upload(str(path), visitor())
    assert "own image.png: 9 × 5 px" in told[MESSAGE]
    assert session_of(opened).sample.image.shape == (5, 9, 3)
    assert not path.exists()
    path.write_bytes(b"no image")
    told = opened.upload(str(path), visitor())
    assert "bad" in told[MESSAGE]
    assert not path.exists()
    assert session_of(opened).sample.name == "own image"
    assert "bad" not in opened.upload(None, visitor())[MESSAGE]


def test_a_large_upload_is_refused(opened, tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((1100, 1000), np.uint8)).save(path)
    told = opened.upload(str(path), visitor())
    assert "1000 x 1100 px are 1.1 megapixels, at most 1 are taken" in told[MESSAGE]
    assert session_of(opened).sample.image.shape == (64, 64, 3)


def decoded(file) -> bytes:
    return base64.b64decode(file["url"].split(",")[1])


def test_files_to_save(opened):
    session = session_of(opened)
    file, told = opened.mask_file(visitor())
    assert file["name"] == "drawn_image_1_mask.png"
    assert "Saved drawn_image_1_mask.png" in told
    with Image.open(io.BytesIO(decoded(file))) as found:
        assert np.array_equal(np.asarray(found) > 0, session.prediction().mask)
    values = np.load(io.BytesIO(decoded(opened.probability_file(visitor())[0])), allow_pickle=False)
    assert values.dtype == np.float32
    assert np.array_equal(values, session.prediction().probability)


def test_the_probability_of_a_very_large_image_is_saved_in_half_precision(opened):
    side = int(HALF_PRECISION_ABOVE**0.5) + 1
    session_of(opened).open(Sample("large", np.zeros((side, side, 3), np.uint8)))
    values = np.load(io.BytesIO(decoded(opened.probability_file(visitor())[0])), allow_pickle=False)
    assert (values.dtype, values.shape) == (np.float16, (side, side))
