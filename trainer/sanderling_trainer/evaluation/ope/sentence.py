"""The verdict in one sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanderling_trainer.evaluation.ope.release_gate import CANARY, SHIP, GateResult


def sentence(
    verdict: GateResult,
    difference: Mapping[str, Any] | None,
    active_release: int,
    counts: Mapping[str, Any],
) -> str:
    """Return what happens to the release after `active_release`, and why.

    `difference` has `low` and `high` as shares of the active release's clicks, None where the log
    cannot judge the candidate; `counts` has `decisions`, `units` and `resampled`.
    """
    name = f"Release {active_release + 1}"
    if difference is None:
        return f"{name} is held: the log cannot judge it ({'; '.join(verdict.reasons)})."

    expected = _expected(difference, active_release)
    what = str(counts["resampled"]).partition(",")[0]
    evidence = f"by {counts['decisions']:,} decisions of {counts['units']:,} {what}"
    if verdict.verdict == SHIP:
        return f"{name} is shipped to all: it is expected to get {expected}, {evidence}."
    if verdict.verdict == CANARY:
        return (
            f"{name} goes to a few per cent of the devices first: it is expected to get"
            f" {expected}, {evidence}, which shows no harm but does not rule it out."
        )
    return f"{name} is held: it is expected to get {expected}, {evidence}; harm is likely."


def _expected(difference: Mapping[str, Any], active_release: int) -> str:
    low, high = float(difference["low"]), float(difference["high"])
    if low == high == 0.0:
        return f"exactly as many clicks as release {active_release}"
    return (
        f"between {100 * low:+.0f} % and {100 * high:+.0f} % more clicks than release"
        f" {active_release}"
    )
