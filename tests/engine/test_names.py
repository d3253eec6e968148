"""Pseudonyms: they live as long as the state that they stand for, and no longer than the app wants."""

from __future__ import annotations

import hmac

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.contract.events import Decision, Loss, Outcome
from sanderling.users import NO_EVENTS, Users, next_check
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy

DAY_S = 86_400
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def opened(bundle, clock, **settings):
    settings = {"collector": NOWHERE, "pseudonym_days": 30, "may_upload": lambda: False} | settings
    return Engine.open(bundle, bundle.parent / "state", clock=clock, **settings)


def upload(engine):
    """Acknowledge all, and say that nothing is left, as the uploader does; return what was sent."""
    sent = stored(engine)
    engine._outbox.acknowledge([event.id for event in sent])
    engine._rest()
    return sent


def test_a_name_lives_as_long_as_its_state(bundle):
    """A user of whom only decisions were made, and one with a history, have the same names after a restart."""
    users = ("anna", "ben")
    with opened(bundle, FakeClock()) as engine:
        engine.observe("ben", "item-3")
        before = [engine.recommend(user).pseudonym for user in users]
    with opened(bundle, FakeClock()) as engine:
        assert [engine.recommend(user).pseudonym for user in users] == before
        assert len(set(before)) == 2


def test_a_slate_from_before_a_restart_is_rewarded(bundle):
    """An app that kept its slate may reward it in the next process, and the reward carries the decision's name."""
    with opened(bundle, FakeClock()) as engine:
        slate = engine.recommend("anna")
    with opened(bundle, FakeClock()) as engine:
        assert engine.reward(slate, slate[0], 1.0)
        decision, outcome = stored(engine)
        assert (decision.user, outcome.user) == (slate.pseudonym, slate.pseudonym)


def test_a_state_of_version_1_goes_on_under_its_own_name(bundle):
    """States of earlier versions had the key for a pseudonym: they keep it, so that the lab can go on rebuilding."""
    with Engine.open(bundle) as engine:
        scorer = engine._serving.scorer
    key = hmac.digest(b"s" * 32, b"anna", "sha256").hex()[:32]
    check = next_check(NO_EVENTS, "item-3", "view")
    old = (1, scorer.space, np.ones(len(scorer.state.start()), np.float32).tobytes(), check, 1, [("item-3", "view")])
    users = Users({key: msgspec.msgpack.encode(old)}.get, b"s" * 32, lambda size: b"r" * size)
    found = users.get("anna", scorer)
    assert (found.name, found.events, found.check) == (key, 1, check)
    assert users.get("ben", scorer).name == (b"r" * 16).hex()


def test_who_was_forgotten_is_a_stranger_even_where_the_disk_still_knows(bundle):
    """While the file could not be changed, what it holds of a forgotten user is not taken up again."""
    with Engine.open(bundle) as engine:
        scorer = engine._serving.scorer
    stored, entropy = dict[str, bytes](), FakeEntropy()
    users = Users(stored.get, b"s" * 32, entropy)
    known = users.observe("anna", "item-3", "view", scorer)
    stored[users.key("anna")] = known.dump()
    assert users.forget("anna") == (users.key("anna"), {users.key("anna"), known.name})
    stranger = users.get("anna", scorer)
    assert (stranger.events, stranger.name != known.name) == (0, True)
    assert users.forget("anna") == (users.key("anna"), {users.key("anna"), known.name, stranger.name})
    users.forgotten(users.key("anna"))
    assert users.forget("anna")[1] == {users.key("anna"), known.name}


def test_after_its_days_an_install_goes_by_another_name(bundle):
    """Install, pseudonyms, boot and clocks are others, states are new, and numbers begin with 1."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        stranger = engine.recommend("anna", k=20, greedy=True).items
        for at in range(5):
            engine.observe("anna", f"item-{at}")
        clock.advance(29 * DAY_S)
        slate = engine.recommend("anna")
        old = upload(engine)
        clock.advance(DAY_S)
        assert engine.recommend("anna").pseudonym == slate.pseudonym  # what waits is sent first, under its own name
        old += upload(engine)
        assert engine.recommend("anna", k=20, greedy=True).items == stranger
        assert engine.reward(slate, slate[0], 1.0).stored is False
        (new,) = stored(engine)
        assert (new.seq, new.clock.mono) == (1, 0)
        for event in old:
            names = {event.install, event.user, event.clock.boot}
            assert not names & {new.install, new.user, new.clock.boot}
    with opened(bundle, clock) as engine:
        assert engine.recommend("anna").pseudonym == new.user


def test_losses_do_not_join_the_names_either(bundle):
    """A loss that is declared after the renaming has another boot, and clocks that began with it."""
    clock, boots = FakeClock(), []
    with opened(bundle, clock) as engine:
        for _ in range(2):
            clock.advance(31 * DAY_S)
            engine.recommend("anna")
            engine._outbox.quarantine(stored(engine)[0].id, "too_large")
            (loss,) = upload(engine)
            boots.append(loss.clock)
    assert boots[0].boot != boots[1].boot
    assert boots[0].mono == boots[1].mono == 31 * DAY_S * 1000


def test_nothing_is_renamed_while_something_waits(bundle):
    """What was not acknowledged keeps the old name until it is, however old that is: nothing is lost for a name."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        slate = engine.recommend("anna")
        assert engine.reward(slate, slate[0], 1.0)
        clock.advance(90 * DAY_S)
        engine._rest()
        assert engine.recommend("anna").pseudonym == slate.pseudonym
        assert {type(event) for event in upload(engine)} == {Decision, Outcome}
        assert engine.recommend("anna").pseudonym != slate.pseudonym


