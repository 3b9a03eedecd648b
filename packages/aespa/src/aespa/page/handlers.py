"""What happens when a visitor does something. Handlers hold nothing of a visitor: that is in the session."""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from aespa.errors import DataError
from aespa.page import markup
from aespa.page.model import PageModel
from aespa.page.options import PageOptions
from aespa.page.rendering import array_file, mask_png
from aespa.page.samples import Examples, Sample, read_upload
from aespa.page.session import VIEWS, Session
from aespa.page.visitors import Visitors

logger = logging.getLogger(__name__)

Action = Callable[[Session], str | None]
STARTED_ANEW = "The page had been left for long, so it begins anew."
HALF_PRECISION_ABOVE = 4_000_000  # pixels; a probability of more goes out as float16


class Handlers:
    """Answers the controls of the page.

    Args:
        model: The network.
        options: Limits and examples.
    """

    def __init__(self, model: PageModel, options: PageOptions) -> None:
        self.model, self.options = model, options
        self.examples = Examples(options)
        self.visitors = Visitors(lambda: Session(model.predictor()), options.max_visitors)
        self._computing = threading.Lock()  # one answer at a time has all cores

    # --- the image

    def load(self, name: str, request: gr.Request) -> list[Any]:
        """Show a new visitor the first example."""
        return self._act(request, lambda session: self._open(session, name), begin=False)

    def example(self, name: str, request: gr.Request) -> list[Any]:
        """Show an example."""
        return self._act(request, lambda session: self._open(session, name), begin=False)

    def upload(self, path: str | None, request: gr.Request) -> list[Any]:
        """Show an image that the visitor gave; its file is not kept."""
        if path is None:
            return self._act(request, lambda _: None)
        file = Path(path)
        try:
            return self._act(request, lambda session: self._open_file(session, file), begin=False)
        finally:
            file.unlink(missing_ok=True)

    def _open(self, session: Session, name: str) -> None:
        session.open(self.examples.read(name))

    def _open_file(self, session: Session, file: Path) -> str:
        image = read_upload(file, self.options.max_megapixels)
        session.open(Sample(file.stem, image))
        return f"{file.name}: {image.shape[1]} × {image.shape[0]} px"

    # --- clicks

    def click(self, label: str, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Take a click at a pixel."""

        def action(session: Session) -> None:
            data = _data(event)
            inside = (label == "inside") != bool(data.get("other"))
            session.click(_whole(data.get("x")), _whole(data.get("y")), int(inside))

        return self._act(request, action)

    def choose(self, event: gr.EventData, request: gr.Request) -> list[Any]:
        """Follow a proposal."""

        def action(session: Session) -> str:
            data = _data(event)
            number = _whole(data.get("number"))
            session.choose(number, _whole(data.get("revision")))
            return f"Following proposal {number + 1}."

        return self._act(request, action)

    def undo(self, request: gr.Request) -> list[Any]:
        """Take back the last step."""
        return self._act(request, lambda session: session.undo())

    def redo(self, request: gr.Request) -> list[Any]:
        """Repeat what was taken back."""
        return self._act(request, lambda session: session.redo())

    def reset(self, request: gr.Request) -> list[Any]:
        """Forget all clicks."""
        return self._act(request, lambda session: session.reset())

    def suggest(self, request: gr.Request) -> list[Any]:
        """Show a click that would help, or make the one that is shown."""
        return self._act(request, lambda session: session.suggest())

    def view(self, view: str, request: gr.Request) -> list[Any]:
        """Look at something else."""

        def action(session: Session) -> None:
            session.view = next((known for known in VIEWS if known == view), "mask")

        return self._act(request, action)

    # --- what comes later

    def proposals(self, request: gr.Request) -> Any:
        """Return the proposals; they take longer than the mask, which is shown before."""
        try:
            session, _ = self.visitors.enter(_name(request))
            with session.lock, self._computing:
                return markup.cards(session)
        except DataError:  # the visitor was told already
            return ""

    def mask_file(self, request: gr.Request) -> tuple[Any, Any]:
        """Return the mask as a PNG file."""
        return self._file(request, lambda session: (".png", "image/png", mask_png(session.prediction().mask)))

    def probability_file(self, request: gr.Request) -> tuple[Any, Any]:
        """Return the probability as a NumPy file."""

        def make(session: Session) -> tuple[str, str, bytes]:
            values = session.prediction().probability
            if values.size > HALF_PRECISION_ABOVE:
                values = values.astype(np.float16)
            return ".npy", "application/octet-stream", array_file(values)

        return self._file(request, make)

    def unload(self, request: gr.Request) -> None:
        """Forget a visitor whose page was closed."""
        self.visitors.leave(_name(request))

    # --- inside

    def _act(self, request: gr.Request, action: Action, *, begin: bool = True) -> list[Any]:
        """Do something with the visitor's session and return all that is shown.

        Args:
            request: Tells the visitor.
            action: May return a sentence for the visitor.
            begin: Whether a visitor who is not known (any more) gets the first example instead.
        """
        try:
            session, new = self.visitors.enter(_name(request))
        except DataError as error:
            return [markup.message(str(error), bad=True), *[gr.skip()] * 8]
        with session.lock, self._computing:
            told, bad = "", False
            try:
                if new and begin:
                    self._open(session, self.examples.names[0])
                    told = STARTED_ANEW
                else:
                    told = action(session) or ""
            except DataError as error:
                told, bad = str(error), True
            session.answers += 1
            return [markup.message(told, bad=bad), *self._screen(session)]

    def _screen(self, session: Session) -> list[Any]:
        can_suggest = session.has_image and bool(session.sample.n_raters)
        take = "Take the suggestion" if session.suggestion else "Suggest a click"
        return [
            markup.canvas(session),
            markup.legend(session),
            markup.raters(session),
            markup.facts(session, self.model.name),
            gr.update(interactive=session.can_undo),
            gr.update(interactive=session.can_redo),
            gr.update(interactive=session.n_interactions > 0),
            gr.update(interactive=can_suggest, value=take),
        ]

    def _file(
        self, request: gr.Request, make: Callable[[Session], tuple[str, str, bytes]]
    ) -> tuple[Any, Any]:
        """Return a file for the browser to save, which never touches this machine's disk, and a message."""
        try:
            session, _ = self.visitors.enter(_name(request))
            with session.lock:
                ending, kind, content = make(session)
                name = re.sub(r"[^\w.-]+", "_", session.sample.name) + (
                    "_mask" if ending == ".png" else "_probability"
                )
        except DataError as error:
            return None, markup.message(str(error), bad=True)
        data = base64.b64encode(content).decode()
        return {"name": name + ending, "url": f"data:{kind};base64,{data}"}, markup.message(
            f"Saved {name}{ending}."
        )


def _name(request: gr.Request) -> str:
    """Return the name of a visitor's page."""
    return str(request.session_hash)


def _data(event: gr.EventData) -> dict[str, Any]:
    """Return what the browser says about an event."""
    return event._data if isinstance(event._data, dict) else {}


def _whole(value: object) -> int:
    """Return a whole number that the browser sent."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"expected a whole number, found {value!r}")
    return value
