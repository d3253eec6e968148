"""Reasons of slates: every effect against an engine to which the cause never happened."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling.ranking.reasons_text import SharedTraits, without_each_word
from sanderling.reasons import SharedTrait
from sanderling.releases.slots import Slots
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of
from tests.support.naive_reasons import (
    naive_passed_over,
    naive_percentile,
    score_after,
)

ITEMS = [f"item-{row}" for row in range(50)]
EVENTS = st.tuples(
    st.sampled_from([*ITEMS, "gone"]), st.sampled_from(["view", "click", "purchase", "unheard of"])
)
HISTORIES = st.lists(EVENTS, max_size=12)


def observed(engine: Engine, events) -> None:
    for item, kind in events:
        engine.observe("anna", item, kind)


@settings(max_examples=40)
@given(HISTORIES, st.sampled_from([None, "rainy evening"]))
def test_effects_equal_those_of_an_engine_that_never_saw_the_event(bundle, events, context):
    """Each event's effect is the score less what a fresh engine scores without it, bit for bit; an
    unknown item has none."""
    with Engine.open(bundle) as engine:
        observed(engine, events)
        for shown in engine.recommend("anna", 3, context=context):
            why = shown.why()
            assert why.score == shown.score
            assert why.is_exact
            assert why.events_known == why.events_total == len(events)
            assert why.older_effect == 0.0
            assert len(why.events) == len(events)
            for reason in why.events:
                j = len(events) - reason.ago
                assert (reason.item, reason.kind) == events[j]
                without = [*events[:j], *events[j + 1 :]]
                assert reason.effect == shown.score - score_after(
                    bundle, without, shown.id, context
                )
            effects = [reason.effect for reason in why.events]
            assert effects == sorted(effects, reverse=True)
            assert why.history_effect == shown.score - score_after(bundle, [], shown.id, context)


def test_events_that_are_no_longer_kept_are_counted_and_not_named(bundle):
    """Of 300 events the last 256 are named; their effects still allow for the older ones."""
    rng = np.random.default_rng(0)
    events = [(ITEMS[row], "click") for row in rng.integers(0, 50, 300)]
    with Engine.open(bundle) as engine:
        observed(engine, events)
        shown = engine.recommend("anna", 1, greedy=True)[0]
        why = shown.why()
    assert (why.events_known, why.events_total, why.is_exact) == (256, 300, False)
    assert {reason.ago for reason in why.events} == set(range(1, 257))
    assert why.older_effect == shown.score - score_after(bundle, events[44:], shown.id)
    for ago in (1, 2, 100, 255, 256):
        (effect,) = [reason.effect for reason in why.events if reason.ago == ago]
        without = [*events[: 300 - ago], *events[300 - ago + 1 :]]
        expected = shown.score - score_after(bundle, without, shown.id)
        assert effect == pytest.approx(expected, abs=2e-5)


def test_slow_channels_remember_what_is_no_longer_kept(tmp_path):
    """Where older events still weigh a tenth of the state, effects allow for them."""
    bundle = tmp_path / "slow"
    write_bundle(bundle, decay=(0.985, 0.995))
    rng = np.random.default_rng(1)
    events = [(ITEMS[row], "purchase") for row in rng.integers(0, 50, 330)]
    with Engine.open(bundle) as engine:
        observed(engine, events)
        shown = engine.recommend("anna", 1, greedy=True)[0]
        why = shown.why()
    assert abs(why.older_effect) > 1e-3
    for ago in (1, 64, 256):
        (effect,) = [reason.effect for reason in why.events if reason.ago == ago]
        without = [*events[: 330 - ago], *events[330 - ago + 1 :]]
        expected = shown.score - score_after(bundle, without, shown.id)
        assert effect == pytest.approx(expected, abs=2e-5)


def test_a_new_release_explains_in_its_own_space(bundle, tmp_path):
    """After an update the kept events make the state, so that their effects are exact again."""
    events = [(ITEMS[row % 50], "click") for row in range(300)]
    with Engine.open(bundle, tmp_path) as engine:
        observed(engine, events)
    write_bundle(tmp_path / "bundles" / "2", release=2, seed=5)
    Slots(tmp_path / "bundles").activate(2)
    with Engine.open(bundle, tmp_path) as engine:
        shown = engine.recommend("anna", 1, greedy=True)[0]
        why = shown.why()
    assert (why.release, why.events_known, why.events_total, why.is_exact) == (2, 256, 300, True)
    assert why.older_effect == 0.0


def test_reasons_are_those_of_the_decision(engine):
    """What happens after a decision changes none of its reasons."""
    engine.observe("anna", "item-3", "click")
    slate = engine.recommend("anna", 5, context="coffee")
    before = [item.why() for item in slate]
    engine.observe("anna", "item-4", "click")
    engine.upsert_items([{"id": slate[0].id, "text": "another text"}])
    engine.remove_items([slate[1].id])
    assert [item.why() for item in slate] == before
    assert [engine.why(slate, item.id) for item in slate] == before


def test_a_context_and_its_words_have_their_exact_effects(bundle):
    """Each effect of the context and of a word of it is what leaving it out changes."""
    context = "Rainy evening, a rainy-day film: evening!"
    events = [("item-3", "click")]
    with Engine.open(bundle) as engine:
        observed(engine, events)
        shown = engine.recommend("anna", 1, context=context)[0]
        why = shown.why()
    assert why.context_effect == shown.score - score_after(bundle, events, shown.id)
    left_out = dict(without_each_word(context))
    assert left_out["evening"] == "Rainy, a rainy-day film:!"
    assert {word.word for word in why.words} == set(left_out)
    for word in why.words:
        assert word.source == "context"
        left = left_out[word.word]
        assert word.effect == shown.score - score_after(bundle, events, shown.id, left)


def test_the_only_word_of_a_context_has_the_effect_of_the_context(engine):
    """A context that consists of one word is no context without it."""
    why = engine.recommend("anna", 1, context="coffee")[0].why()
    assert [word.effect for word in why.words] == [why.context_effect]


def test_what_the_device_learned_has_its_exact_effect(bundle, tmp_path):
    """The learned effect is the score less that of an engine that does not learn."""
    with Engine.open(bundle, tmp_path, adapt=True) as engine:
        slate = engine.recommend("anna", 5, greedy=True)
        assert slate[0].why().learned_effect == 0.0
        engine.reward_all(slate, {slate[0]: -1.0, slate[3]: 1.0}, observe=False)
        shown = engine.recommend("anna", 5, greedy=True)[0]
        assert shown.why().learned_effect == shown.score - score_after(bundle, [], shown.id)
        assert shown.why().learned_effect != 0.0


def test_popularity_is_the_bias(engine):
    """The popularity is the item's bias, against those of the whole bundle."""
    scorer = scorer_of(engine)
    for shown in engine.recommend("anna", 10):
        popularity = shown.why().popularity
        row = scorer.find(shown.id)
        assert popularity.bias == float(scorer.index.bias[row])
        assert popularity.percentile == naive_percentile(scorer, row)
        mean = float(np.mean(scorer.index.bias.astype(float)))
        assert popularity.above_mean == pytest.approx(popularity.bias - mean)


