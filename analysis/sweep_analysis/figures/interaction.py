"""A figure as one self-contained HTML page: what a mark stands for appears where it is pointed at, or reached by Tab.

Owns the page around `inline_svg`: its colours by day and night, the box with the values, a few lines of script. The
picture is the very matplotlib figure that goes into a paper, so both always show the same. Loads nothing from outside.
"""

import os
import re
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from sweep_analysis.figures.style import (
    FAINT,
    FORECAST,
    GRID,
    INK,
    MUTED,
    OBSERVED,
    PAPER_WHITE,
    ROLES,
)
from sweep_analysis.figures.svg import inline_svg

_NIGHT = {
    INK: "#ecebe6",
    MUTED: "#a5a49c",
    FAINT: "#55544f",
    GRID: "#2c2c2a",
    PAPER_WHITE: "#181817",
    FORECAST: "#7fb2ea",
    OBSERVED: "#f0a071",
}
_TIP = re.compile(r'<g class="tip"([^>]*)><title>(.*?)</title>', re.DOTALL)

_STYLE = """
:root { color-scheme: light dark; %(day)s }
@media (prefers-color-scheme: dark) { :root { %(night)s } }
body { margin: 0 auto; padding: 1rem; max-width: %(width)dpx; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.05rem; margin: 0 0 .6rem; }
figure { margin: 0; position: relative; }
svg { width: 100%%; height: auto; display: block; overflow: visible; }
svg text { font-family: system-ui, sans-serif; }
.tip { cursor: crosshair; outline: none; }
:is(.tip:hover, .tip:focus) :is(use, path) { stroke: var(--ink) !important; stroke-width: 2 !important; }
#value { position: absolute; pointer-events: none; max-width: 20rem; padding: .3rem .55rem; border-radius: 3px;
  background: var(--ink); color: var(--paper); font-size: .85rem; }
#value[hidden] { display: none; }
p { color: var(--muted); font-size: .85rem; }
"""

_SCRIPT = """
(() => {
  const box = document.getElementById('value'), frame = box.parentElement;
  const show = mark => {
    const m = mark.getBoundingClientRect(), f = frame.getBoundingClientRect();
    box.textContent = mark.getAttribute('aria-label');
    box.hidden = false;
    const left = Math.min(m.right - f.left + 8, f.width - box.offsetWidth);
    box.style.left = Math.max(0, left) + 'px';
    box.style.top = (m.top - f.top - box.offsetHeight - 6) + 'px';
  };
  const hide = () => { box.hidden = true; };
  for (const mark of document.querySelectorAll('.tip')) {
    mark.addEventListener('pointerenter', () => show(mark));
    mark.addEventListener('pointerleave', hide);
    mark.addEventListener('focus', () => show(mark));
    mark.addEventListener('blur', hide);
  }
  document.addEventListener('keydown', e => { if (e.key === 'Escape') hide(); });
})();
"""


def interactive(figure: Figure, title: str, *, path: str | os.PathLike[str] | None = None) -> str:
    """The page as text; written to `path` too when one is given.

    figure: any of this package's figures; marks that carry a sentence show it. title: what the figure shows, in words
    that also stand for it where it cannot be seen. Raises ValueError for an empty title.
    """
    if not title.strip():
        raise ValueError("an interactive figure needs a title that says what it shows")
    svg = inline_svg(figure, "figure", title)
    # the box replaces the browser's own slow tooltip; what it says stays readable by assistive programs
    svg, marks = _TIP.subn(r'<g class="tip" tabindex="0" role="img" aria-label="\2"\1>', svg)
    if marks:  # an image has no parts to point at; a group of named marks has
        svg = svg.replace('role="img"', 'role="group"', 1)
    day = " ".join(f"--{role}: {colour};" for colour, role in ROLES.items())
    night = " ".join(f"--{ROLES[colour]}: {other};" for colour, other in _NIGHT.items())
    style = _STYLE % {"day": day, "night": night, "width": round(max(560.0, float(figure.get_figwidth()) * 72 * 1.6))}
    note = f"<p>{marks} marks; point at one, or reach it with Tab, for its values.</p>" if marks else ""
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body><h1>{escape(title)}</h1>"
        f'<figure>{svg}<div id="value" role="status" hidden></div></figure>{note}'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page
