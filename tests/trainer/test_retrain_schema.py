"""Attributes from release to release: kept types, new features of kept items, changed vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sanderling.errors import TableError
from sanderling_trainer.data.attribute_values import check_same_kinds
from sanderling_trainer.data.schema import Attribute
from sanderling_trainer.data.tables import read_catalog
from sanderling_trainer.policy.living_catalog import change_between
from tests.support.nights import SHIPS, Shop, shop_rows

pytestmark = pytest.mark.lab


def test_a_changed_type_is_one_error_before_anything_is_learned(tmp_path):
    """A category of texts that becomes a number, declared again or not, and another declaration
    beside the new table, are errors with file, row, column, what was expected and found, and what
    to do."""
    shop = Shop(tmp_path)
    shop.day(2)
    rows = [{**row, "colour": at} for at, row in enumerate(shop_rows())]
    table = shop.table(rows)
    expected = (
        r"new-items\.parquet, row 1, column `colour`: expected texts, as in release 1, found `0`;"
        " fix the column"
    )
    for schema in (None, {"items": {"colour": "category"}}):
        with pytest.raises(TableError, match=expected):
            shop.night(options=replace(SHIPS, items=str(table), schema=schema))

    table = shop.table(shop_rows())
    (tmp_path / "schema.toml").write_text("[items]\ncolour = 'number'")
    expected = r"schema\.toml: items\.colour: expected category, as in release 1, found number"
    with pytest.raises(TableError, match=expected):
        shop.night(options=replace(SHIPS, items=str(table)))
    assert not (tmp_path / "next").exists()


def test_values_of_a_category_keep_their_kind():
    """New texts are fine among texts, numbers are not; without earlier values anything is."""
    known = {"hour": Attribute("category"), "tags": Attribute("categories")}
    before = [{"hour": 1, "tags": ["a"]}, {"hour": 2}]
    check_same_kinds("t", before, [{"hour": 7, "tags": ["b", "c"]}, {}], known, 2)
    check_same_kinds("t", [], [{"hour": "7"}], known, 2)
    with pytest.raises(TableError, match=r"t, row 2, column `hour`: expected numbers, as in"):
        check_same_kinds("t", before, [{}, {"hour": "7"}], known, 2)
    with pytest.raises(TableError, match=r"row 1, column `tags`: expected texts, as in release 2"):
        check_same_kinds("t", before, [{"tags": ["b", 3]}], known, 2)


def test_a_changed_vector_is_a_change_of_the_catalog(tmp_path):
    """A kept item whose vector alone is new counts as changed; equal and missing ones do not."""

    def catalog(vectors):
        table = pa.table({"item_id": ["a", "b"], "text": ["x", "y"], "image": vectors})
        pq.write_table(table, tmp_path / "items.parquet")
        return read_catalog(tmp_path / "items.parquet", None, {"image": Attribute("vector")})

    before = catalog([[1.0, 2.0], None])
    assert np.isnan(before.vectors["image"][1]).all()
    assert not change_between(before, catalog([[1.0, 2.0], None]))
    assert change_between(before, catalog([[1.0, 2.5], None])).changed_records == 1
    assert change_between(before, catalog([[1.0, 2.0], [0.0, 1.0]])).changed_records == 1