def test_an_open_window_holds_a_name_up_for_its_own_length(bundle):
    """Rewards still join their decision after the days are over; who always has one waiting is renamed all the same,
    and what was seen by then counts as not clicked."""
    clock = FakeClock()
    with opened(bundle, clock, window_s=DAY_S) as engine:
        clock.advance(29.5 * DAY_S)
        slate = engine.recommend("anna")
        engine.seen(slate)
        clock.advance(0.6 * DAY_S)
        upload(engine)
        assert engine.reward(slate, slate[0], 1.0)
        clock.advance(0.8 * DAY_S)
        last = engine.recommend("anna")
        engine.seen(last)
        upload(engine)
        assert last.pseudonym == slate.pseudonym
        clock.advance(0.2 * DAY_S)
        upload(engine)
        told = [event for event in upload(engine) if isinstance(event, Outcome)]
        assert [(event.decision, event.value) for event in told] == [(last.decision, -1.0)] * len(last)
        assert engine.recommend("anna").pseudonym != slate.pseudonym


@pytest.mark.parametrize("days", [None, 30])
def test_the_lab_may_ask_for_another_name(bundle, days):
    """Asked, an install takes another name once, when nothing waits any more, however young it is."""
    clock = FakeClock()
    with opened(bundle, clock, pseudonym_days=days) as engine:
        before = engine.recommend("anna")
        engine._people.asked_for_another()
        engine._rest()
        assert engine.recommend("anna").pseudonym == before.pseudonym
        upload(engine)
        after = engine.recommend("anna")
        upload(engine)
        assert after.pseudonym != before.pseudonym
        assert engine.recommend("anna").pseudonym == after.pseudonym


def test_an_open_window_holds_up_who_was_asked(bundle):
    """Rewards that are waited for still join their decision; after a window's length they are told early."""
    clock = FakeClock()
    with opened(bundle, clock, pseudonym_days=None, window_s=DAY_S) as engine:
        slate = engine.recommend("anna")
        engine.seen(slate)
        engine._people.asked_for_another()
        clock.advance(0.9 * DAY_S)
        upload(engine)
        assert engine.reward(slate, slate[0], 1.0)
        engine.seen(engine.recommend("anna"))
        clock.advance(0.2 * DAY_S)
        for _ in range(3):
            upload(engine)
        assert engine.recommend("anna").pseudonym != slate.pseudonym


def test_a_device_without_a_clock_keeps_its_name_over_many_starts(bundle):
    """A wall clock that is in 1970 at each start, and put right later, neither shortens nor lengthens a name's life."""
    names = []
    for day in (0, 10, 20, 29, 31):
        clock = FakeClock(wall_ms=1000)
        with opened(bundle, clock) as engine:
            engine.recommend("anna")
            engine._rest()
            clock.wall = FakeClock().wall + day * DAY_S * 1000
            upload(engine)
            names.append(engine.recommend("anna").pseudonym)
            upload(engine)
    assert len(set(names[:4])) == 1
    assert names[4] != names[3]


def test_a_clock_that_is_put_back_while_running_begins_the_days_anew(bundle):
    """A process that began in the future renames when so many days have passed by the clock that was put right."""
    clock = FakeClock(wall_ms=4_000_000_000_000)
    with opened(bundle, clock) as engine:
        before = engine.recommend("anna").pseudonym
        clock.wall = FakeClock().wall
        upload(engine)
        clock.advance(31 * DAY_S)
        upload(engine)
        assert engine.recommend("anna").pseudonym != before


def test_losses_are_declared_before_a_name_is_given_up(bundle):
    """What was dropped under the old name is told under the old name, and the new one begins without a loss."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        before = engine.recommend("anna")
        clock.advance(31 * DAY_S)
        stored(engine)
        engine._outbox._drop("queue_full", [])
        engine._outbox._drops["queue_full", "decision"] += 1
        sent = upload(engine) + upload(engine)
        (loss,) = [event for event in sent if isinstance(event, Loss)]
        assert (loss.reason, loss.decisions, loss.clock.boot) == ("queue_full", 1, sent[0].clock.boot)
        upload(engine)
        assert engine.recommend("anna").pseudonym != before.pseudonym
        assert [type(event) for event in stored(engine)] == [Decision]


def test_a_clock_that_goes_back_does_not_keep_a_name_for_ever(bundle):
    """A name that began in the future by today's clock is counted from today."""
    with opened(bundle, FakeClock(wall_ms=4_000_000_000_000)) as engine:
        before = engine.recommend("anna").pseudonym
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        clock.advance(31 * DAY_S)
        upload(engine)
        assert engine.recommend("anna").pseudonym != before


@pytest.mark.parametrize("days", [0, -1, float("nan"), "30", True, 10**6])
def test_absurd_lives_are_refused(bundle, days):
    """A life that makes no sense is named."""
    with pytest.raises(ValueError, match="pseudonym_days"):
        opened(bundle, FakeClock(), pseudonym_days=days)


def test_a_life_needs_somebody_who_is_told(bundle):
    """Without a state folder or a collector there are no names that could be given up."""
    with pytest.raises(ValueError, match="collector"):
        opened(bundle, FakeClock(), collector=None)
