"""The demo's simulated people: their tastes are fitted to some users of a real log.

Every night as many new people come, with the same tastes up to their drift: what a fixed policy
reaches then stays level, and what rises is what a release has learned. The other users' log is what
the shop knew before. The last tenth of it trains nothing: the first
release is replayed on it. Times are moved so that the rest ends where the first night begins, and
the last night was yesterday.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling.tables.event_log import ReadOptions
from sanderling_trainer.data.files import Source, write_file
from sanderling_trainer.data.tables import (
    Catalog,
    Interactions,
    catalog_of,
    read_catalog,
    read_interactions,
    read_items,
)
from sanderling_trainer.data.time_split import quantile
from sanderling_trainer.demo.device_process import NightPlan, Person
from sanderling_trainer.evaluation.inner_windows import Cut, cut_after
from sanderling_trainer.evaluation.simulators.population import (
    DAY,
    MIN_EVENTS,
    Population,
    PopulationSettings,
    fit_population,
)

REPLAYED = 0.1
"""The latest share of the log, which the first release is replayed on."""

TOLD = 10
"""How many items a new person names as liked, at most."""

FINDS = 0.3
"""The probability that a person finds an item without a slate during a visit."""


@dataclass(frozen=True)
class PeopleSettings:
    """How many people come, and what they do."""

    population: PopulationSettings = field(
        default_factory=lambda: PopulationSettings(
            users=400, items=800, nights=5, mean_attraction=0.04
        )
    )

    visits: int = 3
    """Of each person in a night."""

    devices: int = 12
    """A third of them judge each candidate."""

    seed: int = 0
    """Of the people's tastes and of what they click."""


@dataclass(frozen=True)
class World:
    """The people, the shop, and the log from before the first night."""

    population: Population

    settings: PeopleSettings

    catalog: Catalog
    """The items of the first night."""

    log: Interactions
    """Of other users, with the part that the first release is replayed on."""

    cut: Cut
    """Splits that part off."""

    told: list[list[int]]
    """What the person of each taste names as liked; items by their number in the order of birth."""

    ids: list[str]
    """Of the items, in the order of birth."""

    _items: pa.Table
    _today: int

    def __len__(self) -> int:
        return self.population.users

    @property
    def nights(self) -> int:
        """How many nights there are."""
        return self.settings.population.nights

    def write_items(self, night: int, path: Path) -> None:
        """Write the table of the items that exist on a night."""
        write_file(path, self._items.slice(0, self.population.born(night)))

    def write_interactions(self, path: Path) -> None:
        """Write what the first release learns from."""
        past = self.cut.past
        columns = {
            "user_id": [past.users[user] for user in past.user],
            "item_id": [self.catalog.ids[item] for item in past.item],
            "timestamp": past.time,
        }
        write_file(path, pa.table(columns))

    def attraction(self, night: int) -> NDArray[np.float32]:
        """Return the probability of a click on an item looked at, float32 [people, items born]."""
        born = self.population.born(night)
        return self.population.attraction(night)[:, :born].astype(np.float32)

    def plan(self, night: int, devices: Sequence[int], attraction: Path) -> NightPlan:
        """Return a night's plan for a process that has these of the devices.

        attraction: the file of the night's.
        """
        device_of = {number: index for index, number in enumerate(devices)}
        people = [
            Person(
                name=f"night-{night + 1}-person-{number + 1}",
                number=number,
                device=device_of[number % self.settings.devices],
                told=self.told[number],
            )
            for number in range(len(self))
            if number % self.settings.devices in device_of
        ]
        return NightPlan(
            night=night,
            start_ms=1000 * DAY * (self._today - self.nights + night),
            visits=self.settings.visits,
            seed=self.settings.seed,
            items=self.ids[: self.population.born(night)],
            attraction=str(attraction),
            examination=self.population.examination.tolist(),
            finds=FINDS,
            people=people,
        )


def make_world(
    items: Source,
    interactions: Source,
    out: Path,
    settings: PeopleSettings,
    today: int,
    options: ReadOptions | None = None,
) -> World:
    """Fit people to a part of a log's users, and write the first night's tables into `out`.

    today: days since 1970. At most half of the users with five likes become people.

    Raises `TableError` where too few users or items have likes.
    """
    rng = np.random.default_rng(settings.seed)
    table = read_items(items, options)
    catalog = catalog_of(table)
    log = read_interactions(interactions, catalog, options=options)
    likes = log.select(log.reward > 0)
    is_person = _drawn(likes, settings.population.users, rng)

    own = likes.select(is_person)
    try:
        population = fit_population(
            own.user, own.item, own.time, catalog.texts, settings.population, rng
        )
    except ValueError as error:
        raise TableError(f"{interactions}: too little to fit people to: {error}") from error

    shown = table.table.take(population.original_item)
    ids = [catalog.ids[row] for row in population.original_item]
    first = out / "items-1.parquet"
    write_file(first, shown.slice(0, population.born(0)))
    shop = read_catalog(first)

    night_0 = DAY * (today - settings.population.nights)
    log = _shop_log(likes.select(~is_person), catalog, shop, night_0, out / "log.parquet")
    return World(
        population,
        settings,
        shop,
        log,
        cut_after(log, 1.0 - REPLAYED, 1.0),
        _told(population),
        ids,
        shown,
        today,
    )


def _drawn(likes: Interactions, people: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which events are of the users who become people."""
    users, count = np.unique(likes.user, return_counts=True)
    active = users[count >= MIN_EVENTS]
    chosen = rng.choice(active, min(people, len(active) // 2), replace=False)
    return np.isin(likes.user, chosen)


def _shop_log(
    likes: Interactions, catalog: Catalog, shop: Catalog, night_0: int, path: Path
) -> Interactions:
    """Write and read the other users' likes of the shop's items, in times that suit the nights."""
    row_of = {item: row for row, item in enumerate(shop.ids)}
    is_sold = np.array([catalog.ids[item] in row_of for item in likes.item], np.bool_)
    sold = likes.select(is_sold)
    # Ends the part that trains one second before the first night.
    shift = night_0 - 1 - quantile(sold.time, 1.0 - REPLAYED)
    columns = {
        "user_id": [sold.users[user] for user in sold.user],
        "item_id": [catalog.ids[item] for item in sold.item],
        "timestamp": sold.time + shift,
    }
    write_file(path, pa.table(columns))
    return read_interactions(path, shop)


def _told(population: Population) -> list[list[int]]:
    """Return what each person names: the first items of those that the tastes are fitted to."""
    by_person: list[list[int]] = [[] for _ in range(population.users)]
    for user, item in zip(population.user, population.item, strict=True):
        if len(by_person[user]) < TOLD:
            by_person[user].append(int(item))
    return by_person
