"""The page: what lies where, and which handler answers which control."""

from __future__ import annotations

from typing import Any

import gradio as gr

from aespa.page.handlers import Handlers
from aespa.page.session import VIEWS
from aespa.page.styles import CANVAS_JS, CARDS_JS, OPACITY_JS, SAVE_JS

TITLE = "AESPA · segmentation that follows the rater"
HELP = (
    "Left click on the image: <b>inside</b> or <b>outside</b> of what you want (right click: the other one). "
    "Or choose whose outline to follow."
)
INSIDE, OUTSIDE = "inside", "outside"
OPACITY = 0.4
VIEW_LABELS = {"mask": "mask", "probability": "probability", "entropy": "entropy", "agreement": "agreement"}


def build_page(handlers: Handlers) -> gr.Blocks:
    """Build the page.

    Args:
        handlers: What answers; it holds the network and the visitors.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        note = f'<span class="note">{handlers.model.note}</span>' if handlers.model.note else ""
        gr.HTML(f"<h1>{TITLE}</h1><p>{HELP}</p>{note}", elem_id="header", js_on_load=None)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=0, min_width=230, elem_id="controls"):
                controls = _controls(handlers)
            with gr.Column(scale=0, min_width=640, elem_id="middle"):
                parts = _middle()
            with gr.Column(scale=0, min_width=300, elem_id="right"):
                parts |= _right()
        _connect(page, handlers, controls, parts)
    return page


def _controls(handlers: Handlers) -> dict[str, Any]:
    names = handlers.examples.names
    found: dict[str, Any] = {
        "example": gr.Dropdown(names, value=names[0], label="Example", elem_id="example", filterable=False),
        "upload": gr.UploadButton("Upload an image", size="sm", elem_id="upload"),
        "label": gr.Radio([INSIDE, OUTSIDE], value=INSIDE, label="A left click says", elem_id="label"),
    }
    with gr.Row(elem_classes="tight"):
        found["undo"] = gr.Button("Undo", size="sm", interactive=False, min_width=60, elem_id="undo")
        found["redo"] = gr.Button("Redo", size="sm", interactive=False, min_width=60, elem_id="redo")
        found["reset"] = gr.Button("Reset", size="sm", interactive=False, min_width=60, elem_id="reset")
    found["suggest"] = gr.Button("Suggest a click", size="sm", interactive=False, elem_id="suggest")
    found["view"] = gr.Radio(
        [(VIEW_LABELS[view], view) for view in VIEWS], value="mask", label="View", elem_id="view"
    )
    found["opacity"] = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", elem_id="opacity", buttons=[])
    found["facts"] = gr.HTML(elem_id="facts", js_on_load=None)
    return found


def _middle() -> dict[str, Any]:
    return {
        "message": gr.HTML(elem_id="message", js_on_load=None),
        "canvas": gr.HTML(elem_id="canvas", js_on_load=CANVAS_JS),
        "legend": gr.HTML(elem_id="legend", js_on_load=None),
    }


def _right() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    parts["cards"] = gr.HTML(elem_id="cards", js_on_load=CARDS_JS)
    parts["raters"] = gr.HTML(elem_id="raters", js_on_load=None)
    with gr.Row(elem_classes="tight"):
        parts["png"] = gr.Button("Save mask (PNG)", size="sm", min_width=90, elem_id="png")
        parts["npy"] = gr.Button("Save probability (npy)", size="sm", min_width=90, elem_id="npy")
    parts["file"] = gr.JSON(visible="hidden", elem_id="file")
    return parts


def _connect(page: gr.Blocks, handlers: Handlers, controls: dict[str, Any], parts: dict[str, Any]) -> None:
    """Let every control call its handler; the proposals, which take longest, follow by themselves."""
    screen = [parts[name] for name in ("message", "canvas", "legend", "raters")]
    screen += [controls[name] for name in ("facts", "undo", "redo", "reset", "suggest")]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def answer(listen: Any, handler: Any, inputs: Any = None, **options: Any) -> None:
        done = listen(handler, inputs, screen, **quiet, **options)
        done.then(handlers.proposals, None, parts["cards"], **quiet)

    answer(page.load, handlers.load, controls["example"])
    answer(controls["example"].input, handlers.example, controls["example"])
    answer(controls["upload"].upload, handlers.upload, controls["upload"])
    # Quick clicks wait for each other; none is dropped.
    answer(parts["canvas"].select, handlers.click, controls["label"], trigger_mode="multiple")
    answer(parts["cards"].select, handlers.choose)
    for name in ("undo", "redo", "reset", "suggest"):
        answer(controls[name].click, getattr(handlers, name), trigger_mode="multiple")
    controls["view"].input(handlers.view, controls["view"], screen, **quiet)
    controls["opacity"].input(None, controls["opacity"], None, js=OPACITY_JS, **quiet)
    for name, handler in (("png", handlers.mask_file), ("npy", handlers.probability_file)):
        made = parts[name].click(handler, None, [parts["file"], parts["message"]], **quiet)
        made.then(None, parts["file"], None, js=SAVE_JS, **quiet)
    page.unload(handlers.unload)
