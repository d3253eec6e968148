"""Small charts as inline SVG: horizontal places are percentages of the width, so that they fit a
phone, a screen and paper alike; colours are the page's CSS classes, and texts are HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from sanderling_trainer.report.formats import day, is_number, number, percent

MARGIN = 4.0
"""Per cent of the width that is free on both sides."""

HEIGHT = 170.0
"""Pixels of a chart over time."""

TOP = 12.0
BOTTOM = 24.0
FEW = 8
"""Points of a line, up to which their dots are large."""


class Scale(NamedTuple):
    """A linear axis."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value stands, in per cent of the width."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(MARGIN + (100.0 - 2.0 * MARGIN) * min(1.0, max(0.0, share)), 2)


def scale_of(intervals: Iterable[Mapping[str, Any] | None], *, has_zero: bool = False) -> Scale:
    """Return an axis that holds all these intervals, with round ends."""
    ends = [
        float(row[name])
        for row in intervals
        if row is not None
        for name in ("value", "low", "high")
        if is_number(row[name])
    ]
    ends += [0.0] if has_zero or not ends else []
    low, high = min(ends), max(ends)
    step = _round_step((high - low) or abs(high) or 1.0)
    return Scale(float(np.floor(low / step) * step), float(np.ceil(high / step) * step))


def _round_step(width: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which about five make the width."""
    power = 10.0 ** np.floor(np.log10(width / 5.0))
    return float(next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= width / 5.0))


def interval(scale: Scale, row: Mapping[str, Any] | None, kind: str = "") -> Markup:
    """Return a dot with its interval, for a cell beside the numbers that say the same.

    kind: a CSS class, `ours` for what stands out.
    """
    if row is None or not is_number(row["value"]):
        return Markup("")
    parts = []
    if scale.low < 0.0 < scale.high:
        zero = scale.place(0.0)
        parts.append(f'<line class="zero" x1="{zero}%" x2="{zero}%" y1="0" y2="18"/>')
    if is_number(row["low"]):
        ends = scale.place(row["low"]), scale.place(row["high"])
        parts.append(f'<line x1="{ends[0]}%" x2="{ends[1]}%" y1="9" y2="9"/>')
    parts.append(f'<circle cx="{scale.place(row["value"])}%" cy="9" r="4.5"/>')
    name = f"interval {kind}".strip()
    return Markup(f'<svg class="{name}" aria-hidden="true" height="18">{"".join(parts)}</svg>')


def bar(share: float | None) -> Markup:
    """Return a bar for a share of the width, for a cell beside its number."""
    if not is_number(share):
        return Markup("")
    width = round(100.0 * min(1.0, max(0.0, share)), 2)
    return Markup(
        '<svg class="bar" aria-hidden="true" height="12">'
        f'<rect class="rail" width="100%" height="12" rx="3"/>'
        f'<rect width="{width}%" height="12" rx="3"/></svg>'
    )


def by_day(points: Sequence[Mapping[str, Any]], text: str) -> Markup:
    """Return click rates by day, one line for each release; "" where no release has two days.

    points: by release and day, as `figures.by_day` returns them. text: what the chart shows, for
    those who cannot see it.
    """
    days = [point["day"] for point in points]
    releases = sorted({point["release"] for point in points})
    if len(points) == len(releases):
        return Markup("")
    axis = Scale(min(days), max(days))
    heights = scale_of({"value": point["value"], "low": None, "high": None} for point in points)
    parts = _grid(heights)
    for release in releases:
        line = [point for point in points if point["release"] == release]
        places = [(axis.place(point["day"]), _y(heights, point["value"])) for point in line]
        kind = "ours" if release == releases[-1] else "other"
        parts += _line(places, kind)
        x, y = places[len(places) // 2]
        parts.append(f'<text class="{kind}" x="{x}%" y="{y + 20}">{int(release)}</text>')
    for end, anchor in ((axis.low, "start"), (axis.high, "end")):
        x = 0 if anchor == "start" else 100
        parts.append(
            f'<text class="axis" x="{x}%" y="{HEIGHT - 4}" text-anchor="{anchor}">{day(int(end))}'
            "</text>"
        )
    return _chart(parts, text)


def curve(values: Sequence[float], text: str) -> Markup:
    """Return values, such as a loss by epoch, as a line; "" for fewer than two."""
    if len(values) < 2:
        return Markup("")
    axis = Scale(0, len(values) - 1)
    heights = scale_of([{"value": value, "low": None, "high": None} for value in values])
    places = [(axis.place(i), _y(heights, value)) for i, value in enumerate(values)]
    return _chart(_grid(heights, is_share=False) + _line(places, "ours"), text)


def _grid(heights: Scale, *, is_share: bool = True) -> list[str]:
    """Return horizontal lines at both ends and in the middle, with their values."""
    parts = []
    for value in (heights.low, (heights.low + heights.high) / 2.0, heights.high):
        y = _y(heights, value)
        said = percent(value, 1) if is_share else number(value, 2)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="axis" x="0" y="{y - 3}">{said}</text>')
    return parts


def _line(places: Sequence[tuple[float, float]], kind: str) -> list[str]:
    """Return a line through places in per cent of the width and pixels of the height."""
    radius = 4 if len(places) <= FEW else 2.5
    parts = [
        f'<line class="{kind}" x1="{x1}%" y1="{y1}" x2="{x2}%" y2="{y2}"/>'
        for (x1, y1), (x2, y2) in pairwise(places)
    ]
    return parts + [f'<circle class="{kind}" cx="{x}%" cy="{y}" r="{radius}"/>' for x, y in places]


def _y(heights: Scale, value: float) -> float:
    share = (value - heights.low) / ((heights.high - heights.low) or 1.0)
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)


def _chart(parts: Sequence[str], text: str) -> Markup:
    title = Markup("<title>{}</title>").format(text)
    body = Markup("".join(parts))
    return Markup('<svg class="chart" role="img" height="{}">{}{}</svg>').format(
        int(HEIGHT), title, body
    )
