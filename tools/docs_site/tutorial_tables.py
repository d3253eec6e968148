"""Writes the tables of the tutorial: `python -m tools.docs_site.tutorial_tables`.

The books of the tiny bundle, and what 300 simulated readers finished within a year.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta

import numpy as np

from tools.docs_site.outside import ROOT
from tools.tiny.__main__ import BOOKS, catalog, simulated_log

FOLDER = ROOT / "docs" / "tutorial_files"

READERS = 300
YEAR = datetime(2025, 3, 1, tzinfo=UTC)


def main() -> None:
    """Write books.csv and reads.csv."""
    with BOOKS.open(newline="", encoding="utf-8") as file:
        books = catalog(list(csv.DictReader(file))).to_pylist()
    with (FOLDER / "books.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, books[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(books)

    with BOOKS.open(newline="", encoding="utf-8") as file:
        log = simulated_log(list(csv.DictReader(file)), seed=1).to_pylist()
    rng = np.random.default_rng(1)
    ready: dict[str, datetime] = {}
    rows = []
    for read in log:
        reader = read["user_id"]
        if int(reader.removeprefix("reader-")) >= READERS:
            continue
        before = ready.get(reader, YEAR + timedelta(days=rng.uniform(0, 180)))
        ready[reader] = before + timedelta(days=rng.exponential(8.0))
        rows.append((f"{ready[reader]:%Y-%m-%dT%H:%M}", reader, read["item_id"]))
    with (FOLDER / "reads.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("timestamp", "user_id", "item_id"))
        writer.writerows(sorted(rows))


if __name__ == "__main__":
    main()
