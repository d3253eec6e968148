"""Caps: against a naive implementation, in the engine and on the wire."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.caps import Cap, Groups, apply_caps
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.search_types import SearchResult
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
def test_capped_rankings_equal_the_naive_ones(seed, n, kinds, at_most, k):
    """The best k within the caps are returned, with items in no group, one, or several, and with
    rows taken before that count too."""
    rng = np.random.default_rng(seed)
    values = [rng.choice(kinds, rng.integers(0, 3), replace=True).tolist() for _ in range(n)]
    order = rng.permutation(n)
    groups = Groups(values)

    def search(count, excluded):
        left = order[~np.isin(order, excluded)]
        return SearchResult(left[:count], -left[:count].astype(float), len(left))

    excluded = np.flatnonzero(rng.random(n) < 0.2)
    taken = np.flatnonzero(rng.random(n) < rng.choice([0.0, 0.1]))
    caps = [Cap(groups.groups_of, groups.rows_of, at_most)]
    result = apply_caps(search, caps, k, excluded, taken)
    left = [int(row) for row in order if row not in excluded and row not in taken]
    of_rows = [list(set(value)) for value in values]
    expected = naive_capped(left, of_rows, at_most, k, taken.tolist())
    assert result.rows.tolist() == expected
    assert taken.size or result.eligible == len(left)


def test_groups_are_values_or_the_elements_of_lists():
    """A text or number is a group, as is each element of a list; anything else is none."""
    groups = Groups(["a", ("a", "b", "b"), None, 3, {"c": 1}, [], [["d"], 3]], first=10)
    of_rows = [groups.groups_of(row) for row in range(10, 17)]
    assert of_rows == [["a"], ["a", "b"], [], [3], [], [], [3]]
    members = [groups.rows_of(name).tolist() for name in ("a", "b", 3, "z")]
    assert members == [[10, 11], [11], [13, 16], []]


def test_a_cap_holds_in_every_slate_and_is_explained_and_logged(bundle, tmp_path):
    """No slate exceeds its cap; decisions can be explained; events carry the cap."""
    write_bundle(tmp_path / "b")
    with Engine.open(
        tmp_path / "b", tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()
    ) as engine:
        engine.upsert_items(
            [{"id": f"new-{i}", "text": "coffee", "price": 10 + i % 2} for i in range(6)]
        )
        for _ in range(30):
            slate = engine.recommend("anna", k=20, at_most={"price": 1})
            prices = Counter(item.attributes["price"] for item in slate)
            assert len(slate) == 20
            assert max(prices.values()) == 1
            assert engine.explain(slate.decision).is_identical
        assert len(engine.recommend("anna", k=56, at_most={"price": 1})) == 50
        engine.recommend("anna")
        caps = [event.caps for event in stored(engine)]
    assert caps == [{"price": 1}] * 31 + [UNSET]


def test_caps_on_several_attributes_hold_together(bundle):
    """Each attribute has its own cap, and the best items that respect all of them are shown."""
    scorer = Scorer(Bundle.open(bundle))
    user = scorer.user_model.user_vector(scorer.user_model.initial_state())
    uncapped = scorer.rank(user, 50).rows.tolist()
    words = [scorer.item(row).title.split() for row in range(50)]
    colours = Groups([[word[0]] for word in words])
    things = Groups([[word[1]] for word in words])
    caps = [Cap(colours.groups_of, colours.rows_of, 2), Cap(things.groups_of, things.rows_of, 1)]
    nothing = np.empty(0, np.int64)
    result = apply_caps(partial(scorer.search, user), caps, 10, nothing)

    expected = []
    counts = Counter()
    for row in uncapped:
        if counts[words[row][0]] < 2 and counts[words[row][1]] < 1:
            counts.update(words[row][:2])
            expected.append(row)
    assert result.rows.tolist() == expected[:10]


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
def test_invalid_caps_are_refused(bundle, caps, error):
    """Caps below 1 or of a wrong type are errors; caps on unknown attributes limit nothing."""
    with Engine.open(bundle) as engine:
        with pytest.raises(error, match="at_most"):
            engine.recommend("anna", at_most=caps)
        assert len(engine.recommend("anna", at_most={"unknown": 1})) == 10
