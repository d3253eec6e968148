"""Caps: rankings in which no group has more than its fill, against the naive walk, in the engine and on the wire."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.caps import Cap, Groups, Ranking, capped
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive import naive_capped


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 20),
)
def test_capped_rankings_equal_the_naive_walk(seed, n, kinds, most, k):
    """The best k that leave each group within its cap, with items in no group, one, or several."""
    rng = np.random.default_rng(seed)
    values = [rng.choice(kinds, rng.integers(0, 3), replace=True).tolist() for _ in range(n)]
    order, groups = rng.permutation(n), Groups(values)

    def search(count, excluded):
        left = order[~np.isin(order, excluded)]
        return Ranking(left[:count], -left[:count].astype(float), len(left))

    banned = np.flatnonzero(rng.random(n) < 0.2)
    found = capped(search, [Cap(groups.of, groups.members, most)], k, banned)
    left = [int(row) for row in order if row not in banned]
    assert found.rows.tolist() == naive_capped(
        left, [list(set(value)) for value in values], most, k
    )
    assert found.eligible == len(left)


def test_groups_are_values_or_the_elements_of_lists():
    """A text or number is a group, each element of a list is one, and anything else is none."""
    groups = Groups(["a", ("a", "b", "b"), None, 3, {"c": 1}, [], [["d"], 3]], first=10)
    assert [groups.of(row) for row in range(10, 17)] == [["a"], ["a", "b"], [], [3], [], [], [3]]
    assert [groups.members(name).tolist() for name in ("a", "b", 3, "z")] == [
        [10, 11],
        [11],
        [13, 16],
        [],
    ]


def test_a_cap_holds_in_every_slate_and_is_explained_and_logged(bundle, tmp_path):
    """No slate has more items of one colour than allowed though it explores; decisions replay; the wire says it."""
    write_bundle(tmp_path / "b")
    with Engine.open(
        tmp_path / "b", tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()
    ) as engine:
        engine.upsert_items(
            [{"id": f"new-{at}", "text": "coffee", "price": 10 + at % 2} for at in range(6)]
        )
        for _ in range(30):
            slate = engine.recommend("anna", k=20, at_most={"price": 1})
            prices = Counter(item.attributes["price"] for item in slate)
            assert len(slate) == 20
            assert max(prices.values()) == 1
            assert engine.explain(slate.decision).same
        assert len(engine.recommend("anna", k=56, at_most={"price": 1})) == 50
        engine.recommend("anna")
        caps = [event.caps for event in stored(engine)]
    assert caps == [{"price": 1}] * 31 + [UNSET]


def test_caps_on_several_attributes_hold_together(bundle):
    """Each attribute has its own cap, and the best items that respect all of them are shown."""
    scorer = Scorer(Bundle.open(bundle))
    user = scorer.state.user(scorer.state.start())
    everything = scorer.rank(user, 50).rows.tolist()
    words = [scorer.entry(row).title.split() for row in range(50)]
    colours, things = [[word[0]] for word in words], [[word[1]] for word in words]
    caps = [
        Cap(groups.of, groups.members, most)
        for groups, most in ((Groups(colours), 2), (Groups(things), 1))
    ]
    found = capped(
        lambda k, excluded: scorer._search(user, k, excluded), caps, 10, np.empty(0, np.int64)
    )
    wanted, counts = [], Counter()
    for row in everything:
        if counts[words[row][0]] < 2 and counts[words[row][1]] < 1:
            counts.update(words[row][:2])
            wanted.append(row)
    assert found.rows.tolist() == wanted[:10]


@pytest.mark.parametrize(
    ("caps", "error"),
    [
        ({"price": 0}, ValueError),
        ({"": 1}, ValueError),
        ({"price": 2**60}, ValueError),
        ({"price": True}, TypeError),
        ({3: 1}, TypeError),
    ],
)
def test_caps_that_make_no_sense_are_refused(bundle, caps, error):
    """Caps below 1 or of a wrong type are an error that names them; unknown attributes cap nothing."""
    with Engine.open(bundle) as engine:
        with pytest.raises(error, match="at_most"):
            engine.recommend("anna", at_most=caps)
        assert len(engine.recommend("anna", at_most={"unheard of": 1})) == 10
