"""Start the page, wait, stop it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aespa.page.model import PageModel, load_page_model
from aespa.page.options import PageOptions
from aespa.page.visitors import Visitors

logger = logging.getLogger(__name__)

MAX_UPLOAD = "256mb"  # 40 megapixels of three 16-bit channels
FONTS = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Served:
    """A page that is there.

    Attributes:
        url: Where.
        visitors: Who has it open.
    """

    url: str
    visitors: Visitors


def serve(options: PageOptions) -> int:
    """Serve the page until Ctrl-C and return the exit code.

    Args:
        options: Which network, which images, where.

    Raises:
        CheckpointError: The weights cannot be used.
        DataError: An example cannot be used.
        OSError: The port is taken.
    """
    from medshared.process import StopSignal

    _check_port(options)  # before a network is trained
    model = load_page_model(options)
    if not options.is_local:
        logger.warning(
            "-host %s: everybody who can reach this machine can open the page and sees no password; images travel "
            "unencrypted",
            options.host,
        )
    with serving(options, model) as served, StopSignal() as stop:
        logger.info("%s (Ctrl-C stops)", served.url)
        while not stop.requested:
            time.sleep(POLL_SECONDS)
    return 0


@contextmanager
def serving(options: PageOptions, model: PageModel) -> Iterator[Served]:
    """Serve the page while the block runs.

    Args:
        options: Where, and which images.
        model: The network.
    """
    before = os.environ.get("GRADIO_ANALYTICS_ENABLED")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr

        from aespa.page.handlers import Handlers
        from aespa.page.layout import build_page
        from aespa.page.styles import CSS

        handlers = Handlers(model, options)
        page = build_page(handlers).queue(default_concurrency_limit=1)
        _, url, _ = page.launch(
            server_name=options.host,
            server_port=options.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            theme=gr.themes.Base(
                primary_hue="orange", neutral_hue="slate", font=FONTS, font_mono="monospace"
            ),
            css=CSS,
        )
        try:
            yield Served(url, handlers.visitors)
        finally:
            page.close(verbose=False)
    finally:
        if before is None:
            del os.environ["GRADIO_ANALYTICS_ENABLED"]
        else:
            os.environ["GRADIO_ANALYTICS_ENABLED"] = before


def _check_port(options: PageOptions) -> None:
    """Refuse a port that is taken before anything else is done."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise OSError(
                f"cannot listen on {options.host}, port {options.port}: {error.strerror or error}; choose another -port"
            ) from error