@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_how_a_slot_was_drawn_is_told(tmp_path, scheme):
    """Reasons carry the slot's probabilities and what greedy would have shown, guarded slots and
    the quota included."""
    plan = Exploration(scheme=scheme, epsilon=0.6, pool=10, guarded=1, newcomers=0.5)
    write_bundle(tmp_path / "b", exploration=plan, newcomers=range(30, 50))
    with Engine.open(tmp_path / "b") as engine:
        kinds = set()
        for _ in range(30):
            slate = engine.recommend("anna", 5)
            greedy = engine.explain(slate.decision).greedy
            for shown in slate:
                why = shown.why()
                kinds.add((shown.explored, shown.newcomer))
                for field in ("rank", "explored", "newcomer", "propensity", "marginal", "slot"):
                    assert getattr(why, field) == getattr(shown, field)
                assert why.greedy.id == greedy[shown.slot]
                assert (why.pool, why.scheme) == (10, scheme)
                assert ("guarded" in why.rules) == (shown.slot == 0)
                assert ("newcomers" in why.rules) == (shown.slot > 0)
                assert ("newcomer" in why.sentence) == shown.newcomer
                assert ("by exploration" in why.sentence) == (shown.explored and not shown.newcomer)
        assert {(True, True), (False, False)} <= kinds
        greedy_slate = engine.recommend("anna", 5, greedy=True)
        assert [item.why().rules["greedy"] for item in greedy_slate] == [True] * 5
        assert [item.why().greedy.id for item in greedy_slate] == [item.id for item in greedy_slate]


