"""Plots with axes: distributions, two measures side by side, round trips as dots, lines over the number of clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.svg import BAR, GAP, HEAD, WIDTH, Bar, bar, colour, even_ticks, frame, log_ticks, short, text

PANEL = 450
_LEFT, _BOTTOM, _KEYS = 46, 30, 142


def curves(series: Sequence[tuple[str, Sequence[float]]], *, title: str, unit: str) -> str:
    """Cumulative distributions on a logarithmic axis: how much of everything was at most so slow."""
    values = [v for _, line in series for v in line if v > 0]
    if not values:
        return ""
    low, high = math.log10(min(values)), math.log10(max(values))
    span = max(high - low, 0.3)
    height, room = 230, PANEL - _LEFT - _KEYS

    def x_of(value: float) -> float:
        return _LEFT + (math.log10(max(value, 10**low)) - low) / span * room

    def y_of(share: float) -> float:
        return HEAD + (1 - share) * (height - _BOTTOM - HEAD)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_of(share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + room}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(_LEFT - 6, y + 4, f"{share:.0%}", "end", "tick"))
    for tick in log_ticks(10**low, 10 ** (low + span), 6):
        x = x_of(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD}" y2="{height - _BOTTOM}"/>')
        parts.append(text(x, height - _BOTTOM + 16, f"{tick:g}", "middle", "tick"))
    parts.append(text(_LEFT + room, height - 1, unit, "end", "tick"))
    seen: set[str] = set()
    for row, (name, line) in enumerate(series):
        points = sorted(v for v in line if v > 0)
        if not points:
            continue
        kind = colour(name) + (" again" if colour(name) in seen else "")
        seen.add(colour(name))
        path = " ".join(f"{x_of(v):.1f},{y_of((i + 0.5) / len(points)):.1f}" for i, v in enumerate(points))
        parts.append(f'<polyline class="curve {kind}" points="{path}"><title>{escape(name)}</title></polyline>')
        parts += _key(_LEFT + room + 12, HEAD + 10.0 + 16 * row, name)
    return frame(title, height, parts, PANEL)


def _key(x: float, y: float, name: str) -> list[str]:
    return [
        f'<rect class="{colour(name)}" x="{x:.1f}" y="{y - 9:.1f}" width="9" height="9" rx="2"/>',
        text(x + 14, y, name, "start", "small"),
    ]


@dataclass(frozen=True, slots=True)
class Pair:
    """A target's row: two measures, either of which may be missing."""

    series: str
    left: Bar | None
    right: Bar | None


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Rows that belong together."""

    label: str
    rows: Sequence[Pair]


def pairs(groups: Sequence[PairGroup], *, title: str, left: str, right: str) -> str:
    """Two measures side by side, each on a scale of its own that begins at zero, a row for each target."""
    label, gutter, value = 240, 26, 78
    room = (WIDTH - label - gutter) / 2 - value
    starts = (label, label + room + value + gutter)
    tops = [
        max(
            (
                v
                for g in groups
                for r in g.rows
                if (b := (r.left, r.right)[side]) is not None
                for v in (b.value, *b.samples)
            ),
            default=1.0,
        )
        or 1.0
        for side in (0, 1)
    ]
    parts = [text(start, HEAD + 8, name, "start", "head") for start, name in zip(starts, (left, right), strict=True)]
    y = HEAD + 18.0
    for group in groups:
        parts.append(text(0, y + BAR - 5, group.label, "start", "label"))
        for row in group.rows:
            parts.append(text(label - 12, y + BAR - 5, row.series, "end", "small"))
            for side, one in enumerate((row.left, row.right)):
                if one is not None:
                    parts += bar(one, starts[side], y, room, tops[side], group.label)
            y += BAR
        y += GAP
    return frame(title, y - GAP + HEAD, parts)


@dataclass(frozen=True, slots=True)
class DotRow:
    """A row of dots: a value for each series, and what was promised."""

    label: str
    values: Sequence[tuple[str, float]]
    goal: float | None = None


def dots(rows: Sequence[DotRow], *, title: str, unit: str) -> str:
    """A row for each label with a dot for each series, so that distances are seen: round trips, for one."""
    label, step = 330, 28
    top = max((value for row in rows for _, value in row.values), default=1.0) or 1.0
    room = WIDTH - label - 40
    bottom = HEAD + 18 + len(rows) * step
    parts = []
    for tick in even_ticks(top, 8):
        x = label + tick / top * room
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD + 12}" y2="{bottom}"/>')
        parts.append(text(x, HEAD + 6, f"{tick:g}", "middle", "tick"))
    parts.append(text(label - 14, HEAD + 6, unit, "end", "tick"))
    for number, row in enumerate(rows):
        y = HEAD + 30 + number * step
        parts.append(text(label - 14, y + 4, row.label, "end", "label"))
        parts += _dots(row, label, y, room, top)
    return frame(title, bottom + 4, parts)


def _dots(row: DotRow, label: float, y: float, room: float, top: float) -> list[str]:
    places = [label + value / top * room for _, value in row.values]
    parts = []
    if places:
        parts.append(f'<line class="span" x1="{min(places):.1f}" x2="{max(places):.1f}" y1="{y}" y2="{y}"/>')
    # Each series has a lane of its own, so that equal values do not hide each other.
    lanes = [y + (number - (len(places) - 1) / 2) * 5 for number in range(len(places))]
    if row.goal is not None:
        x = label + row.goal / top * room
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 12}" y2="{y + 12}"/>')
    for (series, value), x, lane in zip(row.values, places, lanes, strict=True):
        tip = escape(f"{row.label}, {series}: {value:.1f}")
        parts.append(
            f'<circle class="ring {colour(series)}" cx="{x:.1f}" cy="{lane}" r="5.5"><title>{tip}</title></circle>'
        )
    return parts


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, title: str, x_unit: str, unit: str) -> str:
    """A line for each series over a logarithmic axis, from zero upwards."""
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    low, high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    top, span = max(y for _, y in points) or 1.0, max(high - low, 0.3)
    height, room = 250, PANEL - _LEFT - _KEYS

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (math.log10(x) - low) / span * room,
            HEAD + 12 + (1 - y / top) * (height - _BOTTOM - HEAD - 12),
        )

    parts = [text(0, HEAD + 4, unit, "start", "tick")]
    for tick in even_ticks(top):
        y = place(10**low, tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + room}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(_LEFT - 6, y + 4, short(tick), "end", "tick"))
    parts += [
        text(place(tick, 0)[0], height - _BOTTOM + 16, f"{tick:g}", "middle", "tick")
        for tick in sorted({x for x, _ in points})
    ]
    parts.append(text(_LEFT + room, height - 1, x_unit, "end", "tick"))
    for row, (name, line) in enumerate(series):
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="curve {colour(name)}" points="{path}"/>')
        for (x, y), (at, value) in zip(placed, line, strict=True):
            tip = escape(f"{name}, {at:g} {x_unit}: {value:,.0f} {unit}")
            parts.append(
                f'<circle class="ring {colour(name)}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{tip}</title></circle>'
            )
        parts += _key(_LEFT + room + 12, HEAD + 22.0 + 16 * row, name)
    return frame(title, height, parts, PANEL)


def bullet(value: float, limit: float, *, is_met: bool) -> str:
    """A value beside its goal, both in parts of the goal: the mark is the goal, the scale ends at twice of it."""
    width, height = 120, 14
    if limit <= 0:
        return ""
    reach = min(value / limit, 2.0) / 2 * width
    kind = "met" if is_met else "missed"
    return (
        f'<svg class="bullet" viewBox="0 0 {width} {height}" role="img" aria-label="{kind}" xmlns="http://www.w3.org/2000/svg">'
        f'<rect class="track" x="0" y="4" width="{width}" height="6" rx="3"/>'
        f'<rect class="{kind}" x="0" y="4" width="{max(2.0, reach):.1f}" height="6" rx="3"/>'
        f'<line class="goal" x1="{width / 2}" x2="{width / 2}" y1="0" y2="{height}"/></svg>'
    )
