"""Plots as inline SVG: horizontal bars with a dot for each round, and distributions as curves.

Colours are CSS variables of the page (``--direct``, ``--us`` …), so that one file serves light and dark screens. Knows numbers and
names; knows nothing of benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 800
LABEL = 260
VALUE = 96
BAR = 16
GAP = 14
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
    word = series.split(",")[0].strip().lower()
    return {"direct": "direct", "us": "us", "pgbouncer": "pgbouncer"}.get(word, "other")


def bars(groups: Sequence[Group], *, title: str) -> str:
    """Groups of horizontal bars on one scale that begins at zero."""
    every = [b.value for g in groups for b in g.bars] + [s for g in groups for b in g.bars for s in b.samples]
    top = max([*every, *(g.mark for g in groups if g.mark is not None)], default=1.0) or 1.0
    room = WIDTH - LABEL - VALUE
    parts: list[str] = []
    y = HEAD
    for group in groups:
        height = len(group.bars) * BAR
        parts.append(_text(LABEL - 10, y + height / 2 + 4, group.label, "end", "label"))
        for index, bar in enumerate(group.bars):
            at = y + index * BAR
            width = max(1.0, bar.value / top * room)
            tip = escape(f"{group.label}, {bar.series}: {bar.text}")
            parts.append(
                f'<rect class="{colour(bar.series)}" x="{LABEL}" y="{at + 1}" width="{width:.1f}" height="{BAR - 3}" rx="2">'
                f"<title>{tip}</title></rect>"
            )
            furthest = width
            for sample in bar.samples:
                x = LABEL + sample / top * room
                furthest = max(furthest, x - LABEL + 3)
                parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{at + BAR / 2 - 0.5}" r="2"/>')
            parts.append(_text(LABEL + furthest + 6, at + BAR - 4, bar.text, "start", "value"))
        if group.mark is not None:
            x = LABEL + group.mark / top * room
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 2}" y2="{y + height}"/>')
        y += height + GAP
    return _frame(title, y - GAP + HEAD, parts)


def curves(series: Sequence[tuple[str, Sequence[float]]], *, title: str, unit: str) -> str:
    """Cumulative distributions on a logarithmic axis: how much of everything was at most so slow."""
    values = [v for _, line in series for v in line if v > 0]
    if not values:
        return ""
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 0.3)
    height, left, bottom = 220, 46, 30
    room = WIDTH - left - 110

    def x_of(value: float) -> float:
        return left + (math.log10(max(value, 10**low)) - low) / span * room

    def y_of(share: float) -> float:
        return HEAD + (1 - share) * (height - bottom - HEAD)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_of(share)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + room}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{share:.0%}", "end", "tick"))
    for tick in _ticks(10**low, 10 ** (low + span)):
        x = x_of(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD}" y2="{height - bottom}"/>')
        parts.append(_text(x, height - bottom + 16, f"{tick:g} {unit}", "middle", "tick"))
    row = HEAD + 10.0
    for name, line in series:
        points = sorted(v for v in line if v > 0)
        if not points:
            continue
        path = " ".join(f"{x_of(v):.1f},{y_of((i + 0.5) / len(points)):.1f}" for i, v in enumerate(points))
        parts.append(f'<polyline class="curve {colour(name)}" points="{path}"><title>{escape(name)}</title></polyline>')
        parts.append(
            f'<rect class="{colour(name)}" x="{left + room + 12}" y="{row - 9:.1f}" width="9" height="9" rx="2"/>'
        )
        parts.append(_text(left + room + 26, row, name, "start", "value"))
        row += 16
    return _frame(title, height, parts)


def legend(names: Sequence[str]) -> str:
    """The colours of the targets, as HTML."""
    return "".join(f'<span class="key"><i class="{colour(name)}"></i>{escape(name)}</span>' for name in names)


def _ticks(low: float, high: float) -> list[float]:
    found = [
        factor * 10.0**exponent
        for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    inside = [tick for tick in found if low <= tick <= high]
    return inside if len(inside) <= 8 else inside[:: math.ceil(len(inside) / 8)]


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _frame(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
