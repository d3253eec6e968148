"""Says reasons in one sentence of English, the strongest cause first."""

from __future__ import annotations

from collections.abc import Sequence

from sanderling.reasons import EventReason, Reasons

MAX_EVENTS = 2
"""Past events that a sentence names."""

MAX_TRAITS = 2
"""What one of them shares with the item."""

MAX_WORDS = 2
"""Words of a context or text that it names."""

WORTH_NAMING = 0.25
"""A cause is named if it has this part of the strongest one's effect, an event if it has this part
of the strongest event's."""

TELLING_RULES = {"where", "among", "at_most"}
"""Rules of which a sentence tells that they kept better items out."""

MAX_TITLE = 60
"""Characters of a title."""


def sentence_of(reasons: Reasons) -> str:
    """Return the sentence for reasons whose own one is still empty."""
    causes = _listed(_causes(reasons))
    title = _quoted(reasons.title)
    chance = f"with a probability of {100 * reasons.propensity:.2g} %"
    if reasons.pinned:
        return f"{title} is pinned to this slot by the app."
    if reasons.newcomer:
        start = f"{title} is shown as a newcomer, {chance}"
    elif reasons.explored:
        start = f"{title} was drawn by exploration, {chance}"
    elif causes:
        return f"{title} is shown because of {causes}{_left_out(reasons)}."
    else:
        place = f"number {reasons.rank + 1} of {reasons.eligible} by score"
        return f"{title} is shown because it is {place}{_left_out(reasons)}."

    greedy = reasons.greedy
    if greedy is not None and greedy.id != reasons.item:
        start += f", where {_quoted(greedy.title)} would stand otherwise"
    return start + (f"; in its favour: {causes}" if causes else "") + f"{_left_out(reasons)}."


def _causes(reasons: Reasons) -> list[str]:
    """Return what raised the score, the strongest first."""
    effects = [
        (reasons.history_effect, _behaviour(reasons.events)),
        (reasons.popularity.above_mean, [_popularity(reasons)]),
        (reasons.context_effect or 0.0, [_context(reasons)]),
        (reasons.boost, ["a boost by the app"]),
        (reasons.learned_effect or 0.0, ["what this device learned from rewards"]),
        _own_text(reasons),
    ]
    effects.sort(key=lambda cause: -cause[0])
    least = WORTH_NAMING * effects[0][0]
    return [text for effect, texts in effects if effect > 0 and effect >= least for text in texts]


def _behaviour(events: Sequence[EventReason]) -> list[str]:
    """Name the events that raised the score most, one for each item."""
    if not events or events[0].effect <= 0.0:
        return ["past behaviour as a whole"]
    least = WORTH_NAMING * events[0].effect
    by_item: dict[str, EventReason] = {}
    for event in events:
        if event.effect >= least:
            by_item.setdefault(event.item, event)
    return [_event(event) for event in list(by_item.values())[:MAX_EVENTS]]


def _event(event: EventReason) -> str:
    shared = list(dict.fromkeys(trait.value for trait in event.shared))[:MAX_TRAITS]
    details = f"{event.kind}; in common: {', '.join(shared)}" if shared else event.kind
    return f"{_quoted(event.title)} ({details})"


def _popularity(reasons: Reasons) -> str:
    percentile = int(100 * reasons.popularity.percentile)
    return f"its popularity (above {percentile} % of the catalog)"


def _context(reasons: Reasons) -> str:
    words = [word.word for word in reasons.words if word.source == "context" and word.effect > 0.0]
    named = ", ".join(words[:MAX_WORDS])
    return f"the context ({named})" if named else "the context"


def _own_text(reasons: Reasons) -> tuple[float, list[str]]:
    """Name the words of its own text for which a user's score of an added item is high."""
    words = [word for word in reasons.words if word.source == "text" and word.effect > 0.0]
    named = ", ".join(word.word for word in words[:MAX_WORDS])
    return (words[0].effect, [f"its text ({named})"]) if words else (0.0, [])


def _left_out(reasons: Reasons) -> str:
    # What an app excludes is mostly what the user has already seen, as are earlier pages.
    if not reasons.passed_over or reasons.rules.keys().isdisjoint(TELLING_RULES):
        return ""
    items = "1 item" if reasons.passed_over == 1 else f"{reasons.passed_over} items"
    return f"; rules kept {items} of a better score out"


def _quoted(title: str) -> str:
    line = " ".join(title.split())
    return f"“{line}”" if len(line) <= MAX_TITLE else f"“{line[: MAX_TITLE - 1]}…”"


def _listed(parts: Sequence[str]) -> str:
    """Join parts by commas, the last one by `and`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
