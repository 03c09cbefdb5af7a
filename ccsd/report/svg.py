"""Figures as inline SVG that follow the page: its font, its colours, light or dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

COLOURS = {
    "#010203": "currentColor",
    "#040506": "var(--grid)",
    "#070801": "var(--wt)",
    "#070802": "var(--tc)",
    "#070803": "var(--et)",
    "#070804": "var(--fourth)",
    "#070805": "var(--accent)",
}
"""Colours that figures are drawn in -> what the page's style sheet knows them as."""
TEXT, GRID, WT, TC, ET, FOURTH, ACCENT = COLOURS
REGION_COLOURS = {"WT": WT, "TC": TC, "ET": ET}
MARKERS = {"WT": "o", "TC": "s", "ET": "^"}
"""Beside the colour, so that regions can be told apart without seeing colours."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of experiments and cases are no formulas
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


@contextmanager
def figure(width: float, height: float, **subplots: Any) -> Iterator[tuple[Figure, Any]]:
    """Yield an empty figure (inches) and its axes, in the style of the page."""
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing, drawing.subplots(**subplots)


def inline(drawing: Figure, name: str, description: str) -> Markup:
    """Return a figure as SVG markup; `description` is read out to those who cannot see it.

    `name` makes the ids inside the figure unlike those of every other figure of the page.
    """
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        drawing.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for drawn, wanted in COLOURS.items():
        svg = svg.replace(drawn, wanted)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    used = set(re.findall(r"#([\w.-]+)", svg))  # names like axes_1 repeat in every figure and nobody asks for them
    svg = re.sub(r' id="([\w.-]+)"', lambda found: found.group(0) if found.group(1) in used else "", svg)
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    limit = f"{float(width.group(1)) * 4 / 3:.0f}px" if width else "100%"
    label = escape(description, quote=True)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}" style="max-width:{limit}"', 1))  # noqa: S704 - drawn here, texts escaped by matplotlib
