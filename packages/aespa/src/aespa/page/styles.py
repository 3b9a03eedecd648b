"""How the page looks, and the little that the browser does by itself."""

from __future__ import annotations

# Where in the picture a click lies is known here alone. A pixel is what lies under the pointer: rounded down.
CANVAS_JS = """
const tell = (event, other) => {
  const picture = element.querySelector('.picture');
  if (!picture || !picture.contains(event.target)) return;
  event.preventDefault();
  const box = picture.getBoundingClientRect();
  const place = (at, from, size, pixels) =>
    Math.min(pixels - 1, Math.max(0, Math.floor((at - from) / size * pixels)));
  const x = place(event.clientX, box.left, box.width, Number(picture.dataset.width));
  const y = place(event.clientY, box.top, box.height, Number(picture.dataset.height));
  trigger('select', {x, y, other});
};
element.addEventListener('click', (event) => tell(event, false));
element.addEventListener('contextmenu', (event) => tell(event, true));
"""

CARDS_JS = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('.card');
  if (!card) return;
  trigger('select', {number: Number(card.dataset.number), revision: Number(card.dataset.revision)});
});
"""

OPACITY_JS = "(opacity) => { document.documentElement.style.setProperty('--shade', opacity); }"

SAVE_JS = """
(file) => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = file.url;
  link.download = file.name;
  link.click();
}
"""

CSS = """
:root { --shade: 0.4; --mask: rgb(230 130 0); --ink: #1d2733; --quiet: #5c6773; --line: #dde2e8; --pale: #fff4df; }
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; padding: 14px 20px !important;
  color: var(--ink); }
.gradio-container .app { padding: 0 !important; }
.gradio-container .html-container { padding: 0; }
footer { display: none !important; }
#header h1 { font-size: 20px; font-weight: 650; margin: 0; }
#header p { margin: 2px 0 0; color: var(--quiet); font-size: 14px; }
#header .note { display: inline-block; margin-top: 6px; padding: 3px 10px; border-radius: 6px;
  background: var(--pale); border: 1px solid #f0d49a; color: #6b4a00; font-size: 13px; }
#columns { gap: 24px; flex-wrap: nowrap; }
#controls { flex: 0 0 236px; gap: 12px; }
#controls .block { font-size: 13px; }
#view .wrap, #label .wrap { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
#view label, #label label { padding: 5px 8px; font-size: 13px; }
#middle { flex: 0 0 640px; gap: 6px; align-items: center; }
#right { flex: 0 0 300px; gap: 16px; }
#right h2 { font-size: 14px; font-weight: 650; margin: 0 0 6px; }
.tight { gap: 6px; }
#message { min-height: 28px; width: 100%; }
.message { font-size: 13px; line-height: 18px; padding: 4px 10px; border-radius: 6px; color: var(--quiet);
  text-align: center; }
.message:empty { visibility: hidden; }
.message.bad { background: #fdecea; border: 1px solid #f2b8b1; color: #8c1d12; }
#canvas .empty { width: 640px; height: 400px; display: grid; place-items: center; color: var(--quiet);
  border: 1px dashed var(--line); }
#canvas .picture { position: relative; cursor: crosshair; margin: 0 auto; max-width: 100%; overflow: hidden;
  background: #000; user-select: none; } /* no round corners: the pixels there could not be clicked */
#canvas img, #canvas svg { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none;
  pointer-events: none; border-radius: 0; }
#canvas img.squares { image-rendering: pixelated; }
#canvas img.shade { opacity: var(--shade); }
#canvas circle { stroke: white; stroke-width: 1.5; }
#canvas path { stroke: white; stroke-width: 2; fill: none; }
#canvas .inside circle { fill: #0072b2; }
#canvas .outside circle { fill: #111; }
#canvas .suggested circle { fill-opacity: 0.35; stroke-dasharray: 3 2; }
.legend { display: flex; gap: 8px; align-items: center; justify-content: center; font-size: 12px;
  color: var(--quiet); min-height: 22px; }
#legend { width: 100%; }
.legend .swatch { width: 14px; height: 14px; border-radius: 3px; background: var(--mask); }
.legend .bar { width: 160px; height: 10px; border-radius: 5px; }
.legend .what { margin-left: 8px; }
.legend .key { width: 16px; height: 16px; border-radius: 50%; color: white; font-weight: 700; line-height: 15px;
  text-align: center; margin-left: 10px; }
.legend .key.inside { background: #0072b2; }
.legend .key.outside { background: #111; }
#cards .cards { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
#cards .card { display: block; padding: 4px; border: 1px solid var(--line); border-radius: 8px; background: white;
  margin: 0; cursor: pointer; text-align: center; }
#cards .card span { font-size: 12px; font-weight: 400; color: var(--quiet); }
#cards .card:hover, #cards .card:focus-visible { border-color: var(--mask); box-shadow: 0 0 0 1px var(--mask); }
#cards .card img { display: block; width: 100%; height: 128px; object-fit: contain;
  margin: 0 0 2px !important;
  image-rendering: pixelated; border-radius: 4px; background: #000; }
#cards p, #raters p { font-size: 12px; color: var(--quiet); margin: 4px 0; }
#raters .following { font-size: 12px; white-space: nowrap; color: var(--ink); }
#raters table { width: 100%; font-size: 13px; border: 0; border-collapse: collapse; margin: 0;
  font-variant-numeric: tabular-nums; }
#raters th { text-align: left; font-weight: 500; color: var(--quiet); }
#raters tr { border: 0; background: none; }
#raters th, #raters td { border: 0; border-bottom: 1px solid var(--line); padding: 3px 6px; background: none; }
#raters tr.best td { font-weight: 650; background: var(--pale); }
#facts .facts { display: grid; grid-template-columns: auto 1fr; gap: 3px 12px; font-size: 12px; margin: 0; }
#facts dt { color: var(--quiet); }
#facts dd { margin: 0; overflow-wrap: anywhere; }
"""
