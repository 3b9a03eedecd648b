"""The page in a real browser: headless Chromium, on a free port of this machine."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from aespa.errors import DataError
from aespa.page.model import load_page_model
from aespa.page.options import PageOptions
from aespa.page.samples import Examples
from aespa.page.serving import serve, serving

LIMIT = 3
W, H = 48, 32
WAIT_MS = 20_000

READ_MASK = """async () => {
  const picture = document.querySelector('#canvas .picture'), shade = picture.querySelector('img.shade');
  await shade.decode();
  const w = Number(picture.dataset.width), h = Number(picture.dataset.height);
  const canvas = document.createElement('canvas');
  canvas.width = shade.naturalWidth; canvas.height = shade.naturalHeight;
  const pen = canvas.getContext('2d');
  pen.drawImage(shade, 0, 0);
  const data = pen.getImageData(0, 0, canvas.width, canvas.height).data, found = [];
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const u = Math.floor((x + 0.5) * canvas.width / w), v = Math.floor((y + 0.5) * canvas.height / h);
    found.push(data[4 * (v * canvas.width + u) + 3] > 0);
  }
  return found;
}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(buffer, "PNG")
    return buffer.getvalue()


def own_image() -> np.ndarray:
    """A bright rectangle on black."""
    image = np.zeros((H, W), np.uint8)
    image[10:20, 8:24] = 200
    return image


