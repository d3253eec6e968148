"""The demo's people: who they are, what the shop knew before them, and how a night is told."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from sanderling.tables.event_log import ReadOptions
from sanderling_trainer.data.files import read_file, write_file
from sanderling_trainer.data.tables import read_catalog, read_interactions
from sanderling_trainer.demo.device_process import DayClock, Visit
from sanderling_trainer.demo.night import compare, tally
from sanderling_trainer.demo.people import TOLD, PeopleSettings, make_world
from sanderling_trainer.evaluation.simulators.population import DAY, PopulationSettings
from tests.support.worlds import write_checkerboard

pytestmark = pytest.mark.lab

TODAY = 20_787
SETTINGS = PeopleSettings(
    PopulationSettings(users=60, items=40, nights=3, mean_attraction=0.2, new_item_share=0.3)
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a world of 60 people and the folder of its tables."""
    folder = tmp_path_factory.mktemp("world")
    return make_world(*write_checkerboard(folder, users=150), folder, SETTINGS, TODAY)


def write_journal(path, visits):
    """Write visits of slates and clicks, one of each person in a night."""
    entries = [
        Visit(person, 0, f"d{person}", 1, slate, clicked, -1, 100.0, 1.0)
        for person, slate, clicked in visits
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_the_log_is_of_other_users_and_ends_when_the_first_night_begins(world, tmp_path):
    """Nine tenths of it lie before the first night's midnight, and only they train."""
    world.write_interactions(tmp_path / "log.parquet")
    past = read_interactions(tmp_path / "log.parquet", world.catalog)
    first_night = DAY * (TODAY - world.nights)
    assert past.time.max() == first_night - 1
    assert len(past) == len(world.cut.past) == pytest.approx(0.9 * len(world.log), abs=1)
    assert len(world) == 60
    assert len(np.unique(world.log.user)) == 90


def test_own_columns_make_the_same_world(world, tmp_path):
    """Tables under a shop's own column names, with an item's row twice, give the same people."""
    items, log = write_checkerboard(tmp_path, users=150)
    own = {"user_id": "who", "item_id": "sku", "text": "name", "timestamp": "at"}
    for path in (items, log):
        table = read_file(path)
        table = table.rename_columns([own.get(name, name) for name in table.column_names])
        write_file(path, pa.concat_tables([table, table[:1]]) if path == items else table)
    (tmp_path / "out").mkdir()
    again = make_world(items, log, tmp_path / "out", SETTINGS, TODAY, ReadOptions(own))
    assert (again.ids, again.catalog) == (world.ids, world.catalog)
    assert again.log.time.tolist() == world.log.time.tolist()


def test_items_come_night_by_night(world, tmp_path):
    """Each night's table continues the one before, and the shop's log knows the first alone."""
    ids = []
    for night in range(world.nights):
        world.write_items(night, tmp_path / "items.parquet")
        table = read_catalog(tmp_path / "items.parquet")
        assert table.ids[: len(ids)] == ids
        assert len(table) == world.population.born(night) == world.attraction(night).shape[1]
        ids = table.ids
    assert len(world.catalog) == world.population.born(0) < len(ids) == 40


def test_everybody_is_new_and_on_one_device(world, tmp_path):
    """Two processes share a night's people, who come once, and name a few likes each."""
    names = set()
    for night in (0, 1):
        plans = [world.plan(night, range(start, 12, 2), tmp_path / "a.npy") for start in (0, 1)]
        people = [person for plan in plans for person in plan.people]
        assert sorted(person.number for person in people) == list(range(60))
        assert all(0 <= person.device < 6 for person in people)
        assert all(0 < len(person.told) <= TOLD for person in people)
        names |= {person.name for person in people}
    assert len(names) == 120


def test_a_night_is_told_by_the_truth(world, tmp_path):
    """A slate's expectation equals a slow sum, the best one's the maximum over all orders."""
    attraction, examination = world.attraction(1).astype(np.float64), world.population.examination
    slates = [np.setdiff1d(np.arange(30), told)[:3].tolist() for told in world.told]
    journal = write_journal(
        tmp_path / "journal", [(n, slate, slate[:1]) for n, slate in enumerate(slates)]
    )
    sums = tally(world, 1, [journal])
    for person, slate in enumerate(slates):
        of = attraction[person]
        slow = sum(of[item] * examination[slot] for slot, item in enumerate(slate))
        assert sums.expected[person] == pytest.approx(slow)
        left = sorted(set(range(len(of))) - set(world.told[person]), key=lambda item: -of[item])
        orders = permutations(left[:5], 3)
        assert sums.best[person] == pytest.approx(
            max(
                sum(of[item] * examination[slot] for slot, item in enumerate(order))
                for order in orders
            )
        )


def test_the_best_slates_are_all_that_is_possible(world, tmp_path):
    """An arm that shows the best slates reaches a share of 1, and newcomers get what is theirs."""
    attraction = world.attraction(2).astype(np.float64)
    for person, told in enumerate(world.told):
        attraction[person, told] = -1.0
    best = np.argsort(-attraction, axis=1, kind="stable")[:, :10].tolist()
    journal = write_journal(
        tmp_path / "journal", [(person, slate, []) for person, slate in enumerate(best)]
    )
    tallies = [tally(world, 2, [journal]) for _ in range(2)]
    row = compare(*tallies, np.random.default_rng(0))
    assert row["ours"]["share"]["value"] == pytest.approx(1.0)
    assert row["ours"]["newcomers"] == row["ours"]["best_newcomers"] > 0.0
    assert row["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_repeated_visit_counts_once(world, tmp_path):
    """A killed process repeats its last visit: the later entry counts."""
    journal = write_journal(tmp_path / "journal", [(0, [1, 2], [1]), (0, [1, 2], [])])
    sums = tally(world, 0, [journal])
    assert (sums.slates[0], sums.clicks[0]) == (1, 0)


def test_a_day_clock_shows_a_past_day_until_it_is_set_right():
    """Set back it goes on from there; set right it shows the machine's time."""
    clock = DayClock()
    clock.set(1_000_000)
    assert not clock.is_right
    assert 1_000_000 <= clock.wall_ms() < 1_060_000
    clock.set(None)
    assert clock.is_right
    assert clock.wall_ms() > 1_700_000_000_000
