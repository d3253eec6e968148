"""The engine as an app uses it: its public behaviour on a real bundle with a real outbox."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import BundleError, Engine, Receipt
from sanderling.events.schema import Decision, Observation, Outcome
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.runtime.clock import SystemClock
from tests.support.engines import active_bundle_of, stored
from tests.support.fakes import FakeClock, FakeEntropy


@pytest.fixture
def engine(bundle, tmp_path):
    with Engine.open(
        bundle, tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()
    ) as opened:
        yield opened


def test_a_slate_has_distinct_items_in_slots(engine):
    """A slate holds k different items with titles, in slots 0 … k-1, each with positive chances."""
    slate = engine.recommend("anna", k=10)
    assert len(slate) == len({item.id for item in slate}) == 10
    assert [item.slot for item in slate] == list(range(10))
    assert all(item.title and 0 < item.propensity <= 1 and 0 < item.marginal <= 1 for item in slate)
    assert slate[0].attributes["price"] >= 10


def test_greedy_slates_are_in_order_of_score(engine):
    """Without exploration scores fall along the slate, and nothing is explored."""
    slate = engine.recommend("anna", k=20, greedy=True)
    scores = [item.score for item in slate]
    assert scores == sorted(scores, reverse=True)
    assert [item.rank for item in slate] == list(range(20))
    assert all(item.propensity == 1.0 for item in slate)


def test_excluded_items_are_not_shown_and_unknown_ones_are_ignored(engine):
    """Exclusion holds under exploration too; when all items are excluded the slate is empty."""
    seen = [f"item-{row}" for row in range(40)]
    for _ in range(50):
        assert not {
            item.id for item in engine.recommend("anna", exclude=[*seen, "nobody knows"])
        } & set(seen)
    assert len(engine.recommend("anna", k=20, exclude=seen)) == 10
    assert len(engine.recommend("anna", exclude=[f"item-{row}" for row in range(50)])) == 0


def test_a_decision_event_matches_the_slate(engine):
    """The event carries items, ranks, propensities, pool, and the checksum of the state at that
    time."""
    engine.observe("anna", "item-3", "click")
    slate = engine.recommend("anna", k=5)
    (decision,) = [event for event in stored(engine) if isinstance(event, Decision)]
    assert decision.id == slate.decision
    assert [(s.item, s.rank, s.conditional, s.marginal) for s in decision.slate] == [
        (i.id, i.rank, i.propensity, i.marginal) for i in slate
    ]
    assert (decision.pool, decision.eligible, decision.epsilon, decision.state_events) == (
        20,
        50,
        0.1,
        1,
    )
    assert decision.state_checksum == next_checksum(NO_EVENTS, "item-3", "click")


def test_behaviour_updates_the_state_at_once_and_survives_a_restart(bundle, tmp_path):
    """An observation changes the next slate, and a new process starts from the same state."""
    with Engine.open(bundle, tmp_path) as engine:
        before = [item.score for item in engine.recommend("anna", greedy=True)]
        for row in (3, 7, 11):
            engine.observe("anna", f"item-{row}", "purchase")
        after = [item.score for item in engine.recommend("anna", greedy=True)]
        assert after != before
    with Engine.open(bundle, tmp_path) as engine:
        assert [item.score for item in engine.recommend("anna", greedy=True)] == after


def test_a_click_updates_the_state_and_a_skip_does_not(engine):
    """A positive reward updates the user's state unless the app passes `observe=False`."""
    slate = engine.recommend("anna")
    engine.reward(slate, slate[0], -1.0)
    assert engine.reward(slate, slate[1], 1.0, observe=False) == Receipt(True)
    engine.recommend("anna")
    assert [e for e in stored(engine) if isinstance(e, Decision)][-1].state_events == 0
    engine.reward(slate, slate[1], 1.0)
    engine.recommend("anna")
    events = stored(engine)
    assert [e for e in events if isinstance(e, Decision)][-1].state_events == 1
    assert [(e.kind, e.value, e.updates_state) for e in events if isinstance(e, Outcome)] == [
        ("skip", -1.0, False),
        ("click", 1.0, False),
        ("click", 1.0, True),
    ]


