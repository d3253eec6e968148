"""Devices and servers that are broken on purpose; the fleet test must detect each of them."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

import msgspec

from sanderling import Engine
from sanderling.errors import UpdateError
from sanderling.events import codec
from sanderling.events.pending_decision import PendingDecision
from sanderling.events.schema import Event, Outcome
from sanderling.ranking import catalog_overlay
from sanderling.ranking.scorer import Scorer
from sanderling.runtime.clock import Entropy
from sanderling.upload.transport import Response
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.event_log.reader import EventLog, build_log, read_events, read_segments
from tests.support.engines import (
    active_bundle_of,
    event_factory_of,
    event_store_of,
    outbox_of,
    receipts_of,
)
from tests.support.fleet.network import Connection
from tests.support.fleet.releases import SHIPPED_RELEASE
from tests.support.fleet.run import Mutant
from tests.support.fleet.server import FaultyStore


class DeleteFirst(Connection):
    """An uploader that deletes a batch before the collector answers."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        outbox_of(self.engine).acknowledge([codec.decode(line).id for line in codec.unpack(body)])
        return super().post(body, headers)


def count_duplicates(store: str) -> EventLog:
    """A reader that counts duplicates as new events."""
    copies = []
    for received in read_events(open_store(store)):
        event = received.event
        for number in range(received.times):
            id = event.id if number == 0 else f"{number:08x}{event.id[8:]}"
            copies.append(replace(received, event=msgspec.structs.replace(event, id=id), times=1))
    return build_log(copies)


def repeat_ids(rng: random.Random) -> Entropy:
    """A device that draws the same ids after each restart."""
    return random.Random(0).randbytes


def decide_late(engine: Engine) -> None:
    """An engine that writes a decision only after the next reward."""
    outbox = outbox_of(engine)
    if outbox is None:
        return
    put, submit = outbox.put, outbox.submit
    held = []

    def put_later(*request):
        held.append(request)

    def submit_first(*request):
        done = submit(*request)
        outbox.work()
        for earlier in held:
            put(*earlier)
        held.clear()
        return done

    outbox.put, outbox.submit = put_later, submit_first


def acknowledge_queued(engine: Engine) -> None:
    """An engine that acknowledges rewards that are only queued."""
    outbox = outbox_of(engine)
    if outbox is None:
        return
    submit = outbox.submit

    def submit_and_forget(*request):
        submit(*request)
        done = Future()
        done.set_result(None)
        return done

    receipts_of(engine)._write = lambda: None

    outbox.submit = submit_and_forget


def skip_flush(engine: Engine) -> None:
    """An outbox that writes rewards without flushing them."""
    store = event_store_of(engine)
    if store is not None:
        transaction = store.transaction
        store.transaction = lambda durable: transaction(False)


def skip_state_resets(engine: Engine) -> None:
    """An engine that does not reset a state after an event of it was lost."""
    if outbox_of(engine) is not None:
        outbox_of(engine).clear_gap = lambda pseudonym: False


class LosingStore(FaultyStore):
    """A store that sometimes does not write a segment, without an error."""

    def put(self, name: str, data: bytes) -> None:
        if name.startswith("segments") and int(name[-20:-18], 16) % 4 == 0:
            return
        super().put(name, data)


def send_exact_rewards(engine: Engine) -> None:
    """An engine that sends exact rewards and marks them as randomized."""
    factory = event_factory_of(engine)
    if factory.is_exact:
        return
    outcome = factory.outcome

    def exact_outcome(shown, value, *rest, **flags):
        event = outcome(shown, value, *rest, **flags)
        if value > 0:
            return msgspec.structs.replace(event, value=1.0, kind="click")
        return msgspec.structs.replace(event, value=-1.0, kind="skip")

    factory.outcome = exact_outcome


def ignore_flip_probability(store: str) -> EventLog:
    """A reader that takes randomized rewards for exact ones."""
    received = read_events(open_store(store))
    return build_log([replace(one, event=_without_flips(one.event)) for one in received])


