"""What the installs of a fleet clicked, by what decided their slates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import semantic_fault
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.evaluation.ope.canary import Arm
from sanderling_trainer.event_log.reader import EventLog

DAY_MS = 1000 * DAY
USUAL_SLOTS = 0.9
"""An install counts for no more slots than this share of the installs has."""


@dataclass
class JudgedDecisions:
    """The decisions with a judged slot, column by column."""

    install: list[str] = field(default_factory=list)
    release: list[int] = field(default_factory=list)
    arm: list[str] = field(default_factory=list)
    """Of an experiment, "" for none."""
    time: list[int] = field(default_factory=list)
    """Ms since 1970."""
    clicks: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    """Judged ones."""


def judged_decisions(
    logs: Iterable[EventLog], counts: Callable[[Decision], bool]
) -> JudgedDecisions:
    """Return the judged decisions of which `counts` is true.

    Cloned and incomplete installs count for nothing, nor do rewards under randomized response.
    """
    found = JudgedDecisions()
    for log in logs:
        unusable = log.incomplete | log.cloned
        for (install, _), events in log.events.items():
            if install not in unusable:
                _add(found, events, log, counts)
    return found


def _add(
    found: JudgedDecisions,
    events: list[Event],
    log: EventLog,
    counts: Callable[[Decision], bool],
) -> None:
    """Add the decisions of one pseudonym that have a judged slot."""
    outcomes: dict[str, dict[int, Outcome]] = {}
    for event in events:
        if isinstance(event, Outcome):
            outcomes.setdefault(event.decision, {})[event.slot] = event  # the last one counts
    for event in events:
        if not isinstance(event, Decision) or not counts(event):
            continue
        judged = [
            outcome
            for slot, outcome in outcomes.get(event.id, {}).items()
            if slot < len(event.slate) and event.slate[slot].item == outcome.item
        ]
        is_noisy = any(outcome.flip_probability for outcome in judged)
        if not judged or is_noisy or semantic_fault(event) is not None:
            continue
        found.install.append(event.install)
        found.release.append(event.release)
        found.arm.append(event.arm or "")
        found.time.append(log.time.get(event.id, event.clock.wall))
        found.clicks.append(sum(outcome.value > 0.0 for outcome in judged))
        found.slots.append(len(judged))


def start_and_look(time: NDArray[np.int64], is_new: NDArray[np.bool_]) -> tuple[int, int]:
    """Return when what is compared began, ms since 1970, and the number of the day since then.

    The earliest 1 % of the decisions are ignored: a few wrong clocks must not decide.
    """
    if not is_new.any():
        return 0, 1
    start = int(np.quantile(time[is_new], 0.01, method="lower"))
    return start, 1 + (int(time.max()) - start) // DAY_MS


def arms_of(found: JudgedDecisions, masks: Sequence[NDArray[np.bool_]]) -> list[Arm]:
    """Return what each install did, by arm; one with unusually many slots counts for fewer."""
    arms = [_arm(found, mask) for mask in masks]
    slots = np.concatenate([arm.slots for arm in arms])
    most = float(np.quantile(slots, USUAL_SLOTS)) if len(slots) else 0.0
    return [_bounded(arm, most) for arm in arms]


def _arm(found: JudgedDecisions, mask: NDArray[np.bool_]) -> Arm:
    rows = np.flatnonzero(mask)
    installs = [found.install[row] for row in rows]
    names, owner = np.unique(np.array(installs, np.str_), return_inverse=True)
    clicks = np.bincount(owner, np.array(found.clicks, np.float64)[rows], len(names))
    slots = np.bincount(owner, np.array(found.slots, np.float64)[rows], len(names))
    return Arm(clicks.astype(np.float64), slots.astype(np.float64))


def _bounded(arm: Arm, most: float) -> Arm:
    counted = np.minimum(1.0, most / arm.slots)
    return Arm(arm.clicks * counted, arm.slots * counted)