def test_rewards_name_their_decision_and_slot(engine):
    """Each outcome carries the decision's id and the slot of the item; decisions come before their
    outcomes."""
    slate = engine.recommend("anna", k=3)
    engine.reward_all(slate, {slate[0]: -1.0, slate[2].id: 1.0})
    events = stored(engine)
    outcomes = [event for event in events if isinstance(event, Outcome)]
    assert [(o.decision, o.slot, o.value) for o in outcomes] == [
        (slate.decision, 0, -1.0),
        (slate.decision, 2, 1.0),
    ]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Decision)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.01, 2])
def test_rewards_out_of_range_are_refused(engine, value):
    """A reward outside [-1, 1] raises ValueError and stores nothing."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        engine.reward(slate, slate[0], value)
    assert not [event for event in stored(engine) if isinstance(event, Outcome)]


@pytest.mark.parametrize("value", [True, "1", None])
def test_rewards_of_a_wrong_type_are_refused(engine, value):
    """A bool, a string or None is no reward."""
    slate = engine.recommend("anna")
    with pytest.raises(TypeError, match="expected a number"):
        engine.reward(slate, slate[0], value)


def test_rewarding_an_item_that_was_not_shown_is_refused(engine):
    """Only items of the slate can be rewarded."""
    with pytest.raises(ValueError, match="slate"):
        engine.reward(engine.recommend("anna"), "nobody knows", 1.0)


def test_a_slate_of_another_install_is_not_rewarded(engine, bundle, tmp_path):
    """A reward for a slate of another device is refused with a reason, even for the same user
    name."""
    with Engine.open(bundle, tmp_path / "other") as other:
        slate = other.recommend("anna")
    receipt = engine.reward(slate, slate[0], 1.0)
    assert not receipt
    assert "not stored" in receipt.reason
    assert stored(engine) == []


def test_explain_replays_bit_for_bit(engine):
    """A decision is replayed exactly from its id, whatever happened since."""
    slates = [
        engine.recommend("anna", context=f"rainy evening {at}", exclude=["item-1"])
        for at in range(20)
    ]
    engine.observe("anna", "item-9", "click")
    for slate in slates:
        explained = engine.explain(slate.decision)
        assert explained.same
        assert explained.slate == slate.items
        assert len(explained.greedy) == 10
    with pytest.raises(KeyError):
        engine.explain("0" * 32)


@pytest.mark.parametrize("item", ["", 3, "x" * 513])
def test_removing_an_invalid_id_removes_nothing(engine, item):
    """A bad id raises ValueError, and nothing of the call is removed."""
    with pytest.raises(ValueError, match="item: id: expected a string"):
        engine.remove_items(["item-0", item])
    assert engine.recommend("anna", k=50)[49]


@pytest.mark.parametrize(
    "item", [{"id": "a"}, {"text": "a"}, {"id": "", "text": "a"}, {"id": 3, "text": "a"}]
)
def test_one_bad_item_rejects_the_whole_call(engine, item):
    """A bad item raises ValueError that names the field, and nothing of the call is added."""
    with pytest.raises(ValueError, match=r"item: (id|text)"):
        engine.upsert_items([{"id": "good", "text": "good"}, item])
    assert "good" not in {item.id for item in engine.recommend("anna", k=51)}


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=300) | st.sampled_from(["\ud800", "\0", "a" * 100_000, "🐦‍⬛" * 50]))
def test_recommend_takes_any_text(bundle, text):
    """Any user name, context and exclusion gives a slate of finite scores."""
    with Engine.open(bundle) as engine:
        slate = engine.recommend(text, k=3, context=text, exclude=[text])
        assert len(slate) == 3
        assert np.isfinite([item.score for item in slate]).all()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"user": 3}, TypeError),
        ({"k": "10"}, TypeError),
        ({"k": True}, TypeError),
        ({"k": 0}, ValueError),
        ({"k": 2**31}, ValueError),
        ({"context": b"x"}, TypeError),
    ],
)
def test_wrong_arguments_are_named(engine, arguments, error):
    """Arguments of a wrong type raise TypeError, impossible numbers ValueError, each naming the
    argument."""
    with pytest.raises(error, match=next(iter(arguments))):
        engine.recommend(**{"user": "anna", **arguments})


@pytest.mark.parametrize(
    "number", [10**400, -(10**5000), float("nan"), float("inf"), 1.5], ids="abcde"
)
def test_a_reward_of_any_size_is_named_in_its_error(engine, number):
    """A reward out of range is a ValueError that names it, however many digits it has."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match="value: expected a number"):
        engine.reward(slate, slate[0], number)


