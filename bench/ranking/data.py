"""The benchmark's data sets, read from a folder that the project does not ship (see `folder`).

online_retail/interactions.csv.gz   purchases of a gift shop (Chen et al. 2012)
online_retail/items.csv             texts of all its items
amazon_beauty/beauty.txt.gz         `user item`, each user's lines in order; no times, no texts
ml-100k/u.data, u.item              MovieLens 100K (Harper and Konstan 2015)
"""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEFAULT = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Log:
    """What happened, oldest first: user, item (rows) and time (seconds), each int64 [e];
    the items' texts [n].

    Items are numbered in the order in which they first appear, so what was known at any time is a
    prefix of the rows.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    texts: list[str]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.item)

    def select(self, mask: NDArray[np.bool_]) -> Log:
        """Return the events chosen by mask bool [e], with the texts of the rows up to the
        last one seen in them.
        """
        known = int(self.item[mask].max(initial=-1)) + 1
        return replace(
            self,
            user=self.user[mask],
            item=self.item[mask],
            time=self.time[mask],
            texts=self.texts[:known],
        )


def folder(given: str | None) -> Path:
    """Return the data folder: the one given, else $SANDERLING_DATA, else ../shared/data
    beside the repository.

    Raises `SystemExit` where there is no such folder.
    """
    path = Path(given or os.environ.get("SANDERLING_DATA") or DEFAULT)
    if not path.is_dir():
        raise SystemExit(
            f"expected a folder of benchmark data, found none at {path}; name one with --data PATH"
        )
    return path


def online_retail(root: Path) -> Log:
    """Return the shop's purchases, duplicates of (user, item, time) dropped."""
    with (root / "online_retail" / "items.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["item_id"]: row["text"] for row in csv.DictReader(file)}
    with gzip.open(
        root / "online_retail" / "interactions.csv.gz", "rt", encoding="utf-8", newline=""
    ) as file:
        events = [
            (row["timestamp"], row["user_id"], row["item_id"]) for row in csv.DictReader(file)
        ]
    return _log([(_seconds(time), user, item) for time, user, item in dict.fromkeys(events)], texts)


def beauty(root: Path) -> Log:
    """Return Amazon Beauty; the time of an event is its place in its user's history, which no
    other user shares.
    """
    with gzip.open(root / "amazon_beauty" / "beauty.txt.gz", "rt", encoding="ascii") as file:
        pairs = [line.split() for line in file]
    places: dict[str, int] = {}
    events = []
    for user, item in pairs:
        places[user] = places.get(user, -1) + 1
        events.append((places[user], user, item))
    return _log(events, {})


def movielens(root: Path) -> Log:
    """Return MovieLens 100K, every rating an event; the texts are titles.

    Half of a user's ratings share their second with another, so the order of the file decides
    which is the last.
    """
    lines = (root / "ml-100k" / "u.item").read_text(encoding="latin-1").splitlines()
    texts = dict(line.split("|")[:2] for line in lines)
    rows = [
        line.split()
        for line in (root / "ml-100k" / "u.data").read_text(encoding="ascii").splitlines()
    ]
    return _log([(int(time), user, item) for user, item, _, time in rows], texts)


def texts(table: str, n: int) -> list[str]:
    """Return the column `text` of a CSV table of n rows."""
    found = [row["text"] for row in csv.DictReader(table.splitlines(keepends=True))]
    if len(found) != n:
        raise ValueError(f"expected {n} texts, found {len(found)}")
    return found


def _seconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp).replace(tzinfo=UTC).timestamp())


def _log(events: list[tuple[int, str, str]], texts: dict[str, str]) -> Log:
    """Number users and items; events of one second stay in the order of the file."""
    events = sorted(events, key=lambda event: event[0])
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user = [users.setdefault(name, len(users)) for _, name, _ in events]
    item = [items.setdefault(name, len(items)) for _, _, name in events]
    return Log(
        np.array(user, np.int64),
        np.array(item, np.int64),
        np.array([time for time, *_ in events], np.int64),
        [texts.get(name, "") for name in items],
    )
