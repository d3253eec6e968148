"""The first paragraph of the report: is it better, is anything lost or broken, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanderling_trainer.report.demo_summary import NO_VERDICT, comparison, verdict
from sanderling_trainer.report.formats import is_number, number, percent, plural, signed_percent
from sanderling_trainer.report.formats import span as brackets

TOLERATED_LOSS = 0.001
"""Up to this share of lost events there is nothing to do."""

WORTH_TELLING = 0.05
"""The change of a click rate that a fleet should be able to tell."""

Figures = Mapping[str, Any]


def findings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline, its tone ("better", "same", "worse" or "none"), and the paragraph.

    content: the report's parts, as `collect.collect` returns them.
    """
    events = content.get("events")
    summary = content.get("summary") or {}
    checkpoints = content.get("checkpoints") or []
    of_demo = verdict(summary)
    if of_demo != NO_VERDICT:
        headline, tone = of_demo, comparison(summary["nights"][-1]["difference"])
    elif events is not None:
        headline, tone = headline_of(events), tone_of(events)
    elif checkpoints:
        headline, tone = _of_checkpoint(checkpoints[-1]), "none"
    else:
        headline, tone = NO_VERDICT, "none"

    sentences = []
    if events is not None:
        if of_demo != NO_VERDICT and events["comparison"]:
            sentences.append(headline_of(events))
        sentences += [_caveat(events), _health(events["losses"]), _advice(events)]
    elif summary.get("events"):
        sentences.append(_demo_health(summary["events"]))
    return {
        "headline": headline,
        "tone": tone,
        "paragraph": " ".join(sentence for sentence in sentences if sentence),
    }


def tone_of(events: Figures) -> str:
    """Return "better", "same" or "worse" for the latest release; "none" where that is open."""
    compared = events["comparison"]
    return comparison(compared["difference"]) if compared else "none"


def headline_of(events: Figures) -> str:
    """Return in one sentence whether the latest release is better than what was before."""
    releases = events["releases"]
    if not events["slates"]:
        return "The store holds no slates yet."
    if not releases:
        shown = plural(events["slates"], "slate")
        return f"{shown} were shown, and nothing is known yet of what users did with them."
    if events["comparison"] is None:
        (only,) = releases
        rate = only["rate"]
        return (
            f"Release {only['release']} gets {_per_hundred(rate['value'])} clicks in 100 seen slots"
            f"{_interval(rate)}; there is no other release to compare it with."
        )
    return _compared(events["comparison"])


def _compared(compared: Figures) -> str:
    others = _names(compared["others"])
    rates = (
        f"{_per_hundred(compared['rate'])} in 100 seen slots against"
        f" {_per_hundred(compared['other_rate'])}"
    )
    change = compared["change"]
    by = f", {signed_percent(change['value'])}" if is_number(change["value"]) else ""
    ends = f" {brackets(change, signed_percent)}" if is_number(change["low"]) else ""
    when = " on the same days" if compared["is_same_days"] else ""
    said = {
        "better": f"Release {compared['release']} gets more clicks than {others}{when}",
        "worse": f"Release {compared['release']} gets fewer clicks than {others}{when}",
        "same": f"Release {compared['release']} cannot be told from {others} yet{when}",
        "none": f"Release {compared['release']} cannot be told from {others} yet{when}",
    }
    return f"{said[comparison(compared['difference'])]}: {rates}{by}{ends}."


def _caveat(events: Figures) -> str:
    compared = events["comparison"]
    if not compared:
        return ""
    if compared["is_same_days"]:
        return (
            "Both ran on the same days, so the calendar cannot explain the difference; which"
            " devices have which release may."
        )
    return (
        "The releases ran one after the other, so other days and other users may explain a part"
        " of it; a roll-out to a share of the devices would tell."
    )


def _health(losses: Figures) -> str:
    """Say what is lost or broken."""
    lost = losses["missing"] + losses["declared"]
    if not losses["events"] and not lost:
        return ""
    if not lost:
        said = f"Nothing is lost: all {plural(losses['events'], 'event')} that devices made arrived"
    else:
        share = lost_share(losses)
        said = f"{percent(share)} of the devices' events are lost ({plural(lost, 'event')})"
    broken = [
        f"{plural(losses[name], 'install')} {'is' if losses[name] == 1 else 'are'} {text}"
        for name, text in (("incomplete", "incomplete"), ("cloned", "cloned"))
        if losses[name]
    ]
    return f"{said}; {' and '.join(broken)}, and left out here." if broken else f"{said}."


def lost_share(losses: Figures) -> float:
    """Return the share of the events that devices made which never arrived."""
    lost = losses["missing"] + losses["declared"]
    made = losses["events"] + lost
    return lost / made if made else 0.0


def _advice(events: Figures) -> str:
    """Say what to do."""
    losses = events["losses"]
    parts = []
    if events["comparison"]:
        parts.append(_advice_on_release(events["comparison"]))
    if losses["incomplete"] or losses["cloned"]:
        parts.append("run `sanderling installs rotate`, so that these installs count again")
    if lost_share(losses) > TOLERATED_LOSS:
        parts.append("see below why events are lost")
    return f"What to do: {'; '.join(parts)}." if parts else ""


def _advice_on_release(compared: Figures) -> str:
    release = compared["release"]
    tone = comparison(compared["difference"])
    if tone == "better":
        return f"keep release {release}, and give it to all devices if some lack it"
    if tone == "worse":
        return f"withdraw release {release} (`sanderling release withdraw --release {release}`)"
    change = compared["change"]
    if not is_number(change["low"]):
        return "wait for more devices to report"
    # The half-width of an interval falls with the root of the data.
    factor = ((change["high"] - change["low"]) / 2.0 / WORTH_TELLING) ** 2
    if factor <= 1.0:
        return f"keep release {release}: a difference of {percent(WORTH_TELLING, 0)} would show"
    return (
        f"wait: to tell a difference of {percent(WORTH_TELLING, 0)}, about {factor:.1f} times as"
        " much must be seen"
    )


def _demo_health(events: Figures) -> str:
    lost = events.get("lost", 0)
    if lost:
        return f"{plural(lost, 'reward')} that devices acknowledged never arrived."
    return "No reward is lost."


def _of_checkpoint(checkpoint: Figures) -> str:
    said = checkpoint["sentence"]
    return said or f"Release {checkpoint['release']} was trained; no devices have reported on it."


def _per_hundred(rate: float | None) -> str:
    return number(100.0 * rate, 1) if is_number(rate) else number(None)


def _interval(rate: Figures) -> str:
    return f" {brackets(rate, _per_hundred)}" if is_number(rate["low"]) else ""


def _names(releases: list[int]) -> str:
    if len(releases) == 1:
        return f"release {releases[0]}"
    *most, last = map(str, releases)
    return f"releases {', '.join(most)} and {last}"
