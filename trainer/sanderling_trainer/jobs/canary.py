"""Compares a canary with the release it may replace, by what the installs of both have clicked."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sanderling.releases.update_worker import in_rollout
from sanderling_trainer.evaluation.ope.canary import CanaryDecision, canary_decision
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.jobs.fleet_clicks import arms_of, judged_decisions, start_and_look
from sanderling_trainer.jobs.night_log import check_events
from sanderling_trainer.jobs.unfinished import appear, unfinished
from sanderling_trainer.policy import checkpoint


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
    found = judged_decisions(
        read_partitions(events), lambda event: event.release in (release, active)
    )

    of_release = np.array(found.release, np.int64)
    time = np.array(found.time, np.int64)
    takes_part = np.array([in_rollout(each, release, percent) for each in found.install], np.bool_)
    is_canary = takes_part & (of_release == release)
    start, look = start_and_look(time, is_canary)

    is_active = ~takes_part & (of_release == active)
    since = time >= start
    arms = arms_of(found, [is_canary & since, is_active & since])
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
