"""Compares a canary with the release it may replace, by what the installs of both have clicked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanderling.events.schema import Decision, Event, Outcome
from sanderling.events.semantics import semantic_fault
from sanderling.releases.update_worker import in_rollout
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.evaluation.ope.canary import Arm, CanaryDecision, canary_decision
from sanderling_trainer.event_log.reader import EventLog, read_partitions
from sanderling_trainer.jobs.night_log import check_events
from sanderling_trainer.jobs.unfinished import appear, unfinished
from sanderling_trainer.policy import checkpoint

DAY_MS = 1000 * DAY
USUAL_SLOTS = 0.9
"""An install counts for no more slots than this share of the installs has."""


@dataclass(frozen=True)
class CanaryReport:
    """What to do with a canary, and what that rests on."""

    release: int
    """The canary's number."""

    active: int
    """The number of the release that it was learned from."""

    look: int
    """The days since the canary's first decision, counted from 1: each may be looked at once."""

    decision: CanaryDecision

    installs: tuple[int, int]
    """Installs with a judged slot, of the canary and of the active release."""


@dataclass
class _Decided:
    """The decisions of the two releases, column by column."""

    install: list[str] = field(default_factory=list)
    release: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    """Ms since 1970."""
    clicks: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    """Judged ones."""


def compare_canary(events: str, canary: Path, percent: int) -> CanaryReport:
    """Return what the devices' events say of a canary that `percent` of the installs may have.

    events: the folder or URL of the collector's store.
    canary: the folder of its checkpoint.

    Compared are installs that the roll-out includes, by their decisions of the canary, and those
    that it does not, by their decisions of the active release, from the canary's first decision on.
    Cloned and incomplete installs count for nothing, nor do rewards under randomized response.

    Raises `FileNotFoundError` where checkpoint or store are missing, `EventError` where a file of
    the store is damaged.
    """
    check_events(events)
    metadata = checkpoint.load(canary).metadata
    release, active = metadata.release, metadata.parent
    found = _decided(read_partitions(events), {release, active})

    of_release = np.array(found.release, np.int64)
    time = np.array(found.time, np.int64)
    takes_part = np.array([in_rollout(each, release, percent) for each in found.install], np.bool_)
    is_canary = takes_part & (of_release == release)
    start, look = _start_and_look(time, is_canary)

    is_active = ~takes_part & (of_release == active)
    since = time >= start
    arms = _arms(found, is_canary & since, is_active & since)
    # Installs need a random order, and every call the same one.
    decision = canary_decision(arms[0], arms[1], look, np.random.default_rng(release))
    installs = len(arms[0].slots), len(arms[1].slots)
    return CanaryReport(release, active, look, decision, installs)


def renumbered(source: Path, above: Path, out: Path) -> int:
    """Write a checkpoint to `out` under the number after that of another one; return the number.

    Devices take no lower number than they have, so a release that replaces a canary which was
    rolled back needs one above it. A second call changes nothing.

    Raises `FileNotFoundError` where a checkpoint is missing, `FileExistsError` where `out` holds
    anything else, `BusyError` where another job writes it.
    """
    active = checkpoint.load(source)
    number = checkpoint.load(above).metadata.release + 1
    out = out.absolute()
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    settings |= {
        "release": number,
        "parent": active.metadata.release,
        "explorations": active.explorations(),
    }
    text = json.dumps(settings, indent=1) + "\n"
    if out.exists():
        if (out / "config.json").exists() and (out / "config.json").read_text("utf-8") == text:
            return number
        raise FileExistsError(f"{out}: expected no such folder yet; choose another --out")
    with unfinished(out) as folder:
        copy = folder / "finished"
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(source, copy)
        (copy / "config.json").write_text(text, encoding="utf-8")
        appear(copy, out)
    return number


def _decided(logs: Iterable[EventLog], releases: set[int]) -> _Decided:
    found = _Decided()
    for log in logs:
        unusable = log.incomplete | log.cloned
        for (install, _), events in log.events.items():
            if install not in unusable:
                _add(found, events, log, releases)
    return found


def _add(found: _Decided, events: list[Event], log: EventLog, releases: set[int]) -> None:
    """Add the decisions of one pseudonym that have a judged slot."""
    outcomes: dict[str, dict[int, Outcome]] = {}
    for event in events:
        if isinstance(event, Outcome):
            outcomes.setdefault(event.decision, {})[event.slot] = event  # the last one counts
    for event in events:
        if not isinstance(event, Decision) or event.release not in releases:
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
        found.time.append(log.time.get(event.id, event.clock.wall))
        found.clicks.append(sum(outcome.value > 0.0 for outcome in judged))
        found.slots.append(len(judged))


def _start_and_look(time: NDArray[np.int64], is_canary: NDArray[np.bool_]) -> tuple[int, int]:
    """Return when the canary began, ms since 1970, and the number of the day since then.

    The earliest 1 % of its decisions are ignored: a few wrong clocks must not decide.
    """
    if not is_canary.any():
        return 0, 1
    start = int(np.quantile(time[is_canary], 0.01, method="lower"))
    return start, 1 + (int(time.max()) - start) // DAY_MS


def _arms(
    found: _Decided, is_canary: NDArray[np.bool_], is_active: NDArray[np.bool_]
) -> tuple[Arm, Arm]:
    """Return what each install did, by arm; one with unusually many slots counts for fewer."""
    canary, active = _arm(found, is_canary), _arm(found, is_active)
    slots = np.concatenate([canary.slots, active.slots])
    most = float(np.quantile(slots, USUAL_SLOTS)) if len(slots) else 0.0
    return _bounded(canary, most), _bounded(active, most)


def _arm(found: _Decided, mask: NDArray[np.bool_]) -> Arm:
    rows = np.flatnonzero(mask)
    installs = [found.install[row] for row in rows]
    names, owner = np.unique(np.array(installs, np.str_), return_inverse=True)
    clicks = np.bincount(owner, np.array(found.clicks, np.float64)[rows], len(names))
    slots = np.bincount(owner, np.array(found.slots, np.float64)[rows], len(names))
    return Arm(clicks.astype(np.float64), slots.astype(np.float64))


def _bounded(arm: Arm, most: float) -> Arm:
    counted = np.minimum(1.0, most / arm.slots)
    return Arm(arm.clicks * counted, arm.slots * counted)
