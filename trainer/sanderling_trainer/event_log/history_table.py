"""The steps of user states, from a log to rows of the history's files and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanderling.events.schema import ClockReading, Event, Observation, Outcome, StateReset
from sanderling.events.semantics import type_of
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.history_files import OUTCOME, RESET, SCHEMA
from sanderling_trainer.event_log.reader import EventLog

# What the table does not keep, since no training needs it.
NO_BOOT = "0" * 32
NO_DECISION = "0" * 32

INSTALLS_AT_ONCE = 1000


def rows_of(log: EventLog, accounted: Mapping[str, int]) -> pa.Table:
    """Return the rows that a log adds to a table in which `accounted` is known.

    An install that is cloned or has gaps adds none: its rows wait until the gap closes.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def add(*cells: Any) -> None:
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)

    for (install, user), events in log.events.items():
        known = accounted.get(install, 0)
        if install not in log.last_seq:
            continue
        for event in events:
            if event.seq > known:
                time = log.time.get(event.id, event.clock.wall)
                for step, (item, kind) in enumerate(steps_of(event)):
                    add(install, user, event.seq, step, item, kind, time, type_of(event))

    for install, seq in log.last_seq.items():
        if seq > accounted.get(install, 0):
            add(install, None, seq, 0, None, None, 0, None)
    return pa.table(columns, SCHEMA)


def steps_of(event: Event) -> Iterable[tuple[str, str]]:
    """Return the items and kinds with which an event changes the state."""
    if isinstance(event, StateReset):
        return event.steps
    if isinstance(event, Observation) or (isinstance(event, Outcome) and event.updates_state):
        return [(event.item, event.kind)]
    return []


@dataclass(frozen=True)
class KnownHistory:
    """The steps of all installs in memory."""

    accounted: dict[str, int]
    """Up to which sequence number all events of each install are accounted for."""

    _steps: pa.Table
    """Rows with an item, by install, number and step."""

    _seqs: NDArray[np.int64]
    """The column `seq` of these rows."""

    _place_of: dict[str, tuple[int, int]]
    """The first row of each install, and the one behind its last."""

    @staticmethod
    def of(table: pa.Table) -> KnownHistory:
        """Return the history of a table that `history_files.read` returned."""
        by_number = [(name, "ascending") for name in ("install", "seq", "step")]
        steps = table.filter(table["item"].is_valid()).sort_by(by_number)
        encoded = steps["install"].combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        codes = encoded.indices.to_numpy()
        bounds = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(codes)]
        place_of = dict(zip(encoded.dictionary.to_pylist(), pairwise(bounds), strict=True))
        seqs = steps["seq"].to_numpy()
        return KnownHistory(history_files.accounted_in(table), steps, seqs, place_of)

    def restored(self, log: EventLog) -> EventLog:
        """Return a log with the steps whose events are not in it any more."""
        installs = {install for install, _ in log.events} | set(log.last_seq)
        return self._added(log, installs & self._place_of.keys())

    def others(self, installs: set[str]) -> Iterator[EventLog]:
        """Yield the steps of all installs but these, some installs at a time."""
        names = sorted(self._place_of.keys() - installs)
        for start in range(0, len(names), INSTALLS_AT_ONCE):
            yield self._added(EventLog(), set(names[start : start + INSTALLS_AT_ONCE]))

    def _added(self, log: EventLog, installs: set[str]) -> EventLog:
        present: dict[str, set[int]] = defaultdict(set)
        for (install, _), events in log.events.items():
            if install in installs:
                present[install].update(event.seq for event in events)

        added: dict[tuple[str, str], list[Event]] = defaultdict(list)
        time: dict[str, int] = {}
        for install in sorted(installs):
            # Mostly the log still has all of them.
            if not present[install].issuperset(
                self._seqs[slice(*self._place_of[install])].tolist()
            ):
                for event, at in self._events(install):
                    if event.seq not in present[install]:
                        added[install, event.user].append(event)
                        time[event.id] = at
        if not added:
            return log

        merged = {
            key: sorted([*log.events.get(key, []), *events], key=lambda event: event.seq)
            for key, events in added.items()
        }
        return replace(log, events={**log.events, **merged}, time={**log.time, **time})

    def _events(self, install: str) -> list[tuple[Observation | Outcome | StateReset, int]]:
        """Return an install's steps as events with their times in ms, each number once."""
        start, end = self._place_of[install]
        rows_of: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
        for row in self._steps.slice(start, end - start).to_pylist():
            rows_of[row["seq"]].setdefault(row["step"], row)

        return [
            (_event_of(install, seq, list(rows.values())), rows[0]["time"])
            for seq, rows in rows_of.items()
        ]


def _event_of(
    install: str, seq: int, rows: list[dict[str, Any]]
) -> Observation | Outcome | StateReset:
    first = rows[0]
    id = f"{install[:16]}{seq:016x}"
    common = (id, install, seq, first["user"], ClockReading(first["time"], 0, NO_BOOT))
    if first["source"] == RESET:
        return StateReset(*common, [(row["item"], row["kind"]) for row in rows])
    if first["source"] == OUTCOME:
        return Outcome(
            *common, NO_DECISION, 0, first["item"], first["kind"], value=0.0, updates_state=True
        )
    return Observation(*common, first["item"], first["kind"])