@pytest.mark.parametrize("value", [10**5000, "half \ud800", object()], ids="abc")
def test_an_attribute_that_json_cannot_hold_is_named(engine, value):
    """What JSON cannot hold is a ValueError that names the field, and nothing is added."""
    with pytest.raises(ValueError, match="item: 'colour': expected what JSON can hold"):
        engine.upsert_items(
            [{"id": "new", "text": "red shoe"}, {"id": "other", "text": "shoe", "colour": value}]
        )
    assert "new" not in {item.id for item in engine.recommend("anna", k=51)}


def test_without_a_state_folder_nothing_is_stored_and_rewards_say_so(bundle):
    """Without a state folder the engine recommends from memory and refuses rewards with a
    reason."""
    with Engine.open(bundle) as engine:
        engine.observe("anna", "item-1")
        slate = engine.recommend("anna")
        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt
        assert "without a state folder" in receipt.reason


def test_recommending_goes_on_when_the_state_folder_cannot_be_opened(bundle, tmp_path):
    """With a state folder that is a file only rewards fail."""
    (tmp_path / "state").write_text("not a folder")
    with Engine.open(bundle, tmp_path / "state") as engine:
        slate = engine.recommend("anna")
        assert len(slate) == 10
        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt.stored
        assert "not stored" in receipt.reason


def test_no_user_name_or_context_reaches_the_disk_or_the_wire(bundle, tmp_path):
    """User names and context texts are in no byte of the state folder; pseudonyms differ between
    installs."""
    with Engine.open(bundle, tmp_path / "a") as one, Engine.open(bundle, tmp_path / "b") as two:
        for engine in (one, two):
            engine.observe("canary-user-7f3a", "item-1")
            slate = engine.recommend("canary-user-7f3a", context="canary-context-91bc")
            engine.reward(slate, slate[0], 1.0)
        users = {event.user for engine in (one, two) for event in stored(engine)}
        assert len(users) == 2
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_context_leaves_the_device_only_when_shared(bundle, tmp_path):
    """The context vector is on the wire if and only if the app opened the engine with
    share_context."""
    for share in (False, True):
        with Engine.open(bundle, tmp_path / str(share), share_context=share) as engine:
            engine.recommend("anna", context="rainy evening")
            (decision,) = stored(engine)
            assert (decision.context is not None) == share


