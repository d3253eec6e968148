"""The demo's report: a verdict in words, a table for the terminal, and one self-contained HTML page.

Refuses to compute: it says what the summary holds, and leaves out the parts that the summary lacks.
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

NOTHING = "–"
NO_VERDICT = "No verdict: two releases were not compared."


def verdict(summary: Mapping[str, Any]) -> str:
    """Say whether the last release is better than the one before it, by the interval of their paired difference.

    Better means that the whole interval lies above 0, worse that it lies below; anything else is not better.
    """
    difference = (summary.get("replay") or {}).get("difference") or {}
    tone = tone_of(difference)
    if tone == "none":
        return NO_VERDICT
    after, _, before = str(difference.get("name", "release 2 - release 1")).partition(" - ")
    change = f"{points(difference['value'])} percentage points"
    interval = f"[{points(difference['low'])}, {points(difference['high'])}]"
    said = {
        "better": f"{after} is better than {before}: its click rate changed by {change} {interval}.",
        "worse": f"{after} is worse than {before}: its click rate changed by {change} {interval}.",
        "same": f"{after} is not better than {before}: the change of its click rate, {change} {interval},"
        " cannot be told from nothing.",
    }[tone]
    return said[0].upper() + said[1:] + _popularity(summary, after)


def tone_of(difference: Mapping[str, Any]) -> str:
    """Return "better", "same" or "worse" for a difference with `value`, `low` and `high`; "none" where one lacks."""
    if not all(_known(difference.get(name)) for name in ("value", "low", "high")):
        return "none"
    return "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "same"


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal; the verdict is the last."""
    blocks = [
        _clicks(summary),
        _ranking(summary),
        _off_policy(summary),
        _gate(summary),
        _device(summary),
    ]
    blocks.append([verdict(summary)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the summary as one HTML page without any outside reference; it reads in light, dark and on paper."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=percent, points=points, number=number, size=size, whole=whole
    )
    source = (
        files("sanderling_trainer.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    known = {name: summary.get(name) or {} for name in _PARTS}
    page = environment.from_string(source).render(
        **known,
        verdict=verdict(summary),
        release_gate=release_gate(summary),
        tone=tone_of(known["replay"].get("difference") or {}),
        plots={name: Markup(svg) for name, svg in plots.draw(summary).items()},
    )
    path.write_text(page, encoding="utf-8")


_PARTS = (
    "data", "replay", "ranking", "quantize", "latency", "bundle", "events", "ope", "learning", "updates", "seconds",
    "machine",
)  # fmt: skip


def percent(share: float | None) -> str:
    """Write a share as a percentage: 0.0412 is `4.12 %`."""
    return f"{100 * share:.2f} %" if _known(share) else NOTHING  # type: ignore[operator]


def points(share: float | None) -> str:
    """Write a difference of shares in percentage points, signed: 0.0042 is `+0.42`."""
    return f"{100 * share:+.2f}".replace("-", "−") if _known(share) else NOTHING  # type: ignore[operator]


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with so many decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if _known(value) else NOTHING


def whole(value: float | None) -> str:
    """Write a count, its thousands set apart by thin spaces."""
    return f"{value:,.0f}".replace(",", "\u202f") if _known(value) else NOTHING


def size(count: float | None) -> str:
    """Write bytes in the unit that fits: 23000000 is `23.0 MB`."""
    if not _known(count):
        return NOTHING
    amount, units = float(count), ["B", "kB", "MB", "GB"]  # type: ignore[arg-type]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _popularity(summary: Mapping[str, Any], after: str) -> str:
    rates = {arm["name"]: arm["ctr"] for arm in summary["replay"].get("arms", [])}
    if rates.get("popularity", -math.inf) <= rates.get(after, math.inf):
        return ""
    return f" Popularity was clicked more than {after}: {percent(rates['popularity'])} against {percent(rates[after])}."


def _clicks(summary: Mapping[str, Any]) -> list[str]:
    replay = summary.get("replay") or {}
    lines = [
        f"{arm['name']:<28}{percent(arm['ctr']):>10}  [{percent(arm['low'])}, {percent(arm['high'])}]"
        f"  {whole(arm['clicks'])} of {whole(arm['shown'])}"
        for arm in replay.get("arms", [])
    ]
    difference = replay.get("difference")
    if difference:
        low, high = points(difference["low"]), points(difference["high"])
        lines.append(
            f"{difference['name']:<28}{points(difference['value']):>10}  [{low}, {high}] percentage points"
        )
    return [f"click rate, replayed, {whole(replay.get('users'))} users", *lines] if lines else []


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
    found, lines = summary.get("ope") or {}, []
    for row in found.get("estimates", []):
        interval = f"[{percent(row['low'])}, {percent(row['high'])}]"
        weights = f"mean {number(row.get('mean_weight'), 3)}, max {number(row['max_weight'], 1)}"
        unsupported = (
            f", unsupported {percent(row['unsupported'])}" if row.get("unsupported") else ""
        )
        refused = f"  refused: {row['refused']}" if row["refused"] else ""
        lines.append(
            f"{row['policy'] + ', ' + row['estimator']:<28}{percent(row['value']):>10}  {interval}"
            f"  ess {whole(row['ess'])}, weights {weights}{unsupported}{refused}"
        )
    lines += [
        f"left out: {whole(count)} decisions, {reason}"
        for reason, count in (found.get("left_out") or {}).items()
    ]
    lines += release_gate(summary)
    return ["click rate, estimated off policy", *lines] if lines else []


def release_gate(summary: Mapping[str, Any]) -> list[str]:
    """Return what the release gate said of the candidate, a line a reason."""
    verdict = (summary.get("ope") or {}).get("gate")
    if not verdict:
        return []
    if verdict["passed"]:
        return ["release gate: passes"]
    return [f"release gate: holds, because {reason}" for reason in verdict["reasons"]]


def _gate(summary: Mapping[str, Any]) -> list[str]:
    checks = (summary.get("quantize") or {}).get("checks", [])
    lines = [
        f"{row['check']:<28}{row['value']:>10.4g}  {'passed' if row['passed'] else 'FAILED'} at {row['threshold']:.4g}"
        for row in checks
    ]
    return ["gate of the bundle", *lines] if lines else []


def _device(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, unit in (("recommend_us", "µs"), ("reward_ms", "ms")):
        row = (summary.get("latency") or {}).get(name)
        if row:
            p50, p99 = number(row["p50"], 1), number(row["p99"], 1)
            lines.append(
                f"{name.partition('_')[0]:<28}{p50:>10} {unit} at p50, {p99} {unit} at p99"
            )
    bundle = summary.get("bundle")
    if bundle:
        lines.append(f"{'bundle':<28}{size(bundle['bytes']):>10}")
    events = summary.get("events")
    if events:
        counted = ", ".join(f"{whole(count)} {name}" for name, count in events.items())
        lines.append(f"{'events':<28}{counted}")
    return lines
