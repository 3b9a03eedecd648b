"""Make ``page.png``, the picture of the page in the README: ``uv run packages/aespa/docs/make_page_picture.py``.

Needs Chromium and the packages of the tests. ``--weights`` takes a network of ``aespa demo``, such as
``runs/aespa-demo/demo/aespa/checkpoints/best.pt``; without it, the page's own small network is used.
"""

from __future__ import annotations

import argparse
import shutil
import socket
from pathlib import Path

from playwright.sync_api import sync_playwright

from aespa.page.model import load_page_model
from aespa.page.options import PageOptions
from aespa.page.serving import serving

SIZE = {"width": 1280, "height": 840}
CLICKS = ((554, 415), (204, 125))  # in the shown picture: the edge of the satellite and that of the rim


def main() -> None:
    """Open the page, click, and keep what it looks like."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("page.png"))
    given = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = PageOptions(weights=given.weights, port=port, device="cpu")
    with serving(options, load_page_model(options)) as served, sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(served.url)
        page.wait_for_selector("#cards .card")
        picture = page.locator("#canvas .picture")
        for number, (x, y) in enumerate(CLICKS, start=1):
            picture.click(position={"x": x, "y": y})
            page.wait_for_function(f"() => document.querySelectorAll('#canvas g.click').length === {number}")
        page.mouse.move(5, 5)
        page.wait_for_timeout(1500)  # the proposals follow
        page.screenshot(path=given.output)
        browser.close()


if __name__ == "__main__":
    main()