@settings(max_examples=30)
@given(
    exclude=st.lists(st.sampled_from([*ITEMS, "gone"]), max_size=20),
    cap=st.none() | st.integers(1, 3),
    removed=st.lists(st.sampled_from(ITEMS), max_size=5),
    pin=st.dictionaries(st.integers(0, 4), st.sampled_from(ITEMS), max_size=2),
    below=st.none() | st.integers(20, 60),
    among=st.none() | st.lists(st.sampled_from(ITEMS), min_size=20, max_size=45, unique=True),
)
def test_rules_and_what_they_kept_out(bundle, exclude, cap, removed, pin, below, among):
    """Reasons name the rules, and count the better items that they kept out as counting one by one
    does, also on a next page."""
    pin = {slot: item for item, slot in {item: slot for slot, item in pin.items()}.items()}
    shaping = {
        "exclude": exclude,
        "at_most": {} if cap is None else {"price": cap},
        "pin": pin,
        "among": among,
        "where": None if below is None else {"price": {"lt": below}},
    }
    with Engine.open(bundle) as engine:
        engine.remove_items(removed)
        first = engine.recommend("anna", 2, greedy=True)
        for slate in (
            engine.recommend("anna", 5, greedy=True, **shaping),
            engine.recommend("anna", 5, greedy=True, after=first, **shaping),
        ):
            for shown in slate:
                why = shown.why()
                assert why.rules.get("exclude", 0) == len(exclude)
                assert why.rules.get("at_most", {}) == shaping["at_most"]
                assert why.rules.get("among") == (len(among) if among else None)
                assert why.rules.get("where") == shaping["where"]
                assert why.rules.get("after", 0) == len(slate.earlier)
                assert why.rules.get("pin") == (shown.id if shown.pinned else None)
                assert ("pinned" in why.sentence) == shown.pinned
                assert why.passed_over == naive_passed_over(engine, slate, shown, removed)


