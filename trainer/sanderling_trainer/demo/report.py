"""The demo's report: a verdict in words, a table for the terminal, and a self-contained page.

Nothing is computed here: parts that the summary lacks are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from sanderling_trainer.demo import plots

MISSING = "–"
NO_VERDICT = "No verdict: two releases were not compared."

PARTS = (
    "data", "replay", "ranking", "quantize", "latency", "bundle", "events", "ope", "learning",
    "updates", "seconds", "machine",
)  # fmt: skip


def verdict(summary: Mapping[str, Any]) -> str:
    """Return in words whether the last release is better than the one before it.

    The interval of their paired difference decides: better means that all of it lies above 0,
    worse that all of it lies below; anything else is not better.
    """
    difference = (summary.get("replay") or {}).get("difference") or {}
    result = comparison(difference)
    if result == "none":
        return NO_VERDICT
    after, _, before = str(difference.get("name", "release 2 - release 1")).partition(" - ")
    change = f"{points(difference['value'])} percentage points"
    interval = f"[{points(difference['low'])}, {points(difference['high'])}]"
    if result == "same":
        text = (
            f"{after} is not better than {before}: the change of its click rate, {change}"
            f" {interval}, is not distinguishable from zero."
        )
    else:
        text = f"{after} is {result} than {before}: its click rate changed by {change} {interval}."
    return text[0].upper() + text[1:] + _popularity_note(summary, after)


def comparison(difference: Mapping[str, Any]) -> str:
    """Return "better", "same" or "worse" for a difference; "none" if it is incomplete."""
    if not all(_is_number(difference.get(name)) for name in ("value", "low", "high")):
        return "none"
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "same"


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal, the verdict last."""
    blocks = [
        _click_rates(summary),
        _ranking(summary),
        _off_policy(summary),
        _bundle_gate(summary),
        _device(summary),
        [verdict(summary)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the summary as one HTML page without external references, for screen and print."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=percent, points=points, number=number, size=size, whole=whole
    )
    template = files("sanderling_trainer.demo").joinpath("report.html.j2")
    source = template.read_text(encoding="utf-8")
    parts = {name: summary.get(name) or {} for name in PARTS}
    page = environment.from_string(source).render(
        **parts,
        verdict=verdict(summary),
        release_gate=release_gate(summary),
        comparison=comparison(parts["replay"].get("difference") or {}),
        plots={name: Markup(svg) for name, svg in plots.draw(summary).items()},
    )
    path.write_text(page, encoding="utf-8")


def percent(share: float | None) -> str:
    """Return a share as a percentage: 0.0412 is `4.12 %`."""
    return f"{100 * share:.2f} %" if _is_number(share) else MISSING  # type: ignore[operator]


def points(share: float | None) -> str:
    """Return a difference of shares in signed percentage points: 0.0042 is `+0.42`."""
    if not _is_number(share):
        return MISSING
    return f"{100 * share:+.2f}".replace("-", "−")  # type: ignore[operator]


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if _is_number(value) else MISSING


def whole(value: float | None) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f") if _is_number(value) else MISSING


def size(count: float | None) -> str:
    """Return bytes in the largest decimal unit that fits: 23000000 is `23.0 MB`."""
    if not _is_number(count):
        return MISSING
    amount = float(count)  # type: ignore[arg-type]
    units = ["B", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units = units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _popularity_note(summary: Mapping[str, Any], after: str) -> str:
    rates = {arm["name"]: arm["ctr"] for arm in summary["replay"].get("arms", [])}
    if rates.get("popularity", -math.inf) <= rates.get(after, math.inf):
        return ""
    return (
        f" Popularity was clicked more often than {after}: {percent(rates['popularity'])} against"
        f" {percent(rates[after])}."
    )


def _click_rates(summary: Mapping[str, Any]) -> list[str]:
    replay = summary.get("replay") or {}
    lines = []
    for arm in replay.get("arms", []):
        interval = f"[{percent(arm['low'])}, {percent(arm['high'])}]"
        counts = f"{whole(arm['clicks'])} of {whole(arm['shown'])}"
        lines.append(f"{arm['name']:<28}{percent(arm['ctr']):>10}  {interval}  {counts}")
    difference = replay.get("difference")
    if difference:
        interval = f"[{points(difference['low'])}, {points(difference['high'])}]"
        value = points(difference["value"])
        lines.append(f"{difference['name']:<28}{value:>10}  {interval} percentage points")
    return [f"replayed click rate, {whole(replay.get('users'))} users", *lines] if lines else []


def _ranking(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for protocol in summary.get("ranking") or []:
        lines.append(f"nDCG@10, {protocol['protocol']}, {whole(protocol['users'])} users")
        for model in protocol["models"]:
            ndcg = model["ndcg@10"]
            interval = f"[{number(ndcg['low'])}, {number(ndcg['high'])}]"
            lines.append(f"{model['name']:<28}{number(ndcg['value']):>10}  {interval}")
    return lines


def _off_policy(summary: Mapping[str, Any]) -> list[str]:
    ope = summary.get("ope") or {}
    lines = [ope["sentence"]] if ope.get("sentence") else []
    lines += [_estimate_line(row) for row in ope.get("estimates", [])]
    for reason, count in (ope.get("left_out") or {}).items():
        lines.append(f"left out: {whole(count)} decisions, {reason}")
    lines += release_gate(summary)
    return ["off-policy estimate of the click rate", *lines] if lines else []


def _estimate_line(row: Mapping[str, Any]) -> str:
    name = f"{row['policy']}, {row['estimator']}"
    interval = f"[{percent(row['low'])}, {percent(row['high'])}]"
    weights = f"mean {number(row.get('mean_weight'), 3)}, max {number(row['max_weight'], 1)}"
    unsupported = f", unsupported {percent(row['unsupported'])}" if row.get("unsupported") else ""
    refused = f"  refused: {row['refused']}" if row["refused"] else ""
    return (
        f"{name:<28}{percent(row['value']):>10}  {interval}"
        f"  ess {whole(row['ess'])}, weights {weights}{unsupported}{refused}"
    )


def release_gate(summary: Mapping[str, Any]) -> list[str]:
    """Return the release gate's verdict on the candidate, one line a reason."""
    verdict = (summary.get("ope") or {}).get("gate")
    if not verdict:
        return []
    reasons = [f"not shipped to all: {reason}" for reason in verdict["reasons"]]
    return [f"release gate: {verdict['verdict']}", *reasons]


def _bundle_gate(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in (summary.get("quantize") or {}).get("checks", []):
        outcome = "passed" if row["passed"] else "FAILED"
        lines.append(
            f"{row['check']:<28}{row['value']:>10.4g}  {outcome} at {row['threshold']:.4g}"
        )
    return ["gate of the bundle", *lines] if lines else []


def _device(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, unit in (("recommend_us", "µs"), ("reward_ms", "ms")):
        row = (summary.get("latency") or {}).get(name)
        if row:
            call = name.partition("_")[0]
            p50 = number(row["p50"], 1)
            p99 = number(row["p99"], 1)
            lines.append(f"{call:<28}{p50:>10} {unit} at p50, {p99} {unit} at p99")
    bundle = summary.get("bundle")
    if bundle:
        lines.append(f"{'bundle':<28}{size(bundle['bytes']):>10}")
    events = summary.get("events")
    if events:
        counts = ", ".join(f"{whole(count)} {name}" for name, count in events.items())
        lines.append(f"{'events':<28}{counts}")
    return lines
