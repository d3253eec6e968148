"""The report's plots as inline SVG: the colours are the page's CSS variables, text stays text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Placeholder colours that matplotlib can write; `_svg` replaces each by a CSS variable, so that the
# plots follow the page in light, dark and print.
INK = "#010101"
SOFT = "#020202"
RULE = "#030303"
ACCENT = "#040404"
OTHER = "#050505"
_VARIABLES = {INK: "--ink", SOFT: "--soft", RULE: "--rule", ACCENT: "--accent", OTHER: "--other"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sanderling",
    "font.size": 13,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": INK,
    "grid.color": RULE,
    "text.parse_math": False,
}

# Inches; at 72 to the inch, points are the page's pixels.
_WIDE = 12.0
_HALF = 6.2
_ROW = 0.46

Row = tuple[str, float, float, float]
"""Label, value, and the ends of the interval."""


def draw(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return by name the SVG of each plot that the summary has the numbers for.

    The names are arms, difference, ranking, ope, warm_start, policy_gradient, seconds.
    """
    replay = summary.get("replay") or {}
    learning = summary.get("learning") or {}
    with mpl.rc_context(_STYLE):
        figures = {
            "arms": _intervals(_rows(replay.get("arms"), "name", "ctr"), _HALF, first_ours=-1),
            "difference": _difference(replay.get("difference")),
            "ranking": _ranking(summary.get("ranking") or []),
            "ope": _intervals(_off_policy(summary.get("ope") or {}), _WIDE, first_ours=1),
            "warm_start": _curves(learning.get("warm_start"), ("loss", "validation")),
            "policy_gradient": _curves(learning.get("policy_gradient"), ("surrogate", "kl")),
            "seconds": _seconds(summary.get("seconds") or {}),
        }
        return {name: _svg(figure, name) for name, figure in figures.items() if figure is not None}


def _rows(rows: Sequence[Mapping[str, Any]] | None, name: str, value: str) -> list[Row]:
    return [(str(row[name]), row[value], row["low"], row["high"]) for row in rows or []]


def _off_policy(ope: Mapping[str, Any]) -> list[Row]:
    return [
        (f"{row['policy']}, {row['estimator']}", row["value"], row["low"], row["high"])
        for row in ope.get("estimates", [])
        if not row["refused"]
    ]


def _intervals(rows: Sequence[Row], width: float, first_ours: int) -> Figure | None:
    """Draw one dot with its interval a row."""
    if not rows:
        return None
    figure = Figure(figsize=(width, 0.8 + _ROW * len(rows)))
    axes = figure.subplots()
    _draw_intervals(axes, rows, first_ours)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    return figure


def _difference(difference: Mapping[str, Any] | None) -> Figure | None:
    if not difference:
        return None
    figure = Figure(figsize=(_HALF, 0.8 + _ROW * 4))
    axes = figure.subplots()
    _draw_intervals(axes, _rows([difference], "name", "value"), first_ours=0)

    # Symmetric about zero, so that the eye sees which side the interval is on.
    limit = 1.25 * max(abs(difference["low"]), abs(difference["high"]), 1e-4)
    axes.set_xlim(-limit, limit)
    axes.axvline(0.0, color=SOFT, linewidth=1.2)
    axes.xaxis.set_major_formatter(FuncFormatter(_points))
    axes.set_yticks([])
    axes.set_title(str(difference["name"]).replace(" - ", " − "))
    axes.set_xlabel("percentage points")
    return figure


def _points(share: float, _: int) -> str:
    return f"{100 * share:+g}".replace("-", "−") if share else "0"


def _ranking(protocols: Sequence[Mapping[str, Any]]) -> Figure | None:
    if not protocols:
        return None
    rows = max(len(protocol["models"]) for protocol in protocols)
    figure = Figure(figsize=(_WIDE, 1.0 + _ROW * rows))
    panels = figure.subplots(1, len(protocols), squeeze=False)[0]
    for axes, protocol in zip(panels, protocols, strict=True):
        models = [_model_row(model) for model in protocol["models"]]
        _draw_intervals(axes, models, first_ours=-1)
        axes.set_xlim(left=0.0)
        axes.set_title(f"{protocol['protocol']}, {protocol['users']} users")
    return figure


def _model_row(model: Mapping[str, Any]) -> Row:
    ndcg = model["ndcg@10"]
    return str(model["name"]), ndcg["value"], ndcg["low"], ndcg["high"]


def _draw_intervals(axes: Axes, rows: Sequence[Row], first_ours: int) -> None:
    """Draw the rows, in the accent colour from row `first_ours` on (negative: from the end)."""
    first = first_ours % max(len(rows), 1)
    for y, (_, value, low, high) in enumerate(rows):
        colour = ACCENT if y >= first else INK
        axes.plot([low, high], [y, y], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot([value], [y], "o", color=colour, markersize=8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _curves(trace: Mapping[str, Sequence[float]] | None, names: Sequence[str]) -> Figure | None:
    """Draw small multiples side by side, one for each name that has values."""
    drawn = [name for name in names if (trace or {}).get(name)]
    if trace is None or not drawn:
        return None
    figure = Figure(figsize=(_HALF, 3.0))
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, name in zip(panels, drawn, strict=True):
        values = trace[name]
        axes.plot(range(1, len(values) + 1), values, color=ACCENT, linewidth=2)
        axes.plot([len(values)], values[-1:], "o", color=ACCENT, markersize=6)
        axes.set_title(name.replace("kl", "KL to the reference"))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", linewidth=0.8)
        axes.tick_params(length=0, labelcolor=SOFT)
    return figure


def _seconds(seconds: Mapping[str, float]) -> Figure | None:
    """Draw a bar for each stage, without the sum and the parts of a stage (`train: encode`)."""
    stages = {name: spent for name, spent in seconds.items() if name != "all" and ": " not in name}
    if not stages:
        return None
    figure = Figure(figsize=(_WIDE, 0.8 + _ROW * len(stages)))
    axes = figure.subplots()
    spent = list(stages.values())
    bars = axes.barh(range(len(stages)), spent, color=OTHER, height=0.55)
    axes.bar_label(bars, [f"{value:.1f} s" for value in spent], padding=6, color=SOFT)
    axes.set_yticks(range(len(stages)), list(stages))
    axes.set_ylim(len(stages) - 0.4, -0.6)
    axes.set_xticks([])
    axes.margins(x=0.12)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as inline SVG: no prologue or namespaces, unique ids, CSS colours."""
    figure.set_layout_engine("constrained")
    out = StringIO()
    figure.savefig(
        out,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    text = out.getvalue()

    text = re.sub(
        r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", text[text.index("<svg") :]
    )

    # Several SVGs share the page, so each plot's ids get its name.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
