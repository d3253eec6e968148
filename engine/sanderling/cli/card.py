"""The model card of a bundle: what is in its manifest, in words.

After M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sanderling.bundle.manifest import Manifest

FEW = 100
"""Users of a window below which the card warns."""

METRICS = ("ndcg@10", "recall@10", "hit_rate@10")
PRIVACY = (
    "Users' names and the words of contexts stay on the device. What can leave it is listed by"
    " `sanderling events --schema`."
)
SCOPE = (
    "It orders the items of this catalog for one user of this app. It was neither made nor tested"
    " for decisions about people."
)
"""What every bundle is for."""


def as_markdown(manifest: Manifest) -> str:
    """Return the card as Markdown; a section of which the manifest says nothing is left out."""
    card = manifest.reports.get("card", {})
    sections = [
        f"# Model card: {manifest.app}, release {manifest.release}",
        _summary(manifest, card),
        "## Use\n\n" + _use(manifest),
        _titled("How well it ranks", _ranking(card)),
        _titled("What its last training learned", _learning(card)),
        _titled("The bundle beside the policy it was made from", _gate(manifest)),
        _titled("Limits", "\n".join(f"- {limit}" for limit in limits(manifest))),
        f"## Privacy\n\n{PRIVACY}",
        "## Files\n\n" + _files(manifest),
    ]
    return "\n\n".join(section for section in sections if section)


def limits(manifest: Manifest) -> list[str]:
    """Return what a reader should know before trusting the figures, a sentence each."""
    card = manifest.reports.get("card", {})
    found = []
    if not card:
        found.append("This bundle was made without figures of its training.")
    if card.get("loses"):
        found.append(
            "On the windows by which its settings were chosen it ranked worse than a baseline;"
            " see the table above."
        )
    found += [
        f"“{window['protocol']}” rests on {window['users']} users: small differences are noise."
        for window in card.get("ranking", [])
        if window["users"] < FEW
    ]
    found += [
        f"{check['check']}: {_number(check['value'])}, {check['note']}."
        for check in manifest.reports.get("gate", [])
        if check["note"].startswith("accepted")
    ]
    return found


def _summary(manifest: Manifest, card: Mapping[str, Any]) -> str:
    lineage = manifest.lineage
    log = card.get("log", {})
    size = sum(entry.length for entry in manifest.files.values())
    data = f"{log['events']:,} events of {log['users']:,} users" if log else "a log"
    parent = f" It continues release {lineage.parent}." if lineage.parent else ""
    return (
        f"A recommender of {manifest.sizes.items:,} items, {size / 1e6:.1f} MB, made on"
        f" {_day(manifest.created)} from {data} between {_day(lineage.log_from)} and"
        f" {_day(lineage.log_to)} (sha256 of the data: {lineage.data_sha256[:12]}…).{parent}"
    )


def _use(manifest: Manifest) -> str:
    plan = manifest.exploration
    daily = "" if plan.daily is None else f", at most {plan.daily} slots per user and day"
    explored = (
        f"It explores by the scheme `{plan.scheme}` with epsilon {plan.epsilon:g} among the"
        f" {plan.pool} best items{daily}; {plan.newcomers:.0%} of the explored slots are for items"
        " with few impressions. Each slot reports the probability with which it was drawn."
    )
    needs = f"It needs version {manifest.min_engine} of the engine or a later one."
    return f"{SCOPE} {needs}\n\n{explored}"


def _ranking(card: Mapping[str, Any]) -> str:
    parts = []
    for window in card.get("ranking", []):
        rows = [
            (model["name"], *(_interval(model.get(metric)) for metric in METRICS))
            for model in window["models"]
        ]
        title = f"{window['protocol']}, {window['users']:,} users, with 95 % intervals:"
        parts.append(f"{title}\n\n{_table(('model', *METRICS), rows)}")
    return "\n\n".join(parts)


def _learning(card: Mapping[str, Any]) -> str:
    learning = card.get("learning")
    if not learning:
        return ""
    count = f"{learning['decisions']:,} logged decisions, by {learning['learner']}."
    return "\n\n".join(part for part in (count, card.get("sentence", "")) if part)


def _gate(manifest: Manifest) -> str:
    rows = [
        (check["check"], _number(check["value"]), _number(check["threshold"]), check["note"])
        for check in manifest.reports.get("gate", [])
    ]
    if not rows:
        return ""
    tier = manifest.reports.get("encoder", {}).get("tier", "")
    encoder = f"Text encoder: `{tier}`, {manifest.files['encoder.onnx'].length / 1e6:.1f} MB.\n\n"
    return encoder + _table(("check", "value", "limit", "note"), rows)


def _files(manifest: Manifest) -> str:
    rows = [(name, f"{file.length:,}", file.sha256) for name, file in manifest.files.items()]
    return _table(("file", "bytes", "sha256"), rows)


def _titled(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
