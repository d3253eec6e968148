"""Changed attributes by row: the same as one dict, though most of it is shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanderling.ranking import row_changes
from sanderling.ranking.row_changes import NOTHING_CHANGED

attributes = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9), max_size=2)
changes = st.dictionaries(st.integers(0, 12), attributes, max_size=5)


@given(st.lists(changes, max_size=12), st.integers(0, 5))
def test_changes_add_up_as_in_one_dict(batches, min_recent):
    """After each batch rows, attributes and their number are those of a dict of dicts, and what was
    there before a batch stays as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_changes, "MIN_RECENT", min_recent)
        expected = {}
        found = NOTHING_CHANGED
        for batch in batches:
            before, as_before = found, dict(found)
            found = found.updated(batch)
            for row, changed in batch.items():
                expected[row] = {**expected.get(row, {}), **changed}
            assert dict(found) == expected
            assert (len(found), bool(found)) == (len(expected), bool(expected))
            assert dict(before) == as_before
            assert [found.get(row) for row in range(13)] == [expected.get(row) for row in range(13)]


def test_a_batch_does_not_copy_what_was_changed_before():
    """Where much was changed, it is shared; it is copied once an eighth of it came anew."""
    many = NOTHING_CHANGED.updated({row: {"stock": 1} for row in range(100_000)})
    few = many.updated({row: {"stock": 0} for row in range(1000)})
    assert few._before is many._before
    assert (few[5], few[5000]) == ({"stock": 0}, {"stock": 1})
    more = few.updated({row: {"stock": 2} for row in range(1000, 14_000)})
    assert more._before is not many._before
    assert (len(more), more[5], more[5000], more[50_000]) == (
        100_000, {"stock": 0}, {"stock": 2}, {"stock": 1},
    )  # fmt: skip
