"""Pinned items: certain in their slots, the others a plain slate, and never against a rule."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from sanderling.exploration import pins, schemes
from sanderling.exploration.philox import uniforms
from tests.support.bundles import trying, write_bundle
from tests.support.engines import scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive import joint_pinned, probability, slates

ITEMS = 50
PLAN = Exploration("sequential", 0.5, pool=12, newcomers=0.5)
SCHEMES = ["sequential", "mixture", "softmax"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of 50 items, six of them newcomers."""
    folder = tmp_path_factory.mktemp("pins") / "bundle"
    write_bundle(folder, exploration=PLAN, newcomers=(3, 17, 18, 40, 44, 49))
    return folder


@pytest.fixture
def engine(bundle, tmp_path):
    """An engine on this bundle."""
    with Engine.open(bundle, tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()) as one:
        yield one


def decisions_of(engine) -> list[Decision]:
    return [event for event in stored(engine) if isinstance(event, Decision)]


def drawn(plan, k, scores, count, pinned, decision):
    """Return a slate with pinned slots, drawn with the randomness of a decision's id."""
    others = pins.plan_of_others(plan, pinned)
    slots = min(k - len(pinned), len(scores))
    blocks = schemes.n_uniforms(others, slots, len(scores), count)
    slate = schemes.draw(others, slots, scores, uniforms(f"{decision:032x}", blocks), count)
    return pins.interleave(slate, pinned, len(scores) + count)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(SCHEMES),
    st.integers(0, 3),
    st.sets(st.integers(0, 4), max_size=2),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    st.integers(0, 2**64),
)
def test_probabilities_equal_enumeration(
    scheme, free, pinned, pool, count, guarded, epsilon, decision
):
    """Over all slates with random pins, guarded slots and newcomers: conditionals multiply to the
    joint probability, marginals are sums of it, and pins have probability 1."""
    # Without newcomers there is no quota.
    share = 0.5 if count else 0.0
    plan = Exploration(scheme, epsilon, guarded=guarded, newcomers=share, temperature=0.7)
    k = max(free + len(pinned), *(slot + 1 for slot in pinned), 1)
    scores = np.array([1.5, 1.1, 1.1])[:pool]
    first_pin = pool + count
    length = min(k - len(pinned), pool) + len(pinned)
    # By the definition: each slot in front that is not pinned is guarded.
    of_others = msgspec.structs.replace(
        plan, guarded=sum(slot not in pinned for slot in range(guarded))
    )

    def joint_others(rest):
        return probability(of_others, rest, scores, count)

    exact = np.zeros((length, first_pin + len(pinned)))
    joint_of = {}
    for slate in slates(length, first_pin + len(pinned)):
        if sum(rank >= first_pin for rank in slate) == len(pinned):
            joint_of[slate] = joint_pinned(slate, pinned, first_pin, joint_others)
            exact[range(length), slate] += joint_of[slate]
    assert math.isclose(sum(joint_of.values()), 1.0, rel_tol=1e-12)

    for number in range(20):
        slate = drawn(plan, k, scores, count, sorted(pinned), decision + number)
        assert math.isclose(
            math.prod(slate.conditional), joint_of[tuple(slate.ranks)], rel_tol=1e-9
        )
        for slot, rank in enumerate(slate.ranks):
            marginal = slate.marginal[slot]
            if rank >= first_pin:
                assert (slate.conditional[slot], marginal, slate.explored[slot]) == (1.0, 1.0, 0)
            elif marginal is not None:
                assert math.isclose(marginal, exact[slot, rank], rel_tol=1e-9)
            else:
                assert scheme == "softmax"