@pytest.mark.parametrize("personalized", [True, False])
def test_the_arm_of_an_experiment_is_a_rule(tmp_path, personalized):
    """Reasons name the arm; in one that is not personalized neither history nor context did
    anything, and not exploring is the arm's way, not the caller's."""
    arm = Arm("one", 1.0, Exploration(epsilon=0.0), personalized=personalized)
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    manifest = msgspec.structs.replace(manifests.read(bundle), experiment=Experiment("e", (arm,)))
    (bundle / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
    with Engine.open(bundle) as engine:
        observed(engine, [("item-3", "click"), ("item-5", "view")])
        for shown in engine.recommend("anna", 5, context="rainy evening"):
            why = shown.why()
            assert why.rules == {"arm": "one"}
            assert why.score == shown.score
            effects = [why.history_effect, why.context_effect, *(e.effect for e in why.events)]
            assert all((effect != 0.0) == personalized for effect in effects)
            assert personalized or why.score == why.popularity.bias


def test_shared_traits_describe_both_items(engine):
    """A shared trait stands in both entries, seldom enough in the catalog, rarest first; numbers,
    short words and an added item's text are none."""
    fields = {"text": "one text", "price": 5, "live": True}
    engine.upsert_items(
        [
            {"id": "a", "title": "The Night Train-Song", "tags": ["Jazz", "Camping", 7], **fields},
            {"id": "b", "title": "night of a jacket", "tags": ["jazz"], "by": "Ann Lee", **fields},
            {"id": "c", "title": "jacket; NIGHT", "tags": "jazz", "by": "Bob lee", **fields},
            {"id": "d", "title": "A jacket", "tags": None, "by": "ann  lee", **fields},
        ]
    )
    scorer = scorer_of(engine)
    a, b, c, d = (scorer.find(item) for item in "abcd")
    night = SharedTrait("title", "night", 0.0)
    assert SharedTraits(scorer, a).with_item(b) == (SharedTrait("tags", "jazz", 0.0), night)
    # A seventh of the bundle's titles has a jacket, which is too usual for a title.
    assert SharedTraits(scorer, b).with_item(c) == (
        SharedTrait("by", "lee", 0.0),
        SharedTrait("tags", "jazz", 0.0),
        night,
    )
    assert SharedTraits(scorer, b).with_item(d) == (SharedTrait("by", "ann lee", 0.0),)
    assert SharedTraits(scorer, scorer.find("item-1")).with_item(scorer.find("item-8")) == ()


def test_events_say_what_they_share(engine):
    """Events that raised the score say what their item shares with the one explained."""
    engine.upsert_items(
        [{"id": f"new-{i}", "text": f"album {i}", "tags": ["jazz"]} for i in range(9)]
    )
    engine.remove_items(ITEMS)
    engine.observe("anna", "new-1", "click")
    engine.observe("anna", "item-1", "click")
    for shown in engine.recommend("anna", 9):
        for event in shown.why().events:
            has_tag = event.item == "new-1" and event.effect > 0.0
            assert [trait.value for trait in event.shared if trait.field == "tags"] == (
                ["jazz"] if has_tag else []
            )


def test_items_stay_what_they_were(engine):
    """An item that can explain itself equals, prints, pickles and exports as one that cannot."""
    slate = engine.recommend("anna", 3)
    copied = pickle.loads(pickle.dumps(slate))
    assert copied == slate
    assert repr(copied) == repr(slate)
    assert copied.to_dict() == slate.to_dict()
    assert "explainer" not in repr(slate.to_dict())
    with pytest.raises(LookupError, match=r"ask engine\.why"):
        copied[0].why()
    assert engine.why(copied, copied[0]) == slate[0].why()
    assert slate[1:][0].why() == slate[1].why()
    assert next(iter(slate)).why() == slate.items[0].why()


def test_slates_do_not_keep_their_engine(bundle):
    """An engine that is dropped goes, and its slates say so."""
    engine = Engine.open(bundle)
    slate = engine.recommend("anna", 3)
    engine.close()
    assert slate[0].why().item == slate[0].id
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    with pytest.raises(LookupError, match="it is gone"):
        slate[0].why()


def test_older_decisions_have_no_reasons(engine):
    """Beyond the last 256 decisions the error says so."""
    slate = engine.recommend("anna", 1)
    for _ in range(256):
        engine.recommend("bob", 1)
    with pytest.raises(KeyError, match="one of the last 256"):
        slate[0].why()


def test_forgotten_users_have_no_reasons(engine):
    """After `forget_user` the error says why, for the user who came back too."""
    engine.observe("anna", "item-3", "click")
    slate = engine.recommend("anna", 1)
    engine.forget_user("anna")
    with pytest.raises(KeyError, match="forgotten"):
        slate[0].why()
    assert engine.recommend("anna", 1)[0].why().events_total == 0
    with pytest.raises(KeyError, match="forgotten"):
        engine.why(slate, slate[0])


def test_wrong_questions_are_refused(engine, bundle):
    """Each wrong argument has its own error."""
    slate = engine.recommend("anna", 3)
    shown = {item.id for item in slate}
    absent = next(item for item in ITEMS if item not in shown)
    with pytest.raises(ValueError, match="item: expected one of the slate's 3 items"):
        engine.why(slate, absent)
    with pytest.raises(TypeError, match="item: expected"):
        engine.why(slate, 3)
    with pytest.raises(TypeError, match="slate: expected"):
        engine.why("slate", slate[0])
    with Engine.open(bundle) as other:
        own = other.recommend("anna", 3)
        lost = replace(own, decision=slate.decision)
        with pytest.raises(KeyError, match="another engine's"):
            other.why(lost, own[0])
    doctored = replace(slate, items=(msgspec.structs.replace(slate[0], id=absent),))
    with pytest.raises(ValueError, match="items of decision"):
        engine.why(doctored, absent)


def test_reasons_are_data(engine):
    """JSON holds all of it, with the sentence, which is also the text of the object."""
    engine.observe("anna", "item-3", "click")
    why = engine.recommend("anna", 1, context="coffee", at_most={"price": 1})[0].why()
    data = json.loads(json.dumps(why.to_dict()))
    assert data["events"][0]["item"] == "item-3"
    assert data["sentence"] == str(why) == why.sentence
    assert data["rules"]["at_most"] == {"price": 1}
