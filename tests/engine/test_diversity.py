"""Diverse slates: greedy by their definition, with propensities that equal enumeration."""

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
from sanderling.exploration import diversity, newcomers, schemes
from sanderling.exploration.diversity import Relevance
from sanderling.exploration.philox import uniforms
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive import diverse_greedy, joint_diverse, joint_newcomers, slates

ITEMS = 50
SCHEMES = ["sequential", "mixture", "softmax"]
AMOUNTS = [0.01, 0.3, 0.7, 1.0]
SCORES = np.array([1.5, 1.1, 1.1, 0.2])
ROWS = np.array([[90, 10, 0], [88, 12, 1], [-5, 127, 3], [0, 0, 60]], np.float64)
PINNED = np.array([[80, 0, 40]], np.float64)


def drawn(plan, slots, relevance, count, decision):
    """Return a slate drawn with the randomness of a decision's id."""
    blocks = schemes.n_uniforms(plan, slots, len(relevance.scores), count)
    pairs = uniforms(f"{decision:032x}", blocks)
    return diversity.draw(plan, slots, relevance, pairs, count)


def probability(plan, slate, relevance, count):
    """Return a slate's probability by its definition: guarded slots, quota, then the scheme."""
    fixed = min(plan.guarded, len(slate))
    pool = len(relevance.scores)
    if any(rank >= pool for rank in slate[:fixed]):
        return 0.0
    regular = newcomers.regular(plan) if count else plan
    rows, pinned = relevance.vectors.tolist(), relevance.pinned.tolist()

    def joint_regular(rest):
        given = (regular, (*slate[:fixed], *rest), relevance.diversity)
        return joint_diverse(*given, relevance.scores, rows, pinned)

    rate = newcomers.rate(plan) if count else 0.0
    return joint_newcomers(slate[fixed:], pool, count, rate, joint_regular)


