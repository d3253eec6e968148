"""Items that the app added or removed: what it said last holds, until a bundle that was made later knows better."""

from __future__ import annotations

import pytest

from sanderling.bundle.reader import Bundle
from sanderling.ranking.catalog_overlay import clean
from sanderling.releases.active_bundle import ActiveBundle
from tests.support.bundles import write_bundle

MADE_S = 1_700_000_000


@pytest.fixture
def serving(tmp_path):
    """A bundle of ten items that serves, beside a newer one of twelve."""
    write_bundle(tmp_path / "old", items=10, created=MADE_S)
    write_bundle(tmp_path / "new", release=2, items=12, created=MADE_S + 100)
    return ActiveBundle(Bundle.open(tmp_path / "old"), tmp_path / "state", owns_folder=True)


def titles(serving):
    """Return the titles of all items that may be shown, by id."""
    scorer = serving.scorer
    entries = map(
        scorer.entry, scorer.rank(scorer.state.user(scorer.state.start()), 99).rows.tolist()
    )
    return {entry.id: entry.title for entry in entries}


def again(serving, folder, name):
    """Return what serves when a process starts with another bundle."""
    return ActiveBundle(Bundle.open(folder / name), folder / "state", owns_folder=True)


@pytest.mark.parametrize("wall_s", [-(10**9), 0, MADE_S - 1, MADE_S + 50, 10**12])
def test_what_the_app_knows_better_outlives_a_restart_under_any_clock(serving, tmp_path, wall_s):
    """An item that was replaced while a bundle served stays replaced, though the clock is before the bundle's date."""
    tmp_path.joinpath("state").mkdir()
    serving.change_catalog([clean({"id": "item-3", "text": "mine"}, 1000 * wall_s)])
    assert titles(serving)["item-3"] == titles(again(serving, tmp_path, "old"))["item-3"] == "mine"


def test_a_later_bundle_knows_better_only_while_it_serves(serving, tmp_path):
    """An added item gives way to a later bundle's, and is there again when the device goes back, whatever else was
    added meanwhile."""
    tmp_path.joinpath("state").mkdir()
    serving.change_catalog([clean({"id": "item-11", "text": "mine"}, 1000 * MADE_S)])
    newer = again(serving, tmp_path, "new")
    assert titles(newer)["item-11"] not in ("mine", None)
    newer.change_catalog([clean({"id": "another", "text": "also mine"}, 1000 * MADE_S)])
    back = titles(again(serving, tmp_path, "old"))
    assert (back["item-11"], back["another"]) == ("mine", "also mine")