@settings(deadline=None, max_examples=60)
@given(
    pinned=st.dictionaries(st.integers(0, 5), st.integers(0, ITEMS - 1), max_size=3),
    excluded=st.lists(st.integers(0, ITEMS - 1), max_size=ITEMS),
    caps=st.sampled_from([{}, {"price": 1}, {"kind": 1}]),
    scheme=st.sampled_from(SCHEMES),
    guarded=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_slates_with_pins_keep_every_rule(
    bundle, tmp_path_factory, pinned, excluded, caps, scheme, guarded, seed
):
    """With random pins, exclusions, caps, removed and added items: a pin stands in its slot unless
    a rule forbids it; the slate breaks no rule, is as long as it can be and replays bit for bit;
    its event is valid on the wire and comes back equal."""
    pinned = {slot: f"item-{row}" for slot, row in pinned.items()}
    excluded = {f"item-{row}" for row in excluded}
    if len(set(pinned.values())) < len(pinned):
        return
    plan = Exploration(scheme, 0.5, pool=12, newcomers=0.5, guarded=guarded, temperature=0.3)
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(folder, exploration=plan, newcomers=(3, 17, 18, 40, 44, 49))
    state = tmp_path_factory.mktemp("state")
    with Engine.open(folder, state, entropy=FakeEntropy(seed)) as engine:
        engine.remove_items(["item-1", "item-2"])
        engine.upsert_items([{"id": "item-4", "text": "coffee", "price": 14}])
        slate = engine.recommend("anna", 6, exclude=excluded, at_most=caps, pin=pinned)
        assert not slate or engine.explain(slate.decision).is_identical
        events = decisions_of(engine)

    ids = [item.id for item in slate]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & (excluded | {"item-1", "item-2"})
    for attribute, cap in caps.items():
        values = Counter(item.attributes.get(attribute) for item in slate)
        assert all(count <= cap for value, count in values.items() if value is not None)
    if not caps:
        removed = {"item-1", "item-2"}
        allowed = {slot: id for slot, id in pinned.items() if id not in excluded | removed}
        eligible = ITEMS - len(excluded | removed)
        assert len(slate) == min(6, eligible)
        others = len(slate) - len(allowed)
        places = {min(slot, others + i): allowed[slot] for i, slot in enumerate(sorted(allowed))}
        assert {item.slot: item.id for item in slate if item.pinned} == places
    for event in events:
        assert semantic_fault(event) is None
        assert codec.decode(codec.encode(event)) == event
        assert [slot.pinned is True for slot in event.slate] == [item.pinned for item in slate]


def test_the_other_slots_are_the_slate_without_the_pinned_items(engine):
    """Greedy: around the pins stands the slate of a user whose app excludes the pinned items."""
    pin = {1: "item-30", 3: "item-31"}
    slate = engine.recommend("anna", 6, pin=pin, greedy=True)
    plain = engine.recommend("anna", 4, exclude=pin.values(), greedy=True)
    assert [item.id for item in slate if not item.pinned] == [item.id for item in plain]
    assert [(item.slot, item.id) for item in slate if item.pinned] == list(pin.items())
    assert engine.explain(slate.decision).greedy == tuple(item.id for item in slate)


def test_a_pin_moves_up_where_the_slate_is_short(engine):
    """With two eligible items beside the pin, a pin at slot 7 stands in slot 2."""
    excluded = [f"item-{row}" for row in range(ITEMS - 3)]
    slate = engine.recommend("anna", 9, exclude=excluded, pin={7: "item-49"})
    assert [item.pinned for item in slate] == [False, False, True]


def test_a_slate_of_pins_alone(engine):
    """All slots pinned: nothing is drawn, and the event is valid."""
    pin = {0: "item-5", 1: "item-3"}
    slate = engine.recommend("anna", 2, pin=pin)
    assert [item.id for item in slate] == ["item-5", "item-3"]
    assert [(item.propensity, item.marginal) for item in slate] == [(1.0, 1.0)] * 2
    event = decisions_of(engine)[-1]
    assert semantic_fault(event) is None
    assert engine.explain(slate.decision).is_identical


@pytest.mark.parametrize(
    ("pin", "error", "message"),
    [
        ({0: "no-item"}, ValueError, "pin: slot 0: expected an item of the catalog, found 'no-it"),
        ({0: ""}, ValueError, "pin: slot 0: expected an item of the catalog"),
        ({0: "item-1", 2: "item-1"}, ValueError, "found 'item-1' in slots 0 and 2"),
        ({3: "item-1"}, ValueError, "expected slots 0 to 2, as k is 3, found 3"),
        ({-1: "item-1"}, ValueError, "expected slots 0 to 2"),
        ({True: "item-1"}, TypeError, "expected whole numbers as slots, found True"),
        ({"0": "item-1"}, TypeError, "expected whole numbers as slots, found '0'"),
        ({0: 1}, TypeError, "pin: slot 0: expected an id or an item of a slate, found int"),
        (["item-1"], TypeError, "pin: expected a mapping from slots to items, found list"),
        (None, TypeError, "pin: expected a mapping from slots to items, found NoneType"),
    ],
)
def test_pins_that_contradict_are_one_clear_error(engine, pin, error, message):
    """A wrong pin is an error in the words of the caller, and nothing is recorded."""
    with pytest.raises(error, match=message):
        engine.recommend("anna", 3, pin=pin)
    assert decisions_of(engine) == []


def test_a_wrong_pin_does_not_abandon_a_release_on_trial(bundle, tmp_path):
    """The error is the caller's: the release that is not confirmed yet stays active."""
    with trying(bundle, tmp_path / "state") as engine:
        with pytest.raises(ValueError, match="pin"):
            engine.recommend("anna", 3, pin={0: "no-item"})
        assert engine.release == 2


def test_items_of_slates_and_scalars_of_numpy_are_taken(engine):
    """A pin may be an item of a slate, its slot a whole number of numpy."""
    item = engine.recommend("anna", 1)[0]
    slate = engine.recommend("anna", 3, pin={np.int64(2): item})
    assert (slate[2].id, slate[2].pinned) == (item.id, True)


def test_pools_without_a_pinned_item_are_logged(engine):
    """Where a pinned item would have been in the pool, nobody could rebuild the pool without."""
    best = engine.recommend("anna", ITEMS, greedy=True)
    engine.recommend("anna", 3, pin={0: best[ITEMS - 1]})
    engine.recommend("anna", 3, pin={0: best[0]})
    outside, inside = decisions_of(engine)[1:]
    assert outside.pool_items is UNSET
    assert inside.pool_items == [item.id for item in best[1 : PLAN.pool + 1]]


def test_rewards_of_pinned_items_do_not_move_the_residual(bundle, tmp_path):
    """The residual ranks the pool alone: the reward of a pin is stored and moves nothing."""
    with Engine.open(bundle, tmp_path / "state", adapt=True) as engine:
        slate = engine.recommend("anna", 1, pin={0: "item-9"})
        before = [item.score for item in engine.recommend("anna", 9, greedy=True)]
        assert engine.reward(slate, slate[0], 1.0, observe=False)
        after = [item.score for item in engine.recommend("anna", 9, greedy=True)]
    assert before == after


def test_the_score_of_a_pin_is_that_of_the_ranking(engine):
    """A pinned item's score has the bits that the full ranking gives it."""
    pinned = engine.recommend("anna", 2, pin={1: "item-9"})[1]
    scorer = scorer_of(engine)
    vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
    ranking = scorer.rank(vector, ITEMS)
    score_of = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
    assert pinned.score == score_of[9]


@pytest.mark.parametrize(
    "of_slot",
    [
        {"explored": True},
        {"conditional": 0.5},
        {"marginal": None},
        {"newcomer": True},
        {"rank": 3},
        {"rank": 10_000},
    ],
)
def test_pinned_slots_that_no_engine_makes_are_rejected(engine, of_slot):
    """A pinned slot that explores, is uncertain or has another rank is a fault."""
    engine.recommend("anna", 3, pin={1: "item-9"})
    event = decisions_of(engine)[-1]
    assert semantic_fault(event) is None
    changed = msgspec.structs.replace(event.slate[1], **of_slot)
    slate = [event.slate[0], changed, event.slate[2]]
    assert semantic_fault(msgspec.structs.replace(event, slate=slate))
