"""The shop of examples/shop: what counts as asked for and bought, and how its data are read."""

from __future__ import annotations

import gzip
import zipfile
from datetime import datetime

import pyarrow as pa
import pytest

from examples import online_retail
from examples.shop.shop import STOCK_S, Shop

NOW = 1_000_000_000
OLD = NOW - STOCK_S - 1


def log(*rows):
    """Return a table of (user, item, seconds, price)."""
    users, items, times, prices = (list(column) for column in zip(*rows, strict=True))
    texts = [f"a {item}" for item in items]
    columns = [users, items, times, texts, prices]
    return pa.table(columns, [*online_retail.COLUMNS, "price"])


def test_a_customer_wants_what_is_new_to_them_in_stock_and_within_their_limit():
    """What they had, what is sold out, too dear or bought after the window is not wanted."""
    shop = Shop(
        log(
            ("ann", "cup", NOW - 10, 2.0),
            ("ann", "pot", NOW - 9, 4.0),
            ("bob", "jug", NOW - 8, 3.0),
            ("bob", "urn", NOW - 7, 90.0),
            ("bob", "jar", OLD, 1.0),
            ("ann", "cup", NOW, 2.0),
            ("ann", "jug", NOW + 1, 3.0),
            ("ann", "urn", NOW + 2, 90.0),
            ("ann", "jar", NOW + 3, 1.0),
            ("ann", "new", NOW + 4, 1.0),
            ("ann", "odd", NOW + 5, 50.0),
            ("eve", "jug", NOW + 6, 3.0),
            ("ann", "pan", NOW + 100, 1.0),
        ),
        NOW,
        NOW + 100,
    )

    assert shop.limit == {"ann": 3.5}
    assert shop.wanted == {"ann": {"jug", "new"}}
    assert shop.stock == {"cup": 1, "pot": 1, "jug": 1, "urn": 1, "jar": 0}
    assert shop.launched.keys() == {"new", "odd"}
    assert shop.items["cup"] == {"text": "a cup", "price": 2.0}
    assert shop.ndcg([["jug"]]).tolist() == [1.0]
    assert shop.ndcg([["jug"]], launched=True)[0] < 1.0


def test_uci_archive_is_read_without_returns_postage_and_unknown_customers(tmp_path):
    """Of five rows of the sheet the one sale of goods to a known customer is left."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    moment = datetime.fromisoformat("2011-05-01T08:26:00")
    book.active.append(["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate"])
    for code, quantity, user in (
        ("85123A", 6, 17850.0),
        ("85123A", -6, 17850.0),
        ("POST", 1, 17850.0),
        (22752, 2, None),
    ):
        book.active.append(["536365", code, " CUP ", quantity, moment, 2.55, user, "Oman"])
    book.save(tmp_path / "Online Retail.xlsx")
    with zipfile.ZipFile(tmp_path / "online_retail.zip", "w") as archive:
        archive.write(tmp_path / "Online Retail.xlsx", "Online Retail.xlsx")

    rows = online_retail.read_excel(tmp_path / "online_retail.zip").to_pylist()

    assert rows == [
        {"user_id": "17850", "item_id": "85123A", "timestamp": moment, "text": "CUP", "price": 2.55}
    ]


def test_a_users_own_files_are_read_in_order_of_time_each_purchase_once(tmp_path, monkeypatch):
    """Ids stay texts, times become seconds, and a repeated line counts once."""
    folder = tmp_path / "online_retail"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,text\n007,CUP\n8A,JUG\n", encoding="utf-8")
    lines = [
        "user_id,item_id,timestamp,quantity",
        "1,8A,1970-01-01T00:01:00,2",
        "1,007,1970-01-01T00:00:05,6",
        "1,007,1970-01-01T00:00:05,6",
    ]
    (folder / "interactions.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setenv("SANDERLING_DATA", str(tmp_path))

    rows = online_retail.read().to_pylist()

    names = [*online_retail.COLUMNS, "pack"]
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("1", "007", 5, "CUP", 6),
        ("1", "8A", 60, "JUG", 2),
    ]