def _without_flips(event: Event) -> Event:
    if not isinstance(event, Outcome):
        return event
    return msgspec.structs.replace(event, flip_probability=msgspec.UNSET)


def trust_clocks(store: str) -> EventLog:
    """A reader that does not correct the clocks of devices."""
    log = read_segments(store)
    events = [event for events in log.events.values() for event in events]
    return replace(log, time=log.time | {event.id: event.clock.wall for event in events})


def _with_fields(pending: PendingDecision, **fields) -> PendingDecision:
    return replace(pending, build=lambda: msgspec.structs.replace(pending.event, **fields))


def share_contexts(engine: Engine) -> None:
    """An engine that shares contexts against the app's setting."""
    factory = event_factory_of(engine)
    decision = factory.decision

    def decision_with_context(record, state, context, adapted):
        pending = decision(record, state, context, adapted)
        if context is None:
            return pending
        return _with_fields(pending, context=base64.b64encode(context.tobytes()).decode())

    factory.decision = decision_with_context


def skip_storing_items(engine: Engine) -> None:
    """An engine that does not store added and removed items."""
    active = active_bundle_of(engine)
    update_overlay = active.update_overlay

    def change_in_memory(records):
        if not active.owns_folder:
            update_overlay(records)
        dated = catalog_overlay.dated_after(records, active.scorer.bundle)
        active._scorer = active.scorer.with_overlay(dated)

    active.update_overlay = change_in_memory


def keep_outdated_items(engine: Engine) -> None:
    """An engine whose added items override those of every newer release."""
    active = active_bundle_of(engine)
    update = active.update

    def update_with_old_items(fetch):
        records = active.scorer.overlay.records
        release = update(fetch)
        active._scorer = Scorer(active.scorer.bundle).with_overlay(records)
        return release

    active.update = update_with_old_items


def skip_storing_swaps(engine: Engine) -> None:
    """An engine that uses a new release without storing that."""
    active_bundle_of(engine).slots.activate = lambda release: None


def log_shipped_release(engine: Engine) -> None:
    """An engine whose events name the shipped release, whichever decided."""
    factory = event_factory_of(engine)
    decision = factory.decision
    factory.decision = lambda *arguments: _with_fields(
        decision(*arguments), release=SHIPPED_RELEASE
    )


def confirm_early(engine: Engine) -> None:
    """An engine that confirms a release before its first decision."""
    slots = active_bundle_of(engine).slots
    activate = slots.activate

    def activate_and_confirm(release: int) -> None:
        # A release that was confirmed too early can refuse the next one.
        with suppress(UpdateError):
            activate(release)
            slots.confirm()

    slots.activate = activate_and_confirm


MUTANTS = {
    "delete before the answer": Mutant(device={"connection": DeleteFirst}),
    "count duplicates": Mutant(read=count_duplicates),
    "repeat ids": Mutant(device={"entropy": repeat_ids}),
    "write decisions late": Mutant(device={"break_engine": decide_late}),
    "acknowledge queued rewards": Mutant(device={"break_engine": acknowledge_queued}),
    "skip flush": Mutant(device={"break_engine": skip_flush}),
    "skip state resets": Mutant(device={"break_engine": skip_state_resets}),
    "lose segments": Mutant(store=LosingStore),
    "send exact rewards": Mutant(device={"break_engine": send_exact_rewards}),
    "ignore flip probability": Mutant(read=ignore_flip_probability),
    "trust clocks": Mutant(read=trust_clocks),
    "share contexts": Mutant(device={"break_engine": share_contexts}),
    "skip storing items": Mutant(device={"break_engine": skip_storing_items}),
    "keep outdated items": Mutant(device={"break_engine": keep_outdated_items}),
    "skip storing swaps": Mutant(device={"break_engine": skip_storing_swaps}),
    "log the shipped release": Mutant(device={"break_engine": log_shipped_release}),
    "confirm early": Mutant(device={"break_engine": confirm_early}),
}
