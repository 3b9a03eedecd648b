"""The parts of the page that are drawn from a session: HTML of text and pictures, without any logic of clicks."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from aespa.original.demo import dice_iou
from aespa.page.rendering import (
    PALETTES,
    Frame,
    Palette,
    card_url,
    heat_url,
    image_url,
    mask_url,
    outline_url,
    palette_css,
)
from aespa.page.session import Session
from aespa.predictor import Click

CARD_PX = 128
DOT_PX = 8
ALIKE = 0.95  # Dice above which outlines are taken for one
MEANING = {
    "probability": ("0 %", "probability of the object", "100 %"),
    "entropy": ("certain", "entropy in bits", "1 bit"),
    "agreement": ("nobody", "share that marks the pixel", "everybody"),
}


def canvas(session: Session) -> str:
    """Return the image with what the visitor looks at, and the clicks.

    The browser tells a click's place as a part of width and height, from which it takes the pixel by rounding down.
    """
    if not session.has_image:
        return '<div class="empty">Upload an image or pick an example.</div>'
    sample = session.sample
    frame = Frame.of((sample.image.shape[0], sample.image.shape[1]))
    mask, heat = session.prediction().mask, session.heat()
    if heat is None:
        shade = mask_url(mask, frame)
    else:
        shade = heat_url(heat, frame, palette_of(session.view))
    squares = " squares" if frame.enlarged else ""
    pictures = "".join(
        f'<img class="{kind}{squares if kind == "base" else " squares"}" alt="{alt}" src="{url}" draggable="false">'
        for kind, alt, url in (
            ("base", escape(sample.name), image_url(sample.image)),
            ("shade", session.view, shade),
            ("outline", "outline of the mask", outline_url(mask, frame)),
        )
    )
    return (
        f'<div class="picture" data-width="{frame.width}" data-height="{frame.height}" '
        f'data-answer="{session.answers}" '
        f'style="width:{frame.shown_width}px;aspect-ratio:{frame.shown_width}/{frame.shown_height}">'
        f"{pictures}{_dots(session, frame)}</div>"
    )


def palette_of(view: str) -> Palette:
    """Return the colours of a view."""
    return "magma" if PALETTES.get(view) == "magma" else "viridis"


def legend(session: Session) -> str:
    """Return what the colours mean."""
    if session.view not in MEANING:
        return (
            '<div class="legend"><span class="swatch"></span>mask'
            '<span class="key inside">+</span>click inside<span class="key outside">−</span>click outside</div>'
        )
    low, middle, high = MEANING[session.view]
    if session.view == "agreement" and session.has_image:
        middle = f"share of {'raters' if session.sample.n_raters else 'samples'} that mark the pixel"
    bar = palette_css(palette_of(session.view))
    return (
        f'<div class="legend"><span>{low}</span><span class="bar" style="background:{bar}"></span>'
        f"<span>{high}</span><span class='what'>{middle}</span></div>"
    )


def cards(session: Session) -> str:
    """Return the proposals as small pictures to choose from."""
    if not session.has_image:
        return ""
    image = session.sample.image
    proposals = session.proposals()
    drawn = "".join(
        f'<button class="card" data-number="{i}" data-revision="{session.revision}" '
        f'title="Follow this outline"><img alt="proposal {i + 1}" src="{card_url(image, each.mask, CARD_PX)}">'
        f"<span>{each.share:.0%} of samples</span></button>"
        for i, each in enumerate(proposals)
    )
    hint = _hint([each.mask for each in proposals])
    return f'<h2>Whose style to follow</h2><div class="cards">{drawn}</div>{hint}'


def _hint(masks: list[NDArray[np.bool_]]) -> str:
    """Say so where there is nothing to choose from."""
    if len(masks) == 1:
        return "<p>This network proposes one outline: click instead.</p>"
    if min(dice_iou(masks[0], other)[0] for other in masks[1:]) > ALIKE:
        return (
            "<p>The outlines hardly differ, as this network was trained to follow clicks: click instead.</p>"
        )
    return ""


def raters(session: Session) -> str:
    """Return how well the mask fits each rater's, and the best one; empty where nobody outlined the image."""
    overlaps = session.overlaps()
    if not overlaps:
        return "<h2>Raters</h2><p>No rater outlined this image.</p>"
    best = session.best_rater()
    rows = "".join(
        f"<tr{' class=best' if best and each.name == best.name else ''}><td>{escape(each.name)}</td>"
        f"<td>{each.dice:.3f}</td><td>{each.iou:.3f}</td></tr>"
        for each in overlaps
    )
    following = (
        f"Following: <b>{escape(best.name)}</b> | Dice {best.dice:.3f} · IoU {best.iou:.3f}"
        if best
        else "Following: -"
    )
    return (
        f'<h2>Raters</h2><p class="following">{following} | Clicks: {len(session.clicks)}</p>'
        f"<table><thead><tr><th>rater</th><th>Dice</th><th>IoU</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def facts(session: Session, model_name: str) -> str:
    """Return size, times and network."""
    rows = [("network", escape(model_name))]
    if session.has_image:
        height, width = session.sample.image.shape[:2]
        answer = session.timing.answer
        rows = [
            ("image", f"{escape(session.sample.name)}, {width} × {height} px"),
            ("clicks", str(len(session.clicks))),
            ("encoding", f"{1000 * session.timing.encoding:.0f} ms, once"),
            ("last answer", "–" if answer is None else f"{1000 * answer:.0f} ms"),
            *rows,
        ]
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="facts">{told}</dl>'


def message(text: str, *, bad: bool = False) -> str:
    """Return a line for the visitor."""
    return f'<div class="message{" bad" if bad else ""}" role="status">{escape(text)}</div>'


def _dots(session: Session, frame: Frame) -> str:
    """Return the clicks as signs over the image."""
    drawn = [_dot(click, frame) for click in session.clicks]
    if session.suggestion is not None:
        drawn.append(_dot(session.suggestion, frame, kind="suggested"))
    return f'<svg viewBox="0 0 {frame.shown_width} {frame.shown_height}">{"".join(drawn)}</svg>'


def _dot(click: Click, frame: Frame, kind: str = "click") -> str:
    x = (click.x + 0.5) * frame.shown_width / frame.width
    y = (click.y + 0.5) * frame.shown_height / frame.height
    half = DOT_PX / 2
    upright = f"M{x:.1f} {y - half:.1f}v{2 * half}" if click.label else ""
    return (
        f'<g class="{kind} {"inside" if click.label else "outside"}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT_PX}"/>'
        f'<path d="M{x - half:.1f} {y:.1f}h{2 * half}{upright}"/></g>'
    )
