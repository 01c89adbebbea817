"""Small charts as SVG text: no library, no font, nothing that a page would have to load.

Colours are Okabe and Ito's, which colour-blind readers can distinguish; marks differ in shape as well, so that a grey
print shows the same. Every chart has a title and a description for screen readers.

Tested in ``tests/server/pages/test_report.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from unicodedata import east_asian_width

from tasks.machine.language import number

WIDTH = 480
COLOURS = {
    "federated": "#0072b2",
    "local": "#d55e00",
    "pooled": "#666666",
    "shuffled": "#aa4499",
    "prevalence": "#999999",
}
MARKS = {"federated": "circle", "local": "square", "pooled": "diamond", "shuffled": "cross", "prevalence": "bar"}
HOSPITALS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#332288", "#882255", "#117733")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, min(self.low, self.high)), max(self.low, self.high))
        return round(self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start), 2)


@dataclass(frozen=True)
class Chart:
    """Pieces of SVG on a canvas.

    Attributes:
        title, description: for screen readers: what it is, and what it shows.
        height: in the units of ``WIDTH``.
    """

    title: str
    description: str
    height: float
    pieces: list[str] = field(default_factory=list)

    def add(self, *pieces: str) -> None:
        self.pieces.extend(pieces)

    def svg(self) -> str:
        """The whole chart as one SVG element, for a page or a file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12.5" fill="#1c2733"><title>{escape(self.title)}</title>'
            f"<desc>{escape(self.description)}</desc>{''.join(self.pieces)}</svg>"
        )


def text(x: float, y: float, words: str, anchor: str = "start", **style: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{attributes}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def path(points: Sequence[tuple[float, float]], colour: str, width: float = 1.6, dash: str = "") -> str:
    through = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def area(points: Sequence[tuple[float, float]], colour: str, opacity: float = 0.15) -> str:
    through = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polygon points="{through}" fill="{colour}" opacity="{opacity:g}"/>'


def mark(kind: str, x: float, y: float, colour: str, size: float = 4.5) -> str:
    """A point in one of several shapes."""
    if kind == "circle":
        return f'<circle cx="{x:g}" cy="{y:g}" r="{size:g}" fill="{colour}"/>'
    if kind == "square":
        return f'<rect x="{x - size:g}" y="{y - size:g}" width="{2 * size:g}" height="{2 * size:g}" fill="{colour}"/>'
    if kind == "diamond":
        r = size * 1.3
        return f'<path d="M{x:g} {y - r:g}l{r:g} {r:g}l{-r:g} {r:g}l{-r:g} {-r:g}z" fill="{colour}"/>'
    if kind == "cross":
        r, stroke = size, f'stroke="{colour}" stroke-width="2"'
        return f'<path d="M{x - r:g} {y - r:g}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}" {stroke}/>'
    return line(x, y - size, x, y + size, colour, width=2.5)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values that cover a range."""
    raw = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step)
    values = [round((first + n) * step, 10) for n in range(about * 4)]
    return [v for v in values if low - 1e-9 <= v <= high + 1e-9]


def axis_x(chart: Chart, scale: Scale, y: float, label: str, top: float, values: Sequence[float] | None = None) -> None:
    """Grid lines from ``top`` down to the axis, numbers below it."""
    for value in ticks(scale.low, scale.high) if values is None else values:
        chart.add(line(scale(value), top, scale(value), y, "#e3e8ee"))
        chart.add(text(scale(value), y + 16, number(value), "middle", fill="#5b6773"))
    chart.add(line(scale.start, y, scale.end, y, "#8a97a5"))
    chart.add(text((scale.start + scale.end) / 2, y + 34, label, "middle", fill="#3c4a58"))


def axis_y(chart: Chart, scale: Scale, x: float, label: str, right: float) -> None:
    """Grid lines from the axis to the right, numbers left of it, the label above."""
    for value in ticks(min(scale.low, scale.high), max(scale.low, scale.high)):
        chart.add(line(x, scale(value), right, scale(value), "#e3e8ee"))
        chart.add(text(x - 7, scale(value) + 4, number(value), "end", fill="#5b6773"))
    chart.add(text(x - 28, scale.end - 12, label, "start", fill="#3c4a58"))


def legend(chart: Chart, y: float, entries: Sequence[tuple[str, Callable[[float, float], str]]]) -> float:
    """Names beside their marks, in as many rows as they need. Returns their height."""
    x, row = 10.0, 0
    for name, draw in entries:
        room = 34 + sum(13.0 if east_asian_width(letter) in "WF" else 7.0 for letter in name)
        if x + room > WIDTH and x > 10:
            x, row = 10.0, row + 1
        chart.add(draw(x + 9, y + row * 20), text(x + 24, y + row * 20 + 4, name))
        x += room
    return (row + 1) * 20.0


def mixed(one: str, other: str, share: float) -> str:
    """A colour between two, ``#rrggbb``."""
    parts = zip(*(bytes.fromhex(colour[1:]) for colour in (one, other)), strict=True)
    return "#" + bytes(round(a + (b - a) * share) for a, b in parts).hex()


def ink_on(fill: str) -> str:
    """Black or white, whichever is easier to read; one of them always has a contrast of 4.5 (WCAG 2.1, 1.4.3)."""
    red, green, blue = (channel / 255 for channel in bytes.fromhex(fill[1:]))
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "#ffffff"


def dash_of(number: int) -> str:
    """A line's dashes, so that lines of one colour differ."""
    return _DASHES[number // len(HOSPITALS) % len(_DASHES)]


def colour_of(number: int) -> str:
    """A hospital's colour."""
    return HOSPITALS[number % len(HOSPITALS)]


def numbered(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each name with its colour and dashes."""
    return ((name, colour_of(n), dash_of(n)) for n, name in enumerate(names))