class Tab:
    """One page of a browser, with what it asked for and complained of."""

    def __init__(self, context, url: str, *, there: str = "#cards .card") -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type in ("error", "warning") else None,
        )
        self.page.goto(url)
        self.page.wait_for_selector(there)

    def content(self, part: str = "#canvas") -> str:
        """What a part shows, without the number of the answer."""
        return re.sub(r' data-answer="\d+"', "", self.page.inner_html(f"{part} .html-container"))

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Wait, at the end of the block, until the page has been drawn anew."""
        number = "() => Number(document.querySelector('#canvas .picture').dataset.answer)"
        before = self.page.evaluate(number)
        yield
        self.page.wait_for_function(f"before => ({number})() > before", arg=before)

    def wait_for_message(self, text: str) -> None:
        told = "text => document.querySelector('#message').innerText.includes(text)"
        self.page.wait_for_function(told, arg=text)

    def press(self, where: str) -> None:
        with self.answered():
            self.page.click(where)

    def upload(self, name: str, content: bytes) -> None:
        given = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        with self.answered():
            self.page.set_input_files("#controls input[type=file]", given)

    def show_own_image(self) -> None:
        self.upload("own.png", png(own_image()))
        self.page.wait_for_selector(f'#canvas .picture[data-width="{W}"]')

    def size(self) -> tuple[int, int]:
        picture = self.page.locator("#canvas .picture")
        return int(picture.get_attribute("data-width")), int(picture.get_attribute("data-height"))

    def click(self, x: int, y: int, *, part: float = 0.5, button: str = "left") -> None:
        """Click into a pixel of the image."""
        box, (width, height) = self.page.locator("#canvas .picture").bounding_box(), self.size()
        place = {"x": (x + part) * box["width"] / width, "y": (y + part) * box["height"] / height}
        with self.answered():
            self.page.locator("#canvas .picture").click(position=place, button=button)

    def mask(self) -> np.ndarray:
        width, height = self.size()
        return np.asarray(self.page.evaluate(READ_MASK)).reshape(height, width)


@pytest.fixture(scope="module")
def served(square_model):
    options = PageOptions(port=free_port(), max_visitors=LIMIT)
    with serving(options, square_model) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def tab(browser, served):
    found = Tab(
        browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True), served.url
    )
    yield found
    found.page.close()


@pytest.mark.browser
def test_the_page_opens_with_an_answer(tab):
    assert tab.mask().any(), "the network answers without a click"
    assert "160 × 160 px" in tab.content("#facts")
    assert "ms, once" in tab.content("#facts")
    assert "A network for tests." in tab.content("#header")
    assert tab.page.is_disabled("#undo")
    assert len(tab.page.query_selector_all("#cards .card")) == 4
    size = tab.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1280
    assert size[1] <= 900


@pytest.mark.browser
@pytest.mark.parametrize("part", [0.05, 0.95])
def test_a_click_changes_the_mask_at_its_place(tab, part):
    tab.show_own_image()
    before, content = tab.mask(), tab.content()
    assert np.array_equal(before, own_image() > 0)
    tab.click(40, 5, part=part)
    after = tab.mask()
    wanted = before.copy()
    wanted[3:8, 38:43] = True
    assert np.array_equal(after, wanted)
    tab.press("#undo")
    assert tab.content() == content
    tab.press("#redo")
    assert np.array_equal(tab.mask(), wanted)


@pytest.mark.browser
def test_outside_clicks_and_the_corners(tab):
    tab.show_own_image()
    wanted = tab.mask()
    tab.page.locator("#label label", has_text="outside").click()
    tab.click(15, 15)
    wanted[13:18, 13:18] = False
    assert np.array_equal(tab.mask(), wanted)
    tab.click(W - 1, H - 1, part=0.99, button="right")
    wanted[H - 3 :, W - 3 :] = True
    assert np.array_equal(tab.mask(), wanted)
    tab.page.locator("#label label", has_text="inside").click()
    tab.click(0, 0, part=0.01)
    wanted[:3, :3] = True
    assert np.array_equal(tab.mask(), wanted)
    assert len(tab.page.query_selector_all("#canvas g.click")) == 3
    tab.press("#reset")
    assert np.array_equal(tab.mask(), own_image() > 0)


@pytest.mark.browser
def test_the_mask_that_is_saved(tab):
    tab.show_own_image()
    tab.click(40, 25)
    with tab.page.expect_download() as waiting:
        tab.page.click("#png")
    assert waiting.value.suggested_filename == "own_mask.png"
    with Image.open(waiting.value.path()) as found:
        assert found.size == (W, H)
        assert np.array_equal(np.asarray(found) > 0, tab.mask())
    with tab.page.expect_download() as waiting:
        tab.page.click("#npy")
    assert waiting.value.suggested_filename == "own_probability.npy"
    values = np.load(Path(waiting.value.path()), allow_pickle=False)
    np.testing.assert_allclose(values, np.where(tab.mask(), 0.9, 0.1), rtol=1e-6)


@pytest.mark.browser
def test_an_upload_that_is_no_image_loses_nothing(tab):
    tab.show_own_image()
    tab.click(40, 25)
    content = tab.content()
    for name, body, told in (
        ("notes.png", b"these are notes", "notes.png: not an image that can be read"),
        ("clear.png", png(np.full((4, 4, 4), 7, np.uint8)), "clear.png: the image is partly transparent"),
    ):
        tab.upload(name, body)
        tab.wait_for_message(told)
        assert "bad" in tab.content("#message")
        assert tab.content() == content


@pytest.mark.browser
def test_following_a_proposal(tab):
    tab.show_own_image()
    before = tab.mask()
    # The cards come a moment after the picture; those of an earlier picture are refused.
    for _ in range(20):
        tab.press("#cards .card >> nth=3")
        if tab.page.is_enabled("#undo"):
            break
        assert "proposals have changed" in tab.page.inner_text("#message")
    tab.wait_for_message("Following proposal 4")
    assert np.array_equal(tab.mask(), ~before)
    tab.press("#undo")
    assert np.array_equal(tab.mask(), before)


@pytest.mark.browser
def test_views_opacity_and_suggestions(tab):
    tab.page.click("#example input")
    tab.page.get_by_role("option", name="drawn image 2").click()
    tab.page.wait_for_selector('#canvas .picture[data-width="160"]')
    assert "Following:" in tab.page.inner_text("#raters")
    assert "liberal" in tab.page.inner_text("#raters")
    for view, told in (
        ("entropy", "entropy in bits"),
        ("agreement", "share of raters"),
        ("mask", "click inside"),
    ):
        tab.page.locator("#view label", has_text=view).click()
        # The next answer may be that of the proposals, which come a moment after the picture.
        tab.page.wait_for_function(
            "told => document.querySelector('#legend').innerText.includes(told)", arg=told
        )
    tab.page.locator("#opacity input[type=number]").fill("1")
    tab.page.locator("#opacity input[type=number]").press("Enter")
    tab.page.wait_for_function(
        "() => getComputedStyle(document.querySelector('#canvas .shade')).opacity === '1'"
    )
    tab.press("#suggest")
    tab.wait_for_message("Suggested for")
    assert len(tab.page.query_selector_all("#canvas .suggested")) == 1
    tab.press("#suggest")
    assert len(tab.page.query_selector_all("#canvas g.click")) == 1
    assert "clicks</dt><dd>1<" in tab.content("#facts")


@pytest.mark.browser
def test_large_images_are_shown_small_and_clicked_exactly(tab, served):
    image = np.zeros((1500, 2000), np.uint8)
    image[700:800, 900:1100] = 255
    tab.upload("large.png", png(image))
    tab.page.wait_for_selector('#canvas .picture[data-width="2000"]')
    box = tab.page.locator("#canvas .picture").bounding_box()
    assert max(box["width"], box["height"]) <= 640
    places = [(1999, 1499), (0, 0), (1234, 567)]
    for x, y in places:
        tab.click(x, y)
    made = [session.clicks for session in served.visitors.sessions() if len(session.clicks) == len(places)]
    scale = 2000 / box["width"]  # the pointer moves by whole pixels of the screen, or nearly so
    assert len(made) == 1
    for (x, y), click in zip(places, made[0], strict=True):
        assert abs(click.x - x) <= scale
        assert abs(click.y - y) <= scale


@pytest.mark.browser
def test_visitors_are_independent_limited_and_forgotten(tab, served, browser):
    tab.show_own_image()
    tab.click(40, 5)
    mine = tab.content()
    contexts = [browser.new_context(viewport={"width": 1280, "height": 900}) for _ in range(LIMIT)]
    other = Tab(contexts[0], served.url)
    assert "own" not in other.content("#facts")
    other.show_own_image()
    assert np.array_equal(other.mask(), own_image() > 0), "nobody clicked here"
    other.click(2, 28)
    assert tab.content() == mine
    tab.press("#undo")
    assert other.mask()[28, 2]
    Tab(contexts[1], served.url)
    refused = Tab(contexts[2], served.url, there="#message .bad")
    assert "3 visitors are here already" in refused.page.inner_text("#message")
    for context in contexts:
        context.close()
    until = time.monotonic() + WAIT_MS / 1000
    while len(served.visitors) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(served.visitors) == 1
    assert tab.page.is_enabled("#redo"), "those who stay keep what they told"


@pytest.mark.browser
def test_nothing_leaves_this_machine_and_nothing_goes_wrong(tab):
    """Looks back at everything that the tests above made the page do."""
    assert len(tab.requests) > 10
    for url in tab.requests:
        found = urlsplit(url)
        assert found.scheme in ("data", "blob") or found.hostname == "127.0.0.1", url
    assert tab.complaints == []


@pytest.mark.browser
def test_a_network_follows_a_click_in_the_browser(browser, small_checkpoint):
    """The whole way, with a network that was trained for seconds: the page shows what the predictor says."""
    options = PageOptions(port=free_port(), weights=small_checkpoint, device="cpu")
    model = load_page_model(options)
    sample = Examples(options).read("drawn image 1")
    predictor = model.predictor()
    predictor.set_image(sample.image)
    before = predictor.predict().mask
    for x, y in ((x, y) for y in range(5, 160, 10) for x in range(5, 160, 10)):
        predictor.click(x, y, 1)
        after = predictor.predict().mask
        if after[y, x] and not before[y, x]:
            break
        predictor.reset()
    else:
        pytest.fail("no click in the grid brings its pixel into the mask: the network learned nothing")
    with serving(options, model) as found:
        tab = Tab(browser.new_context(viewport={"width": 1280, "height": 900}), found.url)
        assert np.array_equal(tab.mask(), before)
        tab.click(x, y)
        assert tab.mask()[y, x]
        assert np.array_equal(tab.mask(), after)
        tab.press("#undo")
        assert np.array_equal(tab.mask(), before)
        assert "ms" in tab.content("#facts")
        assert tab.complaints == []
        tab.page.context.close()


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}.*choose another -port"):
            serve(PageOptions(port=port))


def test_examples_are_looked_at_before_a_network_is_trained(tmp_path, monkeypatch):
    from aespa.page import serving as module

    monkeypatch.setattr(module, "load_page_model", lambda options: pytest.fail("too early"))
    with pytest.raises(DataError, match="no such file or folder"):
        serve(PageOptions(port=free_port(), images=(tmp_path / "none.png",)))
    image, rater = tmp_path / "i.png", tmp_path / "r.png"
    image.write_bytes(png(np.zeros((4, 6), np.uint8)))
    rater.write_bytes(png(np.zeros((6, 4), np.uint8)))
    with pytest.raises(DataError, match=r"r\.png: the mask has 4 x 6 px"):
        serve(PageOptions(port=free_port(), images=(image,), raters=(rater,)))


def test_serving_leaves_the_environment_as_it_was(square_model, monkeypatch):
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "elsewhere")
    with serving(PageOptions(port=free_port()), square_model) as found:
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.stat().st_mode & 0o077 == 0, "uploads are nobody else's business"
        host, port = urlsplit(found.url).hostname, urlsplit(found.url).port
        assert host == "127.0.0.1"
        with socket.create_connection((host, port), timeout=5):
            pass
    assert "GRADIO_ANALYTICS_ENABLED" not in os.environ
    assert os.environ["GRADIO_TEMP_DIR"] == "elsewhere"
    assert not folder.exists()
    with pytest.raises(OSError), socket.create_connection((host, port), timeout=5):
        pass


def test_an_open_host_is_warned_of(square_model, monkeypatch, caplog):
    from aespa.page import serving as module

    class Stopped:
        requested = True

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("medshared.process.StopSignal", Stopped)
    monkeypatch.setattr(module, "load_page_model", lambda options: square_model)
    with caplog.at_level(logging.WARNING):
        assert serve(PageOptions(host="0.0.0.0", port=free_port())) == 0  # noqa: S104
    assert "everybody who can reach this machine" in caplog.text
