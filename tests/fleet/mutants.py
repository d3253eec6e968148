"""Devices and labs that are broken on purpose: the courses must find each of them (P4)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from sanderling import Engine
from sanderling.clock import Entropy
from sanderling.contract import events as wire
from sanderling.transport import Response
from sanderling_trainer.data.segments import EventLog, _log, gather
from sanderling_trainer.data.store import open_store
from tests.fleet.lab import FlakyStore
from tests.fleet.network import Line
from tests.fleet.run import Mutant


class DeleteFirst(Line):
    """The uploader that deletes a batch before it has the answer."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        self.engine._outbox.acknowledge([wire.decode(line).id for line in wire.unpack(body)])
        return super().post(body, headers)


def count_again(store: str) -> EventLog:
    """The lab that counts what comes again as something new."""
    found = []
    for seen in gather(open_store(store)):
        for time in range(seen.times):
            id = seen.event.id if time == 0 else f"{time:08x}{seen.event.id[8:]}"
            found.append(replace(seen, event=msgspec.structs.replace(seen.event, id=id), times=1))
    return _log(found)


def same_again(rng: random.Random) -> Entropy:
    """The device that draws the same ids after each restart."""
    return random.Random(0).randbytes


def decide_late(engine: Engine) -> None:
    """The engine that writes a decision only after the reward that comes next."""
    outbox = engine._outbox
    if outbox is None:
        return
    put, begin, held = outbox.put, outbox.begin, []

    def late(*job):
        held.append(job)

    def first(*job):
        wait = begin(*job)
        wait(0)
        for earlier in held:
            put(*earlier)
        held.clear()
        return wait

    outbox.put, outbox.begin = late, first


def queue_only(engine: Engine) -> None:
    """The engine that promises what is only queued."""
    if engine._outbox is not None:
        begin = engine._outbox.begin
        engine._outbox.begin = lambda *job: (begin(*job), lambda timeout_s: None)[1]


def unflushed(engine: Engine) -> None:
    """The outbox that writes rewards and does not flush them."""
    if engine._outbox is not None:
        database = engine._outbox._store.database
        honest = database.transaction
        database.transaction = lambda durable: honest(False)


class Forgetful(FlakyStore):
    """The lab that answers for segments which it never wrote, now and then."""

    def put(self, name: str, data: bytes) -> None:
        if name.startswith("segments") and int(name[-20:-18], 16) % 4 == 0:
            return
        super().put(name, data)


MUTANTS = {
    "delete first": Mutant(device={"line": DeleteFirst}),
    "count again": Mutant(read=count_again),
    "same ids again": Mutant(device={"entropy": same_again}),
    "decide late": Mutant(device={"spoil": decide_late}),
    "queue only": Mutant(device={"spoil": queue_only}),
    "unflushed": Mutant(device={"spoil": unflushed}),
    "answer first": Mutant(store=Forgetful),
}
