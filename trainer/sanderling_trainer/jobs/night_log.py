"""What one night's retraining reads from the store, and what it keeps there of past events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sanderling.events.schema import Decision
from sanderling.runtime.clock import Clock, uuid7
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.daily_parquet import to_bytes
from sanderling_trainer.event_log.deduplication import PossibleTimes
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.history_table import KnownHistory, rows_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, ObjectStore, open_store
from sanderling_trainer.event_log.reader import EventLog, read_partitions
from sanderling_trainer.event_log.summary import LogSummary
from sanderling_trainer.event_log.tombstones import Tombstones
from sanderling_trainer.jobs.lease import exclusive_job


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers of examples stand for."""

    ids: Sequence[str]
    """Items of the catalog."""

    removed: frozenset[str]
    """Items that the catalog had before."""

    kinds: Sequence[str]
    """The policy's kinds of event."""

    text_dim: int
    """t, the width of texts' vectors."""

    context_features: int
    """C, how many features of contexts stand behind their texts' vectors."""


@dataclass(frozen=True)
class NightLog:
    """The events of a store, and the history that it keeps of earlier ones."""

    summary: LogSummary

    examples: Examples

    last_seq: dict[str, int]
    """The highest sequence number of each install that is neither incomplete nor cloned."""

    new_rows: pa.Table
    """What the history's files lack."""

    shown_removed: frozenset[str]
    """Items that the catalog lacks now and that a slate of the log shows."""


def read_night(events: str, vocabulary: Vocabulary, times: PossibleTimes) -> NightLog:
    """Read a store in partitions, together with its history.

    Raises `FileNotFoundError` where a folder is missing, `EventError` where a file is damaged.
    """
    check_events(events)
    known = KnownHistory.of(history_files.read(open_store(events, JOB_TIMEOUT)))
    summary = LogSummary()
    last_seq: dict[str, int] = {}
    new_rows = [history_files.SCHEMA.empty_table()]
    shown: set[str] = set()
    installs: set[str] = set()

    def examples(log: EventLog) -> Examples:
        widths = vocabulary.text_dim, vocabulary.context_features
        return examples_of(log, vocabulary.ids, vocabulary.kinds, *widths)

    def partitions() -> Iterator[Examples]:
        for log in read_partitions(events, times=times):
            summary.add(log)
            last_seq.update(log.last_seq)
            new_rows.append(rows_of(log, known.accounted))
            shown.update(_shown(log) & vocabulary.removed)
            installs.update(install for install, _ in log.events)
            yield examples(known.restored(log))
        for log in known.others(installs):
            yield examples(log)

    merged = merge_examples(partitions())
    return NightLog(summary, merged, last_seq, pa.concat_tables(new_rows), frozenset(shown))


def _shown(log: EventLog) -> set[str]:
    decisions = (
        event for events in log.events.values() for event in events if isinstance(event, Decision)
    )
    return {slot.item for decision in decisions for slot in decision.slate}


SHOWN_NAMES = 3

STORE_FOLDERS = frozenset(
    {"segments", "dead", "daily", "history", "monitor", "jobs", "tokens", "installs"}
    | {"erased", "rotated"}
)
"""What can be in a store (docs/EVENTS.md)."""


def check_events(events: str) -> None:
    """Raise `FileNotFoundError` where a local store is missing, or something else is there."""
    if "://" in events:
        return
    folder = Path(events)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "none"
    else:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        names.discard("lost+found")  # of a volume of its own
        if not names or names & STORE_FOLDERS:
            return
        found = f"one with {', '.join(sorted(names)[:SHOWN_NAMES])} in it"
    raise FileNotFoundError(
        f"{events}: expected the folder that `sanderling collect` writes to, found {found};"
        " check --events"
    )


def remember(store: ObjectStore, clock: Clock, rows: pa.Table) -> None:
    """Add rows to the history's files, without those of installs erased meanwhile.

    Raises `BusyError` when another job works on the store.
    """
    if not len(rows):
        return
    with exclusive_job(store, clock, "retrain") as lease:
        kept = history_files.without_erased(rows, Tombstones(store))
        name = f"{history_files.FOLDER}/{uuid7(clock.wall_ms())}{history_files.SUFFIX}"
        lease.create(name, to_bytes(kept))
