"""Validates a batch: from its lines to one verdict per event.

Cheap checks come first: the number of lines, depth and schema, semantics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import msgspec

from sanderling.errors import EventError
from sanderling.events import codec, semantics
from sanderling.events import schema as wire
from sanderling.events.schema import EventVerdict
from sanderling_trainer.collector.limits import RefusalError
from sanderling_trainer.collector.recent_ids import RecentIds
from sanderling_trainer.event_log.segment_format import encode_dead_letter, encode_line


@dataclass
class Batch:
    """A validated batch: what to store, and the verdicts to answer once it is durable."""

    verdicts: list[EventVerdict] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    """Lines of a segment, one for each event that is `ok`."""
    dead_letters: list[bytes] = field(default_factory=list)
    """One for each event that is `rejected`."""
    checksums: dict[str, int] = field(default_factory=dict)
    """CRC-32 of the bodies that are `ok`, by id."""
    installs: Counter[str] = field(default_factory=Counter)
    """Number of events of each install, whatever their verdict."""

    def size(self) -> int:
        """Return the bytes to be stored, uncompressed."""
        return sum(map(len, self.lines)) + sum(map(len, self.dead_letters))


class _Identity(msgspec.Struct):
    id: str
    install: str = ""


class _Line(NamedTuple):
    data: bytes
    id: str
    install: str
    fault: str | None
    """Why the event is rejected, or None."""


def validate_batch(
    rows: Sequence[bytes], now_ms: int, sent_at: int | None, recent: RecentIds
) -> Batch:
    """Return the batch of lines, received at `now_ms` and sent at `sent_at` by the device's clock.

    Both are wall ms since 1970. Raises `RefusalError`: 413 for too many lines, 400 for one without
    an id.
    """
    if len(rows) > wire.MAX_BATCH_EVENTS:
        reason = f"expected at most {wire.MAX_BATCH_EVENTS} events, found {len(rows)}"
        raise RefusalError(413, reason)

    lines = [_decode(number, data) for number, data in enumerate(rows, 1)]
    stored = recent.get(line.id for line in lines if line.fault is None)
    batch = Batch()
    for line in lines:
        _add(batch, line, now_ms, sent_at, stored)
    return batch


def _decode(number: int, data: bytes) -> _Line:
    try:
        event = codec.decode(data)
    except EventError as error:
        identity = _identity(number, data)
        return _Line(data, identity.id[:64], identity.install[:64], str(error))
    return _Line(data, event.id, event.install, semantics.semantic_fault(event))


def _identity(number: int, data: bytes) -> _Identity:
    """Return id and install of an invalid event; refuse the batch if there is no id to answer."""
    try:
        return msgspec.json.decode(data[: wire.MAX_LINE], type=_Identity)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(400, f"line {number}: expected an event with an id: {error}") from error


def _add(
    batch: Batch, line: _Line, now_ms: int, sent_at: int | None, stored: Mapping[str, int]
) -> None:
    """Add the verdict of one line to the batch, and what to store of it."""
    data, id, install, fault = line
    batch.installs[install] += 1
    checksum = crc32(data)
    known = batch.checksums.get(id, stored.get(id))
    if fault is None and known is not None and known != checksum:
        fault = "conflict: another event has this id"

    if fault is not None:
        batch.dead_letters.append(encode_dead_letter(data, now_ms, fault))
        batch.verdicts.append(EventVerdict(id, "rejected", fault[: wire.MAX_NAME]))
    elif known is not None:
        batch.verdicts.append(EventVerdict(id, "duplicate"))
    else:
        batch.checksums[id] = checksum
        batch.lines.append(encode_line(data, now_ms, sent_at))
        batch.verdicts.append(EventVerdict(id, "ok"))