def test_threads_share_an_engine(engine):
    """With many threads every event has its own number and every state its right checksum."""

    def work(name):
        for at in range(5):
            slate = engine.recommend(name, k=4)
            engine.observe(name, f"item-{at}", "click")
            engine.reward(slate, slate[0], 1.0)

    threads = [threading.Thread(target=work, args=(f"user-{at % 2}",)) for at in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = stored(engine)
    assert [event.seq for event in events] == list(range(1, 64 * 5 * 3 + 1))
    for user in {event.user for event in events}:
        checks, check = [NO_EVENTS], NO_EVENTS
        mine = [event for event in events if event.user == user]
        for event in mine:
            if isinstance(event, Observation) or (
                isinstance(event, Outcome) and event.updates_state
            ):
                check = next_checksum(check, event.item, event.kind)
                checks.append(check)
        assert all(
            checks[e.state_events] == e.state_checksum for e in mine if isinstance(e, Decision)
        )


def test_the_same_clock_and_entropy_give_the_same_slates(bundle, tmp_path):
    """Clock and entropy are the only sources of randomness."""
    found = []
    for name in ("a", "b"):
        with Engine.open(
            bundle, tmp_path / name, clock=FakeClock(), entropy=FakeEntropy()
        ) as engine:
            found.append([engine.recommend(f"user-{at}").items for at in range(30)])
    assert found[0] == found[1]
    assert any(item.explored for slate in found[0] for item in slate)


def test_closing_twice_is_harmless_and_rewards_then_fail_clearly(bundle, tmp_path):
    """After `close`, `recommend` still answers and the receipt of a reward says why it is not
    stored."""
    engine = Engine.open(bundle, tmp_path)
    slate = engine.recommend("anna")
    engine.close()
    engine.close()
    receipt = engine.reward(slate, slate[0], 1.0)
    assert (receipt.stored, "closed" in receipt.reason) == (False, True)
    assert engine.recommend("anna")


def test_a_missing_bundle_says_what_was_expected(tmp_path):
    """Opening a folder without a bundle raises BundleError that names the manifest and the
    folder."""
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Engine.open(tmp_path)


def test_recommending_goes_on_while_items_are_being_added(engine):
    """During an upsert or update requests are served by the old scorer."""
    found = []
    with active_bundle_of(engine).swap_lock:
        asking = threading.Thread(
            target=lambda: found.append(engine.recommend("anna")), daemon=True
        )
        asking.start()
        asking.join(10)
    assert len(found) == 1


def test_nothing_is_uploaded_while_the_app_forbids_it(bundle, tmp_path):
    """While `may_upload` returns False events stay stored and no connection is tried."""
    asked = []
    url = "http://127.0.0.1:9/v1"
    with Engine.open(
        bundle, tmp_path, collector=url, may_upload=lambda: bool(asked.append(1))
    ) as engine:
        engine.recommend("anna")
        assert not engine.flush(0.5)
        assert engine.counters()["upload"].attempts == 0
        assert len(stored(engine)) == 1
    assert asked


@pytest.mark.parametrize("name", ["\ud800", "item-\udfff", "", "x" * 513])
def test_text_that_no_event_can_hold_is_rejected(engine, name):
    """An item id or kind that no event can hold raises ValueError and changes nothing."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match="item: expected"):
        engine.observe("anna", name)
    with pytest.raises(ValueError, match="kind: expected"):
        engine.observe("anna", "item-1", name)
    with pytest.raises(ValueError, match="kind: expected"):
        engine.reward(slate, slate[0], 1.0, name)
    engine.observe("anna", "item-1")
    assert engine.reward(slate, slate[0], 1.0)
    assert [type(event) for event in stored(engine)] == [Decision, Observation, Outcome]


def test_the_engine_works_with_an_unset_clock(bundle, tmp_path):
    """An engine opens, recommends, closes reward windows and reopens with a clock that starts in
    1970."""
    clock = FakeClock(wall_ms=0)
    for _ in range(2):
        with Engine.open(
            bundle, tmp_path / "state", clock=clock, entropy=FakeEntropy(), window_s=60.0
        ) as engine:
            slate = engine.recommend("anna", k=3)
            engine.seen(slate)
            assert engine.reward(slate, slate[0], 1.0)
            clock.advance(61)
            assert len(slate) == 3


def test_a_system_clock_before_1970_shows_0(monkeypatch):
    """Ids and events never hold a negative time."""
    monkeypatch.setattr("time.time_ns", lambda: -1)
    assert SystemClock().wall_ms() == 0
