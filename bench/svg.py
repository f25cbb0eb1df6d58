"""Marks for plots as inline SVG: text, frames, scales, and horizontal bars with a dot for each round.

Colours are CSS classes of the page, so that one file serves light and dark screens. Knows numbers and names; knows nothing of
benchmarks. ``charts`` has the plots that are more than bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 920
LABEL = 250
VALUE = 92
BAR = 18
GAP = 16
HEAD = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: *series* chooses the colour, *samples* become dots, *text* stands at its end."""

    series: str
    value: float
    text: str
    samples: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Bars that belong together, under one label; *mark* is a value that was promised."""

    label: str
    bars: Sequence[Bar]
    mark: float | None = None


def colour(series: str) -> str:
    """The CSS class of a series."""
    word = series.lower()
    if word.startswith("us, cached, scram"):
        return "short"
    if word.startswith("us, cached"):
        return "cached"
    first = word.split(",")[0].strip()
    known = {"direct": "direct", "us": "us", "pgbouncer": "pgbouncer", "pgpool-ii": "pgpool", "floor": "floor"}
    return known.get(first, "other")


def bars(groups: Sequence[Group], *, title: str, gap: float = GAP) -> str:
    """Groups of horizontal bars on one scale that begins at zero."""
    every = [b.value for g in groups for b in g.bars] + [s for g in groups for b in g.bars for s in b.samples]
    top = max([*every, *(g.mark for g in groups if g.mark is not None)], default=1.0) or 1.0
    room = WIDTH - LABEL - VALUE
    parts: list[str] = []
    y = float(HEAD)
    for group in groups:
        height = len(group.bars) * BAR
        parts.append(text(LABEL - 14, y + height / 2 + 4, group.label, "end", "label"))
        for index, one in enumerate(group.bars):
            parts += bar(one, LABEL, y + index * BAR, room, top, group.label)
        if group.mark is not None:
            x = LABEL + group.mark / top * room
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + height + 2}"/>')
        y += height + gap
    return frame(title, y - gap + HEAD, parts)


def bar(one: Bar, left: float, y: float, room: float, top: float, label: str) -> list[str]:
    """A bar from *left*, *room* wide at the value *top*, with its dots and its text."""
    width = max(1.5, one.value / top * room)
    tip = escape(f"{label}, {one.series}: {one.text}")
    size = f'x="{left}" y="{y + 2:.1f}" width="{width:.1f}" height="{BAR - 5}" rx="2.5"'
    parts = [f'<rect class="{colour(one.series)}" {size}><title>{tip}</title></rect>']
    furthest = width
    for sample in one.samples if len(one.samples) > 1 else ():
        x = left + sample / top * room
        furthest = max(furthest, x - left + 3)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y + BAR / 2 - 0.5:.1f}" r="2"/>')
    parts.append(text(left + furthest + 7, y + BAR - 5, one.text, "start", "value"))
    return parts


def legend(names: Sequence[str]) -> str:
    """The colours of the targets, as HTML."""
    return "".join(f'<span class="key"><i class="{colour(name)}"></i>{escape(name)}</span>' for name in names)


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers between *low* and *high* for a logarithmic axis, at most *most*."""
    found = [
        factor * 10.0**exponent
        for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    inside = [tick for tick in found if low <= tick <= high]
    if len(inside) > most:
        decades = [tick for tick in inside if f"{tick:e}".startswith("1.0")]
        inside = decades if len(decades) >= 2 else inside[:: math.ceil(len(inside) / most)]
    return inside


def even_ticks(top: float, count: int = 4) -> list[float]:
    """Round numbers from zero to about *top* for a linear axis."""
    rough = top / count
    size: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    return [step * number for number in range(int(top / step) + 1)]


def short(value: float) -> str:
    """A number for an axis: 20k rather than 20,000."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def text(x: float, y: float, words: str, anchor: str, kind: str) -> str:
    """Words at a place; *anchor* as in SVG."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def frame(title: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    """The picture around *parts*."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
