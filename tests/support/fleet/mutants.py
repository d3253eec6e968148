"""Devices and labs that are broken on purpose; the fleet test must detect each of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from sanderling import Engine
from sanderling.errors import UpdateError
from sanderling.events import codec
from sanderling.events.schema import Event, Outcome
from sanderling.ranking.scorer import Scorer
from sanderling.runtime.clock import Entropy
from sanderling.upload.transport import Response
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.event_log.reader import EventLog, build_log, read_events, read_segments
from tests.support.engines import active_bundle_of, outbox_of, profiles_of, scorer_of
from tests.support.fleet.editions import GIVEN
from tests.support.fleet.lab import FlakyStore
from tests.support.fleet.network import Line
from tests.support.fleet.run import Mutant


class DeleteFirst(Line):
    """An uploader that deletes a batch before the collector answers."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        outbox_of(self.engine).acknowledge([codec.decode(line).id for line in codec.unpack(body)])
        return super().post(body, headers)


class Credulous(Line):
    """An uploader that takes a proxy's error page for the collector's answer."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        answer = super().post(body, headers)
        paged = answer.body.startswith(b"<html>")
        return replace(answer, body=b'{"error":"expected better"}') if paged else answer


def count_again(store: str) -> EventLog:
    """A lab that counts duplicates as new events."""
    found = []
    for seen in read_events(open_store(store)):
        for time in range(seen.times):
            id = seen.event.id if time == 0 else f"{time:08x}{seen.event.id[8:]}"
            found.append(replace(seen, event=msgspec.structs.replace(seen.event, id=id), times=1))
    return build_log(found)


def same_again(rng: random.Random) -> Entropy:
    """A device that draws the same ids after each restart."""
    return random.Random(0).randbytes


def decide_late(engine: Engine) -> None:
    """An engine that writes a decision only after the next reward."""
    outbox = outbox_of(engine)
    if outbox is None:
        return
    put, submit, held = outbox.put, outbox.submit, []

    def late(*request):
        held.append(request)

    def first(*request):
        wait = submit(*request)
        wait(0)
        for earlier in held:
            put(*earlier)
        held.clear()
        return wait

    outbox.put, outbox.submit = late, first


def queue_only(engine: Engine) -> None:
    """An engine that acknowledges rewards that are only queued."""
    if outbox_of(engine) is not None:
        submit = outbox_of(engine).submit
        outbox_of(engine).submit = lambda *request: (submit(*request), lambda timeout_s: None)[1]


def unflushed(engine: Engine) -> None:
    """An outbox that writes rewards without flushing them."""
    if outbox_of(engine) is not None:
        store = outbox_of(engine)._store
        honest = store.transaction
        store.transaction = lambda durable: honest(False)


def mend_nothing(engine: Engine) -> None:
    """An engine that does not reset a state after an event of it was lost."""
    if outbox_of(engine) is not None:
        outbox_of(engine).clear_gap = lambda name: False


class Forgetful(FlakyStore):
    """A lab that sometimes acknowledges segments that it never wrote."""

    def put(self, name: str, data: bytes) -> None:
        if name.startswith("segments") and int(name[-20:-18], 16) % 4 == 0:
            return
        super().put(name, data)


def tell_truth(engine: Engine) -> None:
    """An engine that sends exact rewards and marks them as flipped."""
    events = profiles_of(engine)._event_factory
    if events._privacy is not None:
        honest = events.outcome
        events.outcome = lambda shown, value, *rest, **flags: msgspec.structs.replace(
            honest(shown, value, *rest, **flags), **_as_it_was(value)
        )


def _as_it_was(value: float) -> dict[str, Any]:
    return {"value": 1.0, "kind": "click"} if value > 0 else {"value": -1.0, "kind": "skip"}


def take_noise_for_truth(store: str) -> EventLog:
    """A lab that ignores `flip_probability`."""
    found = read_events(open_store(store))
    return build_log([replace(seen, event=_exact(seen.event)) for seen in found])


def _exact(event: Event) -> Event:
    return (
        msgspec.structs.replace(event, flip_probability=msgspec.UNSET)
        if isinstance(event, Outcome)
        else event
    )


def trust_clocks(store: str) -> EventLog:
    """A lab that does not correct the clocks of devices."""
    log = read_segments(store)
    events = [event for events in log.events.values() for event in events]
    return replace(log, time=log.time | {event.id: event.clock.wall for event in events})


def share_anyway(engine: Engine) -> None:
    """An engine that shares contexts against the app's setting."""
    profiles_of(engine)._event_factory._share_context = True


def keep_no_list(engine: Engine) -> None:
    """An engine that does not store added and removed items."""
    active_bundle_of(engine)._folder = None


def keep_old_items(engine: Engine) -> None:
    """An engine whose added items override those of every newer release."""
    active_bundle_of(engine)._make_scorer = lambda bundle: Scorer(bundle).with_overlay(
        scorer_of(engine).overlay.records
    )


def forget_swaps(engine: Engine) -> None:
    """An engine that serves a new release without storing that."""
    active_bundle_of(engine).slots.activate = lambda release: None


def tell_given(engine: Engine) -> None:
    """An engine whose events name the shipped release, whichever decided."""
    events = profiles_of(engine)._event_factory
    honest = events.decision
    events.decision = lambda *what: msgspec.structs.replace(honest(*what), release=GIVEN)


def confirm_early(engine: Engine) -> None:
    """An engine that confirms a release before it has served."""
    slots = active_bundle_of(engine).slots
    honest = slots.activate

    def early(release: int) -> None:
        with suppress(UpdateError):  # what was held for good too early now stands in the way
            honest(release)
            slots.confirm()

    slots.activate = early


MUTANTS = {
    "delete first": Mutant(device={"line": DeleteFirst}),
    "credulous": Mutant(device={"line": Credulous}),
    "count again": Mutant(read=count_again),
    "same ids again": Mutant(device={"entropy": same_again}),
    "decide late": Mutant(device={"spoil": decide_late}),
    "queue only": Mutant(device={"spoil": queue_only}),
    "unflushed": Mutant(device={"spoil": unflushed}),
    "mend nothing": Mutant(device={"spoil": mend_nothing}),
    "answer first": Mutant(store=Forgetful),
    "tell truth": Mutant(device={"spoil": tell_truth}),
    "take noise for truth": Mutant(read=take_noise_for_truth),
    "trust clocks": Mutant(read=trust_clocks),
    "share anyway": Mutant(device={"spoil": share_anyway}),
    "keep no list": Mutant(device={"spoil": keep_no_list}),
    "keep old items": Mutant(device={"spoil": keep_old_items}),
    "forget swaps": Mutant(device={"spoil": forget_swaps}),
    "tell given": Mutant(device={"spoil": tell_given}),
    "confirm early": Mutant(device={"spoil": confirm_early}),
}
