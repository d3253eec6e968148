"""The demo's summary in words: a verdict, and a table for the terminal.

Nothing is computed here: parts that the summary lacks are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanderling_trainer.report.formats import is_number, number, percent, signed, size, span, whole

NO_VERDICT = "No verdict: no night was lived by both arms."
SIMULATED = "The people are simulated."


def verdict(summary: Mapping[str, Any]) -> str:
    """Return in words whether the loop has learned by the last night.

    The interval of the paired difference to what was never retrained decides: better means that
    all of it lies above 0, worse that all of it lies below.
    """
    nights = summary.get("nights") or []
    difference = nights[-1]["difference"] if nights else {}
    result = comparison(difference)
    if result == "none":
        return NO_VERDICT
    ours, never = (number(nights[-1][arm]["clicks"]["value"], 2) for arm in ("ours", "never"))
    change = f"{signed(difference['value'])} {span(difference, signed)}"
    found = f"{ours} clicks a slate on night {nights[-1]['night']} against {never}, {change}"
    said = {
        "better": f"The loop learns: {found}, of devices that were never updated.",
        "same": f"The loop has not learned: {found}, cannot be told from devices never updated.",
        "worse": f"The loop has made it worse: {found}, of devices that were never updated.",
    }
    return f"{said[result]} {SIMULATED}"


def comparison(difference: Mapping[str, Any]) -> str:
    """Return "better", "same" or "worse" for a difference; "none" if it is incomplete."""
    if not all(is_number(difference.get(name)) for name in ("value", "low", "high")):
        return "none"
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "same"


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal, the verdict last."""
    blocks = [
        _nights(summary),
        replay_lines(summary),
        _ranking(summary),
        _bundle_gate(summary),
        _device(summary),
        [verdict(summary)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _nights(summary: Mapping[str, Any]) -> list[str]:
    nights = summary.get("nights") or []
    if not nights:
        return []
    people = whole((summary.get("data") or {}).get("people"))
    lines = [
        f"clicks a slate of {people} new SIMULATED people a night, 95 % over people; share of the"
        " best possible; newcomers' share of slots, and what the truth would give them",
        f"{'night':<7}{'release':<9}{'retrained':<22}{'never retrained':<22}"
        f"{'of the best':<16}newcomers",
    ]
    for row in nights:
        arms = [row["ours"], row["never"]]
        clicks = [
            f"{number(arm['clicks']['value'], 2)} {span(arm['clicks'], _two)}" for arm in arms
        ]
        shares = " / ".join(f"{arm['share']['value']:.0%}" for arm in arms)
        release = ", ".join(map(str, row["ours"]["releases"]))
        newcomers = f"{row['ours']['newcomers']:.1%} of {row['ours']['best_newcomers']:.1%}"
        lines.append(
            f"{row['night']:<7}{release:<9}{clicks[0]:<22}{clicks[1]:<22}{shares:<16}{newcomers}"
        )
        if row.get("gate"):
            shipped = "" if row["gate"]["is_shipped"] else " Not shipped."
            lines.append(f"       {row['gate']['verdict']}: {row['gate']['sentence']}{shipped}")
    return lines


def _two(value: float) -> str:
    return number(value, 2)


def replay_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the one line about real histories."""
    replay = summary.get("replay") or {}
    if not replay.get("arms"):
        return []
    rates = [
        f"{arm['name']} {percent(arm['ctr'])} {span(arm, percent)}" for arm in replay["arms"][::-1]
    ]
    users = whole(replay.get("users"))
    return [f"replayed on the real later histories of {users} users, clicked: {', '.join(rates)}"]


def _ranking(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for protocol in summary.get("ranking") or []:
        lines.append(f"nDCG@10, {protocol['protocol']}, {whole(protocol['users'])} users")
        for model in protocol["models"]:
            ndcg = model["ndcg@10"]
            interval = f"[{number(ndcg['low'])}, {number(ndcg['high'])}]"
            lines.append(f"{model['name']:<28}{number(ndcg['value']):>10}  {interval}")
    return lines


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
