"""Attributes that an app changed, in the JavaScript engine: what still applies is as in Python."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.ranking.attribute_changes import Batch, in_force
from tests.support.javascript import needs_node

pytestmark = needs_node

ITEMS = ["a", "b", "new", "__proto__", "constructor"]
KNOWN = ["a", "constructor"]
attributes = st.dictionaries(
    st.sampled_from(["price", "stock", "toString"]), st.none() | st.integers(0, 3), max_size=3
)
batches = st.lists(
    st.builds(Batch, st.integers(0, 9), st.dictionaries(st.sampled_from(ITEMS), attributes)),
    max_size=6,
)


def plain(given_batches: list[Batch]) -> list[dict]:
    """Return batches as JSON has them."""
    return [msgspec.to_builtins(batch) for batch in given_batches]


@given(batches, st.integers(0, 9), st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 9)))
@settings(max_examples=150, deadline=None)
def test_changes_give_way_to_newer_bundles_and_items(node, changes, created_s, added_ms):
    """The same changes apply under a bundle that was created at some time, and has some items."""
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(created=created_s / 1000),
        find=lambda item: KNOWN.index(item) if item in KNOWN else None,
        record=lambda row: {"price": 1, "stock": None},
    )
    applied = in_force(changes, bundle, added_ms)
    assert node("changesInForce", plain(changes), created_s, KNOWN, added_ms) == applied