@settings(deadline=None, max_examples=150)
@given(
    scheme=st.sampled_from(SCHEMES),
    amount=st.sampled_from(AMOUNTS),
    slots=st.integers(1, 3),
    more=st.integers(0, 2),
    count=st.integers(0, 2),
    guarded=st.integers(0, 2),
    n_pinned=st.integers(0, 2),
    epsilon=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_probabilities_equal_enumeration(
    scheme, amount, slots, more, count, guarded, n_pinned, epsilon, seed
):
    """Over all slates of random pools: conditionals multiply to the joint probability, and
    marginals are sums of it where there are any: without exploration and under `mixture`."""
    share = 0.5 if count else 0.0
    plan = Exploration(scheme, epsilon, guarded=guarded, newcomers=share, temperature=0.7)
    rng = np.random.default_rng(seed)
    pool = slots + more
    # Few distinct values, so that there are ties, rows of zeros, and likenesses of 1.
    scores = np.sort(rng.choice([0.0, 0.5, 1.5, 1.75], pool))[::-1].copy()
    rows, pinned = (rng.integers(-1, 2, (n, 3)).astype(np.float64) for n in (pool, n_pinned))
    relevance = Relevance(amount, scores, rows, pinned)

    joint_of = {
        slate: probability(plan, slate, relevance, count) for slate in slates(slots, pool + count)
    }
    assert math.isclose(sum(joint_of.values()), 1.0, rel_tol=1e-12)
    exact = np.zeros((slots, pool + count))
    for slate, joint in joint_of.items():
        exact[range(slots), slate] += joint

    is_certain = guarded >= slots or (scheme == "sequential" and epsilon == 0.0)
    for number in range(10):
        slate = drawn(plan, slots, relevance, count, seed + number)
        assert math.isclose(
            math.prod(slate.conditional), joint_of[tuple(slate.ranks)], rel_tol=1e-9
        )
        if is_certain or scheme == "mixture":
            np.testing.assert_allclose(slate.marginal, exact[range(slots), slate.ranks], rtol=1e-9)
        else:
            assert set(slate.marginal) == {None}


@pytest.mark.parametrize("guarded", [0, 1])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_draws_have_the_logged_probabilities(scheme, guarded):
    """Slates occur as often as defined (chi-square), with newcomers and a pinned item."""
    n, count = 12_000, 1
    plan = Exploration(scheme, 0.4, guarded=guarded, newcomers=0.5, temperature=0.7)
    relevance = Relevance(0.5, SCORES, ROWS, PINNED)
    counts = Counter(
        tuple(drawn(plan, 3, relevance, count, number * 7919 + 1).ranks) for number in range(n)
    )
    every = slates(3, len(SCORES) + count)
    expected = {slate: n * probability(plan, slate, relevance, count) for slate in every}
    assert all(expected[slate] > 0.0 for slate in counts)
    common = [slate for slate, due in expected.items() if due >= 5.0]
    cells = [(counts[slate], expected[slate]) for slate in common]
    rare = n - sum(expected[slate] for slate in common)
    cells.append((n - sum(counts[slate] for slate in common), rare))
    chi = sum((seen - due) ** 2 / due for seen, due in cells if due > 1e-6)
    freedom = len(cells) - 1
    assert chi < freedom + 4.5 * math.sqrt(2 * freedom) + 8.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_little_diversity_is_the_plain_slate(scheme):
    """As λ goes to 0 the propensities become those of the scheme without it."""
    plan = Exploration(scheme, 0.4, temperature=0.7, newcomers=0.0)
    scores = np.array([1.5, 1.1, 1.0, 0.2])
    relevance = Relevance(1e-13, scores, ROWS, PINNED)
    blocks = schemes.n_uniforms(plan, 3, 4)
    plain = {}
    for number in range(300):
        slate = schemes.draw(plan, 3, scores, uniforms(f"{number:032x}", blocks))
        plain[tuple(slate.ranks)] = slate.conditional
    for number in range(300):
        slate = drawn(plan, 3, relevance, 0, number)
        if tuple(slate.ranks) in plain:
            np.testing.assert_allclose(slate.conditional, plain[tuple(slate.ranks)], rtol=1e-9)


def opened(tmp_path, plan, **options):
    """Open an engine on a bundle of 50 items of which some are newcomers."""
    write_bundle(tmp_path / "bundle", exploration=plan, newcomers=(3, 17, 18, 40, 44, 49))
    clock, entropy = FakeClock(), FakeEntropy()
    return Engine.open(
        tmp_path / "bundle", tmp_path / "state", clock=clock, entropy=entropy, **options
    )


def decisions_of(engine) -> list[Decision]:
    return [event for event in stored(engine) if isinstance(event, Decision)]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_greedy_slates_equal_their_definition(tmp_path, amount):
    """The greedy slate of an engine, with pins and items of the device, is the slow twin's, which
    multiplies whole numbers."""
    with opened(tmp_path, Exploration(epsilon=0.1, pool=20)) as engine:
        engine.upsert_items([{"id": f"sku-{i}", "text": f"coffee {i}"} for i in range(3)])
        pin = {1: "item-7", 4: "sku-1"}
        slate = engine.recommend("anna", 9, pin=pin, diversity=amount, greedy=True)
        scorer = scorer_of(engine)
        vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
        pinned_rows = scorer.rows_of(tuple(pin.values()))
        ranking = scorer.rank(vector, 20, pinned_rows)
        rows = scorer.codes(ranking.rows).astype(int).tolist()
        pinned = scorer.codes(pinned_rows).astype(int).tolist()
    expected = diverse_greedy(7, amount, ranking.scores.tolist(), rows, pinned)
    assert tuple(item.rank for item in slate if not item.pinned) == expected
    assert [item.marginal for item in slate] == [1.0] * 9


@pytest.mark.parametrize("scheme", SCHEMES)
def test_decisions_replay_and_tell_how_they_were_drawn(tmp_path, scheme):
    """With pins, caps and exclusions slates replay bit for bit, their events are valid and carry
    the diversity; ranks are places in the pool by score."""
    plan = Exploration(scheme, 0.5, pool=12, newcomers=0.3, guarded=1, temperature=0.3)
    with opened(tmp_path, plan) as engine:
        made = [
            engine.recommend(
                "anna",
                6,
                exclude=["item-3"],
                at_most={"price": 1},
                pin={2: "item-9"},
                diversity=0.6,
            )
            for _ in range(50)
        ]
        assert all(engine.explain(slate.decision).is_identical for slate in made)
        events = decisions_of(engine)
    for event, slate in zip(events, made, strict=True):
        assert event.diversity == 0.6
        assert semantic_fault(event) is None
        assert codec.decode(codec.encode(event)) == event
        for item in slate:
            if not (item.pinned or item.newcomer):
                assert event.pool_items[item.rank] == item.id


def test_no_diversity_is_the_plain_slate_to_the_bit(tmp_path):
    """With 0 a decision draws and logs what it does without the argument."""
    found = []
    for name, given_ in {"without": {}, "zero": {"diversity": 0}}.items():
        (tmp_path / name).mkdir()
        with opened(tmp_path / name, Exploration(epsilon=0.5, pool=12)) as engine:
            for _ in range(5):
                engine.recommend("anna", 6, **given_)
            found.append(decisions_of(engine))
    assert found[0] == found[1]
    assert {event.diversity for event in found[0]} == {UNSET}


def test_diversity_avoids_what_is_alike():
    """Of two items almost alike the second is shown late, unlike ones before it."""
    order = diverse_greedy(4, 0.6, SCORES, ROWS.tolist(), [])
    assert order[0] == 0
    assert order[-1] == 1
    assert diverse_greedy(4, 0.0, SCORES, ROWS.tolist(), []) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        (-0.1, ValueError, r"diversity: expected a number in \[0, 1\], found -0.1"),
        (1.1, ValueError, r"diversity: expected a number in \[0, 1\]"),
        (math.nan, ValueError, r"diversity: expected a number in \[0, 1\]"),
        ("much", TypeError, "diversity: expected a number, found str"),
        (None, TypeError, "diversity: expected a number, found NoneType"),
        (True, TypeError, "diversity: expected a number, found bool"),
    ],
)
def test_a_wrong_diversity_is_one_clear_error(tmp_path, given_, error, message):
    """What is no number of 0 to 1 is an error in the words of the caller."""
    with opened(tmp_path, Exploration(epsilon=0.5, pool=12)) as engine:
        with pytest.raises(error, match=message):
            engine.recommend("anna", 3, diversity=given_)
        assert decisions_of(engine) == []


def test_one_eligible_item_and_none(tmp_path):
    """Diversity of a pool of one item, and of none, draws what there is."""
    with opened(tmp_path, Exploration(epsilon=0.5, pool=12, newcomers=0.0)) as engine:
        others = [f"item-{row}" for row in range(1, ITEMS)]
        assert [item.id for item in engine.recommend("anna", 3, exclude=others, diversity=1.0)] == [
            "item-0"
        ]
        assert len(engine.recommend("anna", 3, exclude=[*others, "item-0"], diversity=1.0)) == 0


def test_a_diversity_outside_its_bounds_is_no_event():
    """The wire takes 0 < diversity <= 1 alone."""
    field = next(each for each in msgspec.structs.fields(Decision) if each.name == "diversity")
    for value in (0.0, 1.5):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, field.type)
    assert msgspec.convert(1.0, field.type) == 1.0
