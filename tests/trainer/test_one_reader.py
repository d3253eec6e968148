"""The lab and the device read the same file alike: the same values, or the same error."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import TableError
from sanderling.tables.event_log import EventLog, ReadOptions, read_csv_log
from sanderling_trainer.data.tables import read_log

pytestmark = pytest.mark.lab

HEAD = "user_id,item_id,timestamp"
MAPPED = ReadOptions({"user_id": "CustomerID", "item_id": "SKU", "timestamp": "When"})
DROP = ReadOptions(drop_incomplete=True)
AMERICAN = ReadOptions(time_format="%m/%d/%Y %H:%M")

# Files, each with how it is read and the events that are expected of it, or the words of its error.
CORPUS: dict[str, tuple[str | bytes, ReadOptions, list[tuple[str, str, int, str]] | str]] = {
    "seconds": (f"{HEAD}\nu,i,5\n", ReadOptions(), [("u", "i", 5, "like")]),
    "fraction": (f"{HEAD}\nu,i,5.9\n", ReadOptions(), [("u", "i", 5, "like")]),
    "before 1970": (f"{HEAD}\nu,i,-0.5\n", ReadOptions(), [("u", "i", -1, "like")]),
    "order of a second": (
        f"{HEAD}\nu,b,5.9\nu,a,5.1\nu,c,4\n",
        ReadOptions(),
        [("u", "c", 4, "like"), ("u", "b", 5, "like"), ("u", "a", 5, "like")],
    ),
    "iso": (f"{HEAD}\nu,i,1970-01-01 00:00:09\n", ReadOptions(), [("u", "i", 9, "like")]),
    "iso, offset": (
        f"{HEAD}\nu,i,1970-01-01T02:00:09+02:00\n", ReadOptions(), [("u", "i", 9, "like")]
    ),
    "iso, nanoseconds": (
        f"{HEAD}\nu,i,1970-01-01T00:00:09.123456789Z\n", ReadOptions(), [("u", "i", 9, "like")]
    ),
    "day": (f"{HEAD}\nu,i,1970-01-02\n", ReadOptions(), [("u", "i", 86400, "like")]),
    "american": (f"{HEAD}\nu,i,1/2/1970 0:01\n", AMERICAN, [("u", "i", 86460, "like")]),
    "american, wrong": (f"{HEAD}\nu,i,1970-01-02\n", AMERICAN, "a time such as %m/%d/%Y %H:%M"),
    "milliseconds": (f"{HEAD}\nu,i,1700000000000\n", ReadOptions(), "(not milliseconds)"),
    "infinite": (f"{HEAD}\nu,i,inf\n", ReadOptions(), "found `inf`"),
    "words": (f"{HEAD}\nu,i,5\nu,i,soon\n", ReadOptions(), "row 2, column `timestamp`"),
    "ids are text": (
        f"{HEAD}\n007,1.0,5\n7,1,5\n",
        ReadOptions(),
        [("007", "1.0", 5, "like"), ("7", "1", 5, "like")],
    ),
    "blanks are text": (f"{HEAD}\n u ,i,5\n", ReadOptions(), [(" u ", "i", 5, "like")]),
    "rewards": (
        f"{HEAD},reward\nu,a,1,1\nu,b,2,0\nu,c,3,-0.5\n",
        ReadOptions(),
        [("u", "a", 1, "like"), ("u", "b", 2, "neutral"), ("u", "c", 3, "dislike")],
    ),
    "reward out of range": (f"{HEAD},reward\nu,a,1,5\n", ReadOptions(), "a number from -1 to 1"),
    "reward nan": (f"{HEAD},reward\nu,a,1,nan\n", ReadOptions(), "found `nan`"),
    "kinds": (f"{HEAD},kind\nu,a,1,buy\n", ReadOptions(), [("u", "a", 1, "buy")]),
    "kind too long": (f"{HEAD},kind\nu,a,1,{'x' * 513}\n", ReadOptions(), "column `kind`"),
    "empty user": (f"{HEAD}\n,a,1\nu,,1\nu,b,1\n", ReadOptions(), "2 rows lack a value"),
    "empty reward": (f"{HEAD},reward\nu,a,1,\n", ReadOptions(), "column `reward`"),
    "empty, left out": (
        f"{HEAD},reward\n,a,1,1\nu,b,2,\nu,c,3,1\nu,d,,1\n", DROP, [("u", "c", 3, "like")]
    ),
    "bad row after empty ones": (f"{HEAD}\n,a,1\nu,b,x\n", DROP, "row 2, column `timestamp`"),
    "nothing left": (f"{HEAD}\n,a,1\n", DROP, "expected a row with all values, found none"),
    "mapped": ("CustomerID,SKU,When,x\nu,i,5,y\n", MAPPED, [("u", "i", 5, "like")]),
    "mapped, own names": (f"{HEAD}\nu,i,5\n", MAPPED, [("u", "i", 5, "like")]),
    "mapped, absent": ("CustomerID,SKU\nu,i\n", MAPPED, "add or rename When"),
    "mapped, bad": ("CustomerID,SKU,When\nu,i,x\n", MAPPED, "row 1, column `When`"),
    "byte-order mark": (f"\ufeff{HEAD}\nu,i,5\n", ReadOptions(), [("u", "i", 5, "like")]),
    "windows": (f"{HEAD}\r\nu,i,5\r\n".encode(), ReadOptions(), [("u", "i", 5, "like")]),
    "old macs": (f"{HEAD}\ru,i,5\r".encode(), ReadOptions(), [("u", "i", 5, "like")]),
    "no last line end": (f"{HEAD}\nu,i,5", ReadOptions(), [("u", "i", 5, "like")]),
    "blank lines": (f"\n{HEAD}\n\nu,i,5\n\n", ReadOptions(), [("u", "i", 5, "like")]),
    "quoted": (f'{HEAD}\n"a,""b""\nc",i,5\n', ReadOptions(), [('a,"b"\nc', "i", 5, "like")]),
    "inch": (f'{HEAD}\n27" screen,i,5\n', ReadOptions(), [('27" screen', "i", 5, "like")]),
    "open quote": (f'{HEAD}\nu,i,5\n"u,i,6\nu,i,7\n', ReadOptions(), "row 2: expected a double"),
    "closed below": (f'{HEAD}\nu,"i,5\nu,"i,6\n', ReadOptions(), "row 1: expected a comma"),
    "open quote in the header": (f'"{HEAD}\nu,i,5\n', ReadOptions(), "header: expected a double"),
    "long": (f"{HEAD},text\nu,i,5,{'word ' * 60_000}\n", ReadOptions(), [("u", "i", 5, "like")]),
    "too narrow": (f"{HEAD}\nu,i,5\nu,i\n", ReadOptions(), "row 2: expected 3 cells"),
    "too wide": (f"{HEAD}\nu,i,5,6\n", ReadOptions(), "row 1: expected 3 cells"),
    "semicolons": ("user_id;item_id;timestamp\nu;i;5\n", ReadOptions(), "found user_id;item_id;t"),
    "blanks before": ("user_id, item_id, timestamp\nu,i,5\n", ReadOptions(), "add or rename"),
    "twice": (f"{HEAD},item_id\nu,i,5,j\n", ReadOptions(), "found 'item_id' more than once"),
    "latin-1": (
        f"{HEAD}\nu,i,5\nu,caf\xe9,6\n".encode("latin-1"), ReadOptions(), "line 3: expected UTF-8"
    ),
    "empty": ("", ReadOptions(), "found an empty file"),
    "header alone": (f"{HEAD}\n", ReadOptions(), "expected at least one row"),
}  # fmt: skip


def result(read: Callable[[], EventLog]) -> EventLog | str:
    """Return the log, or the text of its error."""
    try:
        return read()
    except TableError as error:
        return str(error)


def both(path: Path, options: ReadOptions) -> EventLog | str:
    """Return what the device reads, after comparing it with what the lab reads."""
    device = result(lambda: read_csv_log(path, options))
    assert result(lambda: read_log(path, options)) == device
    return device


@pytest.mark.parametrize("name", CORPUS)
def test_both_sides_read_the_corpus_alike(tmp_path: Path, name: str) -> None:
    """Each file gives the same events, or the same error with its row, to device and lab."""
    content, options, expected = CORPUS[name]
    path = tmp_path / "log.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = both(path, options)
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert expected in found
        assert str(path) in found
    else:
        assert isinstance(found, EventLog), found
        assert (
            list(zip(found.users, found.items, found.times, found.kinds, strict=True)) == expected
        )

    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    again = both(packed, options)
    assert again == (found.replace("log.csv", "log.csv.gz") if isinstance(found, str) else found)


@given(
    st.lists(st.text(st.sampled_from('ui05",\n\r \u00e9-.'), max_size=6), min_size=1, max_size=20),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_both_sides_read_anything_alike(
    tmp_path_factory: Any, parts: list[str], drop: bool
) -> None:
    """Random text after a header is the same log, or the same error, on both sides."""
    path = tmp_path_factory.mktemp("any") / "log.csv"
    path.write_bytes(f"{HEAD},kind\n{','.join(parts)}\nu,i,5,buy\n".encode())
    both(path, ReadOptions(drop_incomplete=drop))


@pytest.mark.parametrize(
    "name", [name for name, case in CORPUS.items() if isinstance(case[2], list)]
)
def test_parquet_has_the_same_values(tmp_path: Path, name: str) -> None:
    """The cells of a CSV file as text columns of a Parquet file give the same log."""
    import csv

    content, options, _ = CORPUS[name]
    path = tmp_path / "log.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = path.read_bytes().decode("utf-8-sig")
    csv.field_size_limit(2**31 - 1)
    header, *rows = filter(None, csv.reader(text.splitlines(keepends=True)))
    columns = {name: [row[place] or None for row in rows] for place, name in enumerate(header)}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert read_log(tmp_path / "log.parquet", options) == both(path, options)


TIMES: dict[str, pa.Array] = {
    "s": pa.array([5, -1, 2**33], pa.timestamp("s")),
    "ms": pa.array([5_999, -1, 2**33 * 1000], pa.timestamp("ms")),
    "us, Berlin": pa.array([5_000_000, -1, 2**33 * 10**6], pa.timestamp("us", "Europe/Berlin")),
    "ns": pa.array([5 * 10**9 + 123_456_789, -1, 2**33 * 10**9], pa.timestamp("ns")),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_of_every_unit_are_the_same_seconds(tmp_path: Path, name: str) -> None:
    """Timestamps are rounded down to seconds, whatever their unit and zone."""
    table = {"user_id": ["u"] * 3, "item_id": ["b", "a", "c"], "timestamp": TIMES[name]}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet")
    assert (log.times, log.items) == ([-1, 5, 2**33], ["a", "b", "c"])


@pytest.mark.parametrize(
    "times",
    [
        pa.array([2**40], pa.timestamp("s")),
        pa.array([-(2**62)], pa.timestamp("s")),
        pa.array([None], pa.timestamp("ns")),
        pa.array([1], pa.duration("ns")),
        pa.array([True]),
    ],
)
def test_times_that_are_none_are_refused(tmp_path: Path, times: pa.Array) -> None:
    """A time beyond the year 9999, a gap, a duration: an error with row and column."""
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": times})
    with pytest.raises(TableError, match=r"the Table, row 1, column `timestamp`: expected seconds"):
        read_log(table)


def test_naive_times_do_not_depend_on_the_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wall times without a zone are UTC on both sides, also in the night of a clock change."""
    import time

    path = tmp_path / "log.csv"
    path.write_text(f"{HEAD}\nu,a,2024-03-31 02:30:00\nu,b,2024-03-31T03:10:00\n")
    logs = []
    for zone in ("UTC", "Europe/Berlin"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        logs.append(both(path, ReadOptions()))
    monkeypatch.undo()
    time.tzset()
    assert logs[0] == logs[1]
    assert isinstance(logs[0], EventLog)
    assert logs[0].times[1] - logs[0].times[0] == 2400


def test_dates_are_midnight(tmp_path: Path) -> None:
    """A column of dates, in days or in milliseconds, is midnight UTC."""
    for kind in (pa.date32(), pa.date64()):
        times = pa.array([date(1970, 1, 2)], kind)
        table = pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": times})
        assert read_log(table).times == [86400]
