"""Pseudonyms live as long as the state they stand for, and rotate with the install's identity."""

from __future__ import annotations

import pytest

from sanderling import Engine
from sanderling.events.schema import Decision, Loss, Outcome
from sanderling.outbox import write_queue
from sanderling.users.reward_windows import MAX_CLOSED_AT_ONCE
from sanderling.users.user_states import UserStates
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, run_on_empty, scorer_of, stored
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
    """Acknowledge everything as the uploader does, and return the events."""
    sent = stored(engine)
    outbox_of(engine).acknowledge([event.id for event in sent])
    run_on_empty(engine)
    return sent


def test_a_pseudonym_survives_a_restart(bundle):
    """Users with and without a history keep their pseudonyms after a restart."""
    users = ("anna", "ben")
    with opened(bundle, FakeClock()) as engine:
        engine.observe("ben", "item-3")
        before = [engine.recommend(user).pseudonym for user in users]
    with opened(bundle, FakeClock()) as engine:
        assert [engine.recommend(user).pseudonym for user in users] == before
        assert len(set(before)) == 2


def test_a_slate_can_be_rewarded_after_a_restart(bundle):
    """A slate of an earlier process can be rewarded, under the pseudonym of its decision."""
    with opened(bundle, FakeClock()) as engine:
        slate = engine.recommend("anna")
    with opened(bundle, FakeClock()) as engine:
        assert engine.reward(slate, slate[0], 1.0)
        decision, outcome = stored(engine)
        assert (decision.user, outcome.user) == (slate.pseudonym, slate.pseudonym)


def test_a_forgotten_user_is_new_even_while_the_disk_still_has_the_state(bundle):
    """Until the file is changed, what it still holds of a forgotten user is ignored."""
    with Engine.open(bundle) as engine:
        scorer = scorer_of(engine)
    stored, entropy = dict[str, bytes](), FakeEntropy()
    users = UserStates(stored.get, b"s" * 32, entropy)
    known = users.observe("anna", "item-3", "view", scorer)
    stored[users.key("anna")] = known.dump()
    assert users.forget("anna") == (users.key("anna"), {known.pseudonym})
    new_user = users.get("anna", scorer)
    assert (new_user.events, new_user.pseudonym != known.pseudonym) == (0, True)
    assert users.forget("anna") == (users.key("anna"), {known.pseudonym, new_user.pseudonym})
    users.confirm_forgotten(users.key("anna"))
    assert users.forget("anna")[1] == {known.pseudonym}


def test_after_its_days_an_install_has_a_new_identity(bundle):
    """Install, pseudonyms and boot are new, states are empty, and clocks and numbers start
    again."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        first_slate = engine.recommend("anna", k=20, greedy=True).items
        for at in range(5):
            engine.observe("anna", f"item-{at}")
        clock.advance(29 * DAY_S)
        slate = engine.recommend("anna")
        old = upload(engine)
        clock.advance(DAY_S)
        assert (
            engine.recommend("anna").pseudonym == slate.pseudonym
        )  # what waits is sent first, under its own name
        old += upload(engine)
        assert engine.recommend("anna", k=20, greedy=True).items == first_slate
        assert engine.reward(slate, slate[0], 1.0).stored is False
        (new,) = stored(engine)
        assert (new.seq, new.clock.mono) == (1, 0)
        for event in old:
            names = {event.install, event.user, event.clock.boot}
            assert not names & {new.install, new.user, new.clock.boot}
    with opened(bundle, clock) as engine:
        assert engine.recommend("anna").pseudonym == new.user


def test_losses_do_not_link_two_identities(bundle):
    """Losses before and after a rotation have different boots, and clocks that start with them."""
    clock = FakeClock()
    boots = []
    with opened(bundle, clock) as engine:
        for _ in range(2):
            clock.advance(31 * DAY_S)
            engine.recommend("anna")
            outbox_of(engine).reject(stored(engine)[0].id, "too_large")
            (loss,) = upload(engine)
            boots.append(loss.clock)
    assert boots[0].boot != boots[1].boot
    assert boots[0].mono == boots[1].mono == 31 * DAY_S * 1000


def test_no_rotation_while_events_wait(bundle):
    """Unacknowledged events are uploaded under the old identity first, however old that is."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        slate = engine.recommend("anna")
        assert engine.reward(slate, slate[0], 1.0)
        clock.advance(90 * DAY_S)
        run_on_empty(engine)
        assert engine.recommend("anna").pseudonym == slate.pseudonym
        assert {type(event) for event in upload(engine)} == {Decision, Outcome}
        assert engine.recommend("anna").pseudonym != slate.pseudonym


@pytest.mark.parametrize("days", [None, 30])
def test_open_windows_get_their_defaults_before_a_rotation(bundle, days):
    """A due rotation closes open windows with defaults; a reward until it happens still counts."""
    clock = FakeClock()
    with opened(bundle, clock, window_s=DAY_S, pseudonym_days=days) as engine:
        clock.advance(29.9 * DAY_S)
        slate = engine.recommend("anna")
        engine.seen(slate)
        if days is None:
            profiles_of(engine).rotation.request()
        clock.advance(0.2 * DAY_S)
        upload(engine)
        assert engine.reward(slate, slate[0], 1.0)

        outcomes = [event for event in upload(engine) if isinstance(event, Outcome)]
        assert [event.value for event in outcomes] == [-1.0] * len(slate) + [1.0]
        assert {(event.decision, event.user) for event in outcomes} == {
            (slate.decision, slate.pseudonym)
        }

        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt
        assert "new id" in receipt.reason
        assert engine.recommend("anna").pseudonym != slate.pseudonym
        assert [type(event) for event in stored(engine)] == [Decision]


