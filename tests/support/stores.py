"""A store with the events of two installs, jobs that work on it, and a search for an id in all its
bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from sanderling.events import codec
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.daily_parquet import to_bytes
from sanderling_trainer.event_log.history_table import rows_of
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import EventLog, read_segments
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from tests.support.fakes import EventFactory, FakeClock

GONE, STAYS = "a1" * 16, "b2" * 16
DAY_S = 86_400
DAYS = 4


def contents(root: Path) -> Iterator[bytes]:
    """Yield every byte of a store: names, files as they are, and their contents decompressed."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        yield str(path).encode()
        yield data
        if path.suffix == ".zst":
            yield b"\n".join(segment_format.unpack(data))
        if path.suffix == ".parquet":
            table = pq.read_table(io.BytesIO(data))
            yield str(table.to_pydict()).encode() + str(table.schema.metadata).encode()


def holding(root: Path, install: str) -> list[int]:
    """Return the places in `contents` that have an install's id, in one of several encodings."""
    needles = [
        install.encode(),
        install.upper().encode(),
        bytes.fromhex(install),
        install.encode("utf-16-le"),
    ]
    needles.append(install.encode().replace(b"a", b"\\u0061"))
    return [
        place
        for place, content in enumerate(contents(root))
        if any(needle in content for needle in needles)
    ]


def put(store: LocalObjectStore, clock: FakeClock, *events: bytes) -> None:
    rows = [segment_format.encode_line(event, clock.wall_ms(), None) for event in events]
    store.put(segment_format.new_file_name("segments", clock), segment_format.pack(rows))


def filled(root: Path) -> LocalObjectStore:
    """A store with both installs in daily files, segments, dead letters and the history."""
    store, clock = LocalObjectStore(root), FakeClock()
    for day in range(3):
        gone, stays = EventFactory(GONE, 100 * day + 1), EventFactory(STAYS, 100 * day + 50)
        put(store, clock, *(codec.encode(gone.observation(seq=day * 3 + seq)) for seq in (1, 2, 3)))
        put(
            store,
            clock,
            codec.encode(gone.decision(seq=100 + day)),
            codec.encode(stays.observation(seq=day + 1)),
        )
        bad = [codec.encode(make.observation(seq=1)) + b"!" for make in (gone, stays)]
        store.put(
            segment_format.new_file_name("dead", clock),
            segment_format.pack(
                [segment_format.encode_dead_letter(event, clock.wall_ms(), "bad") for event in bad]
            ),
        )
        if day == 1:
            compact(store, clock)
        clock.advance(DAY_S)
    # The log has gaps, so that nothing of it would be remembered.
    log = replace(read_segments(str(root)), last_seq={GONE: 102, STAYS: 3})
    store.put("history/first.parquet", to_bytes(rows_of(log, {})))
    return store


def compacts(root: Path, clock: FakeClock) -> None:
    compact(LocalObjectStore(root), clock, max_bytes=1)


def erases(root: Path, clock: FakeClock) -> None:
    erase(LocalObjectStore(root), GONE, clock, clock.advance)


JOBS = {"compact": compacts, "erase": erases}


def late() -> FakeClock:
    clock = FakeClock()
    clock.advance(DAYS * DAY_S)
    return clock


def others(log: EventLog) -> dict:
    return {key: events for key, events in log.events.items() if key[0] == STAYS}


class HookedStore(LocalObjectStore):
    """Calls `before_change` before each change of a file."""

    def before_change(self) -> None:
        raise NotImplementedError

    def put(self, name: str, data: bytes) -> None:
        self.before_change()
        super().put(name, data)

    def create(self, name: str, data: bytes) -> None:
        self.before_change()
        super().create(name, data)

    def delete(self, name: str) -> None:
        self.before_change()
        super().delete(name)


class Interrupted(HookedStore):
    """Calls `act` before its n-th operation, reading included."""

    def __init__(self, root: Path, operation: int, act: Callable[[], object]) -> None:
        super().__init__(root)
        self.left = operation
        self.act = act

    def before_change(self) -> None:
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()

    def get(self, name: str) -> bytes:
        self._count()
        return super().get(name)

    def names(self, folder: str) -> list[str]:
        self._count()
        return super().names(folder)
