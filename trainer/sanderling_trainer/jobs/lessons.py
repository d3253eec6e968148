"""Which events teach tonight and which decisions judge, so that each event teaches once.

The judges are all new events of some installs: a third of those with new decisions, or as many as
have `MAX_JUDGING` together, chosen by a hash of install and release. They teach the night after,
unless they judge again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.event_log.watermark import Watermark
from sanderling_trainer.jobs.night_log import NightLog
from sanderling_trainer.policy.checkpoint import CheckpointMetadata

Ints = NDArray[np.int64]

MAX_JUDGING = 100_000
"""Decisions that judge, about: more would take memory, and hardly narrow the verdict."""


@dataclass(frozen=True)
class Lessons:
    """What teaches, what is new in it, and what judges."""

    histories: list[History]
    """Those of the log, cut before events that may not teach; in the same order."""

    new_parts: list[History]
    """The parts of `histories` that have not taught before, for popularity."""

    teaching: Decisions
    """Decisions that teach, new ones and those of the last days."""

    is_new: NDArray[np.bool_]
    """Which of `teaching` have not taught before."""

    judging: Decisions
    """New decisions of the judges; their histories are those of the log."""

    watermark: Watermark
    """Up to which events the next checkpoint will have learned."""

    judges: int
    """How many installs judge."""

    waiting: int
    """How many installs have gaps or are cloned, so that no new event of theirs teaches."""

    known: int
    """How many new events are from before the end of the log that a new policy was trained on, and
    so count for no popularity: they may be in that log."""

    @property
    def new(self) -> int:
        """How many new decisions there are."""
        return int(self.is_new.sum()) + len(self.judging)

    def time_range(self) -> tuple[int, int] | None:
        """Return the first and the last second of what is new and teaches; None for nothing.

        The earliest 1 % are ignored: a few wrong clocks must not decide when a log begins. They
        cannot decide when it ends, since no event is later than its receipt.
        """
        parts = [part.times[part.n_replayed :] for part in self.new_parts]
        times = np.concatenate([*parts, self.teaching.time[self.is_new]])
        if not len(times):
            return None
        return int(np.quantile(times, 0.01, method="lower")), int(times.max())


def lessons_of(
    log: NightLog, active: CheckpointMetadata, watermark: Watermark, days: float
) -> Lessons:
    """Decide what teaches and what judges for the release after the active one.

    watermark: the active checkpoint's.
    days: how old a decision may be that has taught before and teaches again.
    """
    decisions = log.examples.decisions
    histories = log.examples.histories
    installs = log.examples.installs

    taught_of = np.array([watermark.of(install) for install in installs], np.int64)
    last_of = np.array([log.last_seq.get(install, 0) for install in installs], np.int64)
    # An install that waits keeps its watermark.
    last_of = np.maximum(last_of, taught_of)

    is_new = decisions.seq > taught_of[decisions.group]
    new_of = np.bincount(decisions.group[is_new], minlength=len(installs))
    judges = judges_of(installs, new_of, active.release + 1)
    is_judge = np.zeros(len(installs), np.bool_)
    is_judge[judges] = True
    until_of = np.where(is_judge, taught_of, last_of)

    judging = is_new & is_judge[decisions.group]
    recent = decisions.time >= decisions.time.max(initial=0) - days * DAY
    teaching = (is_new | recent) & ~is_judge[decisions.group]

    install_of = np.array([history.install for history in histories], np.int64)
    ends = _cuts(histories, until_of[install_of])
    starts = _cuts(histories, taught_of[install_of])
    new_parts = [
        history.part(*cuts) for history, *cuts in zip(histories, starts, ends, strict=True)
    ]
    # A new policy's log may be the app's own, which has what users of devices did too.
    logged_until = 0 if active.devices_from else active.log_to
    later_parts = [_after(part, logged_until) for part in new_parts]
    return Lessons(
        [history.part(0, end) for history, end in zip(histories, ends, strict=True)],
        later_parts,
        decisions.take(teaching),
        is_new[teaching],
        decisions.take(judging),
        watermark.raised(dict(zip(installs, until_of.tolist(), strict=True))),
        len(judges),
        len({*log.summary.incomplete, *log.summary.cloned}),
        sum(map(len, new_parts)) - sum(map(len, later_parts)),
    )


def judges_of(installs: Sequence[str], new_of: Ints, release: int) -> Ints:
    """Return some of the installs with new decisions, of which `new_of` says how many each has.

    A third, or as many as have `MAX_JUDGING` decisions; at least one, and none of fewer than two.
    """

    def draw(number: int) -> bytes:
        return sha256(f"{release}/{installs[number]}".encode()).digest()

    candidates = np.flatnonzero(new_of)
    if len(candidates) < 2:
        return np.empty(0, np.int64)
    ordered = np.array(sorted(candidates.tolist(), key=draw))
    within = int(np.searchsorted(np.cumsum(new_of[ordered]), MAX_JUDGING, side="right"))
    return ordered[: max(1, min(within, len(ordered) // 3))]


def _after(history: History, second: int) -> History:
    """Return a history from the first event on that is later than a second."""
    is_later = history.times > second
    return history.part(int(is_later.argmax()) if is_later.any() else len(history), len(history))


def _cuts(histories: Sequence[History], until: Ints) -> Ints:
    """Return how many leading events of each history have numbers up to `until` [h]."""
    cuts = [
        np.searchsorted(history.seqs, last, side="right")
        for history, last in zip(histories, until, strict=True)
    ]
    return np.array(cuts, np.int64)
