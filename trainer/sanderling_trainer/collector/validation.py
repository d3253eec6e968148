"""From the bytes of a batch to one verdict per event. Refuses to know requests and stores.

Each check runs before the next costs anything: the frame's header, unpacking under a cap, depth and schema, semantics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import msgspec
import zstandard

from sanderling.errors import BatchSizeError, EventError
from sanderling.events import codec, semantics
from sanderling.events import schema as wire
from sanderling.events.schema import Verdict
from sanderling_trainer.collector.limits import RefusalError
from sanderling_trainer.collector.recent_ids import RecentIds
from sanderling_trainer.event_log.segment_format import letter, line

MAX_REASON = 500


@dataclass
class Batch:
    """One request after its checks: lines to store, dead letters, and the verdicts to give once both are durable."""

    verdicts: list[Verdict] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    bodies: dict[str, int] = field(default_factory=dict)
    installs: Counter[str] = field(default_factory=Counter)

    def size(self) -> int:
        """Return the bytes to be stored."""
        return sum(map(len, self.lines)) + sum(map(len, self.dead))


class _Named(msgspec.Struct):
    id: str
    install: str = ""


class _Read(NamedTuple):
    """A line, what it names, and what is wrong with it."""

    data: bytes
    id: str
    install: str
    fault: str | None


def judge(body: bytes, now: int, sent_at: int | None, memory: RecentIds) -> Batch:
    """Check a batch received at `now`; raise `RefusalError` when it is none, or has a line that names no id."""
    cap = min(wire.MAX_BATCH_BYTES, _declared(body))
    try:
        rows = list(codec.unpack(body, cap))
    except BatchSizeError as error:
        raise RefusalError(413, str(error)) from error
    except EventError as error:
        raise RefusalError(400, str(error)) from error
    if len(rows) > wire.MAX_BATCH_EVENTS:
        raise RefusalError(
            413, f"expected at most {wire.MAX_BATCH_EVENTS} events, found {len(rows)}"
        )
    found = [_read(number, data) for number, data in enumerate(rows, 1)]
    known = memory.get(row.id for row in found if row.fault is None)
    batch = Batch()
    for row in found:
        _judge_one(batch, row, now, sent_at, known)
    return batch


def _declared(body: bytes) -> int:
    """Return the size that the frame's header declares, a huge one if it declares none; refuse too large a window.

    Capped at it, a frame that lies is refused.
    """
    try:
        header = zstandard.get_frame_parameters(body)
    except zstandard.ZstdError as error:
        raise RefusalError(
            400, f"expected a zstd frame, found {len(body)} bytes that are not: {error}"
        ) from error
    if header.window_size > wire.MAX_WINDOW_BYTES:
        raise RefusalError(
            413, f"expected a window of at most {wire.MAX_WINDOW_BYTES}, found {header.window_size}"
        )
    return header.content_size


def _read(number: int, data: bytes) -> _Read:
    """Read one line; one that names no id can get no verdict, so it refuses the batch."""
    try:
        event = codec.decode(data)
    except EventError as error:
        named = _named(data, number)
        return _Read(data, named.id[:64], named.install[:64], str(error))
    return _Read(data, event.id, event.install, semantics.semantic_fault(event))


def _judge_one(
    batch: Batch, row: _Read, now: int, sent_at: int | None, remembered: Mapping[str, int]
) -> None:
    """Give one event its verdict."""
    data, id, install, fault = row
    batch.installs[install] += 1
    body = crc32(data)
    known = batch.bodies.get(id, remembered.get(id))
    if fault is None and known is not None and known != body:
        fault = "conflict: another event has this id"
    if fault is not None:
        batch.dead.append(letter(data, now, fault))
        batch.verdicts.append(Verdict(id, "rejected", fault[:MAX_REASON]))
    elif known is not None:
        batch.verdicts.append(Verdict(id, "duplicate"))
    else:
        batch.bodies[id] = body
        batch.lines.append(line(data, now, sent_at))
        batch.verdicts.append(Verdict(id, "ok"))


def _named(data: bytes, number: int) -> _Named:
    try:
        return msgspec.json.decode(data[: wire.MAX_LINE], type=_Named)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(400, f"line {number}: expected an event with an id: {error}") from error
