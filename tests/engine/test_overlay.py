"""Added items apply until a bundle that was created later has them."""

from __future__ import annotations

import pytest

from sanderling.bundle.reader import Bundle
from sanderling.ranking.catalog_overlay import addition
from sanderling.releases.active_bundle import ActiveBundle
from tests.support.bundles import write_bundle

CREATED_S = 1_700_000_000


@pytest.fixture
def active(tmp_path):
    """An active bundle of ten items, beside a newer one of twelve."""
    write_bundle(tmp_path / "old", items=10, created=CREATED_S)
    write_bundle(tmp_path / "new", release=2, items=12, created=CREATED_S + 100)
    return ActiveBundle(Bundle.open(tmp_path / "old"), tmp_path / "state", owns_folder=True)


def titles(active):
    """Return the titles of all items that may be shown, by id."""
    scorer = active.scorer
    user = scorer.user_model.user_vector(scorer.user_model.initial_state())
    items = map(scorer.item, scorer.rank(user, 99).rows.tolist())
    return {item.id: item.title for item in items}


def reopened(folder, name):
    """Return what is active when a process starts with the bundle of this name."""
    return ActiveBundle(Bundle.open(folder / name), folder / "state", owns_folder=True)


@pytest.mark.parametrize("wall_s", [-(10**9), 0, CREATED_S - 1, CREATED_S + 50, 10**12])
def test_an_added_item_survives_a_restart_under_any_clock(active, tmp_path, wall_s):
    """An item replaced while a bundle was active stays replaced, even if the clock is behind."""
    tmp_path.joinpath("state").mkdir()
    active.update_overlay([addition({"id": "item-3", "text": "mine"}, 1000 * wall_s)])
    assert titles(active)["item-3"] == titles(reopened(tmp_path, "old"))["item-3"] == "mine"


def test_a_later_bundle_overrides_an_added_item_only_while_it_is_active(active, tmp_path):
    """An added item gives way to a later bundle's, and returns after a roll-back."""
    tmp_path.joinpath("state").mkdir()
    active.update_overlay([addition({"id": "item-11", "text": "mine"}, 1000 * CREATED_S)])
    newer = reopened(tmp_path, "new")
    assert titles(newer)["item-11"] not in ("mine", None)
    newer.update_overlay([addition({"id": "another", "text": "also mine"}, 1000 * CREATED_S)])
    back = titles(reopened(tmp_path, "old"))
    assert (back["item-11"], back["another"]) == ("mine", "also mine")