def test_open_windows_do_not_put_a_rotation_off_for_ever(bundle):
    """Once a rotation is due, `seen` opens no window."""
    clock = FakeClock()
    with opened(bundle, clock, window_s=DAY_S) as engine:
        clock.advance(31 * DAY_S)
        first = engine.recommend("anna")
        engine.seen(first)
        upload(engine)
        second = engine.recommend("anna")
        engine.seen(second)
        assert second.pseudonym == first.pseudonym
        assert {event.decision for event in upload(engine) if isinstance(event, Outcome)} == {
            first.decision
        }
        assert engine.recommend("anna").pseudonym != first.pseudonym


def test_many_open_windows_all_get_their_defaults(bundle):
    """With more windows than are closed at once, every seen slot has its outcome before the
    rotation."""
    clock, outcomes = FakeClock(), []
    with opened(bundle, clock, window_s=DAY_S) as engine:
        clock.advance(31 * DAY_S)
        slates = [engine.recommend("anna", k=2) for _ in range(2 * MAX_CLOSED_AT_ONCE + 1)]
        for slate in slates:
            engine.seen(slate)
        before = outbox_of(engine).install
        while outbox_of(engine).install == before:
            outcomes += [event for event in upload(engine) if isinstance(event, Outcome)]
        assert sorted((event.decision, event.slot) for event in outcomes) == sorted(
            (slate.decision, item.slot) for slate in slates for item in slate
        )


@pytest.mark.parametrize("days", [None, 30])
def test_the_collector_can_request_a_rotation(bundle, days):
    """On request an install rotates once, when nothing waits, however young its identity is."""
    clock = FakeClock()
    with opened(bundle, clock, pseudonym_days=days) as engine:
        before = engine.recommend("anna")
        profiles_of(engine).rotation.request()
        run_on_empty(engine)
        assert engine.recommend("anna").pseudonym == before.pseudonym
        upload(engine)
        after = engine.recommend("anna")
        upload(engine)
        assert after.pseudonym != before.pseudonym
        assert engine.recommend("anna").pseudonym == after.pseudonym


def test_an_unset_clock_does_not_change_the_age_of_an_identity(bundle):
    """A clock that starts in 1970 each time and is set later neither shortens nor lengthens the
    age."""
    names = []
    for day in (0, 10, 20, 29, 31):
        clock = FakeClock(wall_ms=1000)
        with opened(bundle, clock) as engine:
            engine.recommend("anna")
            run_on_empty(engine)
            clock.wall = FakeClock().wall + day * DAY_S * 1000
            upload(engine)
            names.append(engine.recommend("anna").pseudonym)
            upload(engine)
    assert len(set(names[:4])) == 1
    assert names[4] != names[3]


def test_a_clock_set_back_while_running_restarts_the_age(bundle):
    """After a clock in the future is corrected, the days are counted from the correction."""
    clock = FakeClock(wall_ms=4_000_000_000_000)
    with opened(bundle, clock) as engine:
        before = engine.recommend("anna").pseudonym
        clock.wall = FakeClock().wall
        upload(engine)
        clock.advance(31 * DAY_S)
        upload(engine)
        assert engine.recommend("anna").pseudonym != before


def test_losses_are_declared_before_a_rotation(bundle, monkeypatch):
    """Losses of the old identity are declared under it, and the new one starts without a loss."""
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        before = engine.recommend("anna")
        clock.advance(31 * DAY_S)
        stored(engine)
        with monkeypatch.context() as stuck:
            stuck.setattr(write_queue, "MAX_QUEUED", 0)
            engine.recommend("anna")
        sent = upload(engine) + upload(engine)
        (loss,) = [event for event in sent if isinstance(event, Loss)]
        assert (loss.reason, loss.decisions, loss.clock.boot) == (
            "queue_full",
            1,
            sent[0].clock.boot,
        )
        upload(engine)
        assert engine.recommend("anna").pseudonym != before.pseudonym
        assert [type(event) for event in stored(engine)] == [Decision]


def test_a_clock_set_back_between_runs_does_not_stop_rotations(bundle):
    """The age of an identity that began in the future is counted from today."""
    with opened(bundle, FakeClock(wall_ms=4_000_000_000_000)) as engine:
        before = engine.recommend("anna").pseudonym
    clock = FakeClock()
    with opened(bundle, clock) as engine:
        clock.advance(31 * DAY_S)
        upload(engine)
        assert engine.recommend("anna").pseudonym != before


@pytest.mark.parametrize("days", [0, -1, float("nan"), 10**6])
def test_impossible_pseudonym_days_are_rejected(bundle, days):
    """A lifetime out of range raises ValueError that names the setting."""
    with pytest.raises(ValueError, match="pseudonym_days"):
        opened(bundle, FakeClock(), pseudonym_days=days)


def test_pseudonym_days_need_a_collector(bundle):
    """Without a collector no pseudonym leaves the device, so there is nothing to rotate."""
    with pytest.raises(ValueError, match="collector"):
        opened(bundle, FakeClock(), collector=None)
