"""Pseudonyms: they live as long as the state that they stand for, and no longer than the app wants."""

from __future__ import annotations

import pytest

from sanderling import Engine
from sanderling.events.schema import Decision, Loss, Outcome
from sanderling.users.reward_windows import AT_ONCE
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
    """Acknowledge all, and say that nothing is left, as the uploader does; return what was sent."""
    sent = stored(engine)
    outbox_of(engine).acknowledge([event.id for event in sent])
    run_on_empty(engine)
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


def test_who_was_forgotten_is_a_stranger_even_where_the_disk_still_knows(bundle):
    """While the file could not be changed, what it holds of a forgotten user is not taken up again."""
    with Engine.open(bundle) as engine:
        scorer = scorer_of(engine)
    stored, entropy = dict[str, bytes](), FakeEntropy()
    users = UserStates(stored.get, b"s" * 32, entropy)
    known = users.observe("anna", "item-3", "view", scorer)
    stored[users.key("anna")] = known.dump()
    assert users.forget("anna") == (users.key("anna"), {known.name})
    stranger = users.get("anna", scorer)
    assert (stranger.events, stranger.name != known.name) == (0, True)
    assert users.forget("anna") == (users.key("anna"), {known.name, stranger.name})
    users.forgotten(users.key("anna"))
    assert users.forget("anna")[1] == {known.name}


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
        assert (
            engine.recommend("anna").pseudonym == slate.pseudonym
        )  # what waits is sent first, under its own name
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
            outbox_of(engine).quarantine(stored(engine)[0].id, "too_large")
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
        run_on_empty(engine)
        assert engine.recommend("anna").pseudonym == slate.pseudonym
        assert {type(event) for event in upload(engine)} == {Decision, Outcome}
        assert engine.recommend("anna").pseudonym != slate.pseudonym


@pytest.mark.parametrize("days", [None, 30])
def test_open_windows_get_their_defaults_before_a_name_ends(bundle, days):
    """What waits for a reward when a name is due to end counts as not clicked; a reward until then is a late one."""
    clock = FakeClock()
    with opened(bundle, clock, window_s=DAY_S, pseudonym_days=days) as engine:
        clock.advance(29.9 * DAY_S)
        slate = engine.recommend("anna")
        engine.seen(slate)
        if days is None:
            profiles_of(engine).request_rotation()
        clock.advance(0.2 * DAY_S)
        upload(engine)
        assert engine.reward(slate, slate[0], 1.0)

        told = [event for event in upload(engine) if isinstance(event, Outcome)]
        assert [event.value for event in told] == [-1.0] * len(slate) + [1.0]
        assert {(event.decision, event.user) for event in told} == {
            (slate.decision, slate.pseudonym)
        }
        assert told[-1].late is True

        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt
        assert "another name" in receipt.reason
        assert engine.recommend("anna").pseudonym != slate.pseudonym
        assert [type(event) for event in stored(engine)] == [Decision]


def test_who_always_has_a_reward_waiting_is_renamed_all_the_same(bundle):
    """Once a name is due to end, what is seen opens no window that would put the end off again."""
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


def test_no_default_is_lost_where_many_windows_are_open(bundle):
    """Of more open windows than are closed at once, each seen slot has its outcome before the name ends."""
    clock, told = FakeClock(), []
    with opened(bundle, clock, window_s=DAY_S) as engine:
        clock.advance(31 * DAY_S)
        slates = [engine.recommend("anna", k=2) for _ in range(2 * AT_ONCE + 1)]
        for slate in slates:
            engine.seen(slate)
        before = outbox_of(engine).install
        while outbox_of(engine).install == before:
            told += [event for event in upload(engine) if isinstance(event, Outcome)]
        assert sorted((event.decision, event.slot) for event in told) == sorted(
            (slate.decision, item.slot) for slate in slates for item in slate
        )


@pytest.mark.parametrize("days", [None, 30])
def test_the_lab_may_ask_for_another_name(bundle, days):
    """Asked, an install takes another name once, when nothing waits any more, however young it is."""
    clock = FakeClock()
    with opened(bundle, clock, pseudonym_days=days) as engine:
        before = engine.recommend("anna")
        profiles_of(engine).request_rotation()
        run_on_empty(engine)
        assert engine.recommend("anna").pseudonym == before.pseudonym
        upload(engine)
        after = engine.recommend("anna")
        upload(engine)
        assert after.pseudonym != before.pseudonym
        assert engine.recommend("anna").pseudonym == after.pseudonym


def test_a_device_without_a_clock_keeps_its_name_over_many_starts(bundle):
    """A wall clock that is in 1970 at each start, and put right later, neither shortens nor lengthens a name's life."""
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
        outbox_of(engine)._drop("queue_full", [])
        outbox_of(engine)._drops["queue_full", "decision"] += 1
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
