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

    The names are nights, ranking, warm_start, seconds.
    """
    learning = summary.get("learning") or {}
    with mpl.rc_context(_STYLE):
        figures = {
            "nights": _nights(summary.get("nights") or []),
            "ranking": _ranking(summary.get("ranking") or []),
            "warm_start": _curves(learning.get("warm_start"), ("loss", "validation")),
            "seconds": _seconds(summary.get("seconds") or {}),
        }
        return {name: _svg(figure, name) for name, figure in figures.items() if figure is not None}


def _nights(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw how near both arms come to the best possible each night, and what newcomers get."""
    if not rows:
        return None
    figure = Figure(figsize=(_WIDE, 4.6))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    nights = [row["night"] for row in rows]

    lowest = 1.0
    for arm, name, colour in (("never", "never retrained", INK), ("ours", "retrained", ACCENT)):
        shares = [row[arm]["share"] for row in rows]
        values = [share["value"] for share in shares]
        low, high = ([share[end] for share in shares] for end in ("low", "high"))
        left.fill_between(nights, low, high, color=colour, alpha=0.15, linewidth=0)
        _line(left, nights, values, name, colour)
        lowest = min(lowest, *low)
    left.axhline(1.0, color=SOFT, linewidth=1.2, linestyle="--")
    left.annotate("best possible", (nights[0], 1.0), (0, 5), textcoords="offset points", color=SOFT)
    left.set_ylim(max(0.0, lowest - 0.1), 1.08)
    left.set_title("clicks to be expected, as a share of the best possible")

    _line(right, nights, [row["ours"]["best_newcomers"] for row in rows], "by the truth", SOFT)
    _line(right, nights, [row["never"]["newcomers"] for row in rows], "never retrained", INK)
    _line(right, nights, [row["ours"]["newcomers"] for row in rows], "retrained", ACCENT)
    right.set_ylim(bottom=0.0)
    right.set_title("slots that show newcomers")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.set_xlabel("night")
        axes.set_xticks(nights)
        axes.set_xlim(nights[0] - 0.1, nights[-1] + 0.42 * max(len(nights) - 1, 1))
        axes.grid(axis="y", linewidth=0.8)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
    return figure


def _line(
    axes: Axes, nights: Sequence[int], values: Sequence[float], name: str, colour: str
) -> None:
    """Draw a curve with its name at its end."""
    axes.plot(nights, values, "o-", color=colour, linewidth=2.2, markersize=6)
    end = (nights[-1], values[-1])
    axes.annotate(
        name, end, (9, 0), textcoords="offset points", color=colour, verticalalignment="center"
    )


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
        axes.set_title(name)
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
