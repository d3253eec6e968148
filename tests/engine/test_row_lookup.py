"""Rows of item ids: kept, bounded, and those that the bundle and the device have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.bundle.reader import Bundle
from sanderling.ranking import row_lookup
from sanderling.ranking.row_lookup import UNKNOWN, RowLookup
from tests.support.bundles import write_bundle

ITEMS = 20
ADDED = {"sku-0": ITEMS, "item-3": ITEMS + 1}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of 20 items."""
    folder = tmp_path_factory.mktemp("lookup") / "bundle"
    write_bundle(folder, items=ITEMS)
    return Bundle.open(folder)


ids = st.sampled_from([f"item-{i}" for i in range(ITEMS + 2)] + ["sku-0", "sku-1", "", "é"])


@settings(deadline=None, max_examples=60)
@given(lists=st.lists(st.lists(ids, max_size=9), max_size=12))
def test_rows_are_those_of_the_bundle_and_the_device(bundle, lists):
    """Whatever is kept, dropped, or looked up as a whole list, each id has the row of a search of
    the bundle, or of the device's own item in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_lookup, "CACHED_ROWS", 6)
        patch.setattr(row_lookup, "MAX_CACHED", 4)
        lookup = RowLookup(bundle, ADDED)
        for items in lists:
            expected = []
            for item in items:
                row = ADDED.get(item, bundle.find(item))
                expected.append(UNKNOWN if row is None else row)
                assert lookup.find(item) == row
            assert lookup.rows_of(tuple(items)).tolist() == expected
            assert lookup.rows_once(tuple(items)).tolist() == expected
            assert len(lookup._rows) <= 6


def test_rows_of_a_list_are_shared_and_cannot_be_changed(bundle):
    """A list is looked up once; a caller that wrote into its rows would change later calls."""
    lookup = RowLookup(bundle, ADDED)
    rows = lookup.rows_of(("item-1", "nothing"))
    assert lookup.rows_of(("item-1", "nothing")) is rows
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 7
