"""`schema.toml`: what it may say, what follows without it, and values of another type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sanderling.errors import TableError
from sanderling_trainer.data.attribute_values import known_types
from sanderling_trainer.data.schema import NO_SCHEMA, Attribute, find_schema, schema_of
from sanderling_trainer.data.tables import read_catalog

pytestmark = pytest.mark.lab

CSV = """item_id,text,price,genres,new,released,shelf,size
a,red shoe,9.50,jazz|folk,true,2024-05-01,1,40
b,blue coat,,folk,false,2024-06-01T12:00:00Z,2,41
c,green tent,3,,,,,
"""
SCHEMA = """
[items]
price = "number"
genres = { type = "categories", separator = "|" }
new = "boolean"
released = "time"
shelf = "category"
size = { type = "number", learn = false }
"""


def write(folder, schema=SCHEMA, csv=CSV):
    (folder / "items.csv").write_text(csv)
    if schema is not None:
        (folder / "schema.toml").write_text(schema)
    return folder / "items.csv"


def test_a_schema_beside_the_table_types_its_cells(tmp_path):
    """Cells of a CSV file are what the schema says; empty ones are missing, and the language model
    reads what has words."""
    catalog = read_catalog(write(tmp_path))
    assert {name: each.type for name, each in catalog.attributes.items()} == {
        "price": "number",
        "genres": "categories",
        "new": "boolean",
        "released": "time",
        "shelf": "category",
        "size": "number",
    }
    assert catalog.records[0] == {
        "id": "a",
        "price": 9.5,
        "genres": ["jazz", "folk"],
        "new": True,
        "released": "2024-05-01",
        "shelf": "1",
        "size": 40,
        "title": "red shoe",
    }
    assert catalog.records[2] == {"id": "c", "price": 3, "title": "green tent"}
    assert catalog.texts == [
        "red shoe. genres: jazz folk. shelf: 1",
        "blue coat. genres: folk. shelf: 2",
        "green tent",
    ]
    assert not catalog.attributes["size"].learn


def test_without_a_schema_types_follow_from_values(tmp_path):
    """Text in CSV stays text; numbers, booleans, times, lists and vectors of a frame are typed."""
    assert {each.type for each in read_catalog(write(tmp_path, None)).attributes.values()} == {
        "category",
        "time",
    }
    table = pa.table(
        {
            "item_id": ["a", "b"],
            "text": ["red shoe", "blue coat"],
            "title": [1, 2],
            "price": [9.5, None],
            "genres": [["jazz"], []],
            "new": [True, False],
            "image": [[0.5] * 8, None],
            "sizes": [[36.5, 37.0], [40.0]],
            "nothing": pa.nulls(2, pa.string()),
        }
    )
    catalog = read_catalog(table)
    assert {name: each.type for name, each in catalog.attributes.items()} == {
        "title": "text",
        "price": "number",
        "genres": "categories",
        "new": "boolean",
        "image": "vector",
        "sizes": "categories",
    }
    assert catalog.vectors["image"].shape == (2, 8)
    assert np.isnan(catalog.vectors["image"][1]).all()
    assert "image" not in catalog.records[0]


@pytest.mark.parametrize(("schema", "expected"), [
    ("[items]\nprice = 'nubmer'", "items.price: expected one of text, category, .* found 'nubmer'"),
    ("[items]\nprice = 3", "items.price: expected one of text, .* found 3"),
    ("[itmes]\nprice = 'number'", "expected the tables `items` and `context`, found `itmes`"),
    ("items = 3", "items: expected a table of names and types, found 3"),
    ("[items]\nid = 'text'", "items.id: expected an attribute, found a field"),
    ("[items]\ntitle = 'number'", "items.title: expected text, found number"),
    ("[items]\nprice = { type = 'number', separator = '|' }",
     "items.price: expected type, learn of a number, found 'separator'"),
    ("[items]\nprice = { type = 'number', learn = 'no' }",
     "items.price: learn: expected a bool, found 'no'"),
    ("[context]\nmood = 'text'", "context.mood: expected one of category, .* found 'text'"),
    ("[items", "expected a schema in TOML, found"),
    ("[items]\nweight = 'number'", "expected a column `weight`, which the schema declares, found"),
])  # fmt: skip
def test_a_wrong_schema_is_one_error(tmp_path, schema, expected):
    """It names the file and the entry, what was expected and what was found."""
    with pytest.raises(TableError, match=expected):
        read_catalog(write(tmp_path, schema))


@pytest.mark.parametrize(("cell", "wrong", "expected"), [
    ("9.50", "cheap", r"items\.csv, row 1, column `price`: expected a number, found `cheap`; fix"),
    ("9.50", "inf", "column `price`: expected a number, found `inf`"),
    ("true", "maybe", "row 1, column `new`: expected true or false, found `maybe`"),
    ("2024-05-01", "soon", "row 1, column `released`: expected seconds since 1970 .* found `soon`"),
])  # fmt: skip
def test_a_cell_of_another_type_is_one_error(tmp_path, cell, wrong, expected):
    """It names file, row and column, what was expected and found, and what to do."""
    with pytest.raises(TableError, match=expected):
        read_catalog(write(tmp_path, csv=CSV.replace(cell, wrong, 1)))


def test_a_given_schema_goes_before_the_file(tmp_path):
    """A mapping or a path is taken instead of the file beside the table; a missing path and a
    frame without one are no schema.toml of another folder."""
    table = write(tmp_path)
    assert find_schema(table).items["price"].type == "number"
    assert find_schema(table, {"items": {"price": "category"}}).items["price"].type == "category"
    assert find_schema(tmp_path).items["price"].type == "number"
    assert find_schema(pa.table({"a": [1]})) == NO_SCHEMA
    with pytest.raises(TableError, match=r"none\.toml: expected a schema in TOML"):
        find_schema(table, tmp_path / "none.toml")


def test_an_attribute_keeps_its_type_from_release_to_release(tmp_path):
    """What the active release has as a number is one in the next catalog: text that reads as one
    becomes one, other text is an error, and so is another declaration."""
    before = {"price": Attribute("number"), "gone": Attribute("time")}
    table = write(tmp_path, None)
    known = known_types({}, before, 3, "schema.toml")
    assert read_catalog(table, None, known).records[0]["price"] == 9.5
    table.write_text(CSV.replace("9.50", "cheap"))
    expected = (
        "row 1, column `price`: expected a number, as in release 3, found `cheap`; fix the cell,"
        " give the attribute another name, or train a new policy"
    )
    with pytest.raises(TableError, match=expected):
        read_catalog(table, None, known)
    declared = schema_of({"items": {"price": "category"}}, "schema.toml", tmp_path).items
    with pytest.raises(TableError, match=r"items\.price: expected number, as in release 3, found"):
        known_types(declared, before, 3, "schema.toml")


def vector_table(tmp_path):
    pq.write_table(
        pa.table({"item_id": ["a", "b"], "text": ["x", "y"]}), tmp_path / "items.parquet"
    )
    return tmp_path / "items.parquet"


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_vectors_may_lie_in_a_file_beside_the_table(tmp_path, suffix):
    """Rows of an array in the order of the table, or any rows with ids; items without one are
    missing."""
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / f"image.{suffix}"
    if suffix == "npy":
        np.save(path, vectors)
    elif suffix == "safetensors":
        save_file({"image": vectors, "other": vectors}, path)
    else:
        ids = ["z", "b"]
        pq.write_table(pa.table({"item_id": ids, "image": list(vectors)}), path)
        vectors[0] = np.nan
    (tmp_path / "schema.toml").write_text(
        f"[items]\nimage = {{ type = 'vector', file = '{path.name}' }}"
    )
    found = read_catalog(vector_table(tmp_path)).vectors["image"]
    assert np.array_equal(found, vectors, equal_nan=True)


@pytest.mark.parametrize(("array", "expected"), [
    (np.zeros((3, 2), np.float32), r"expected numbers of the shape \[2, width\], .* found float32"),
    (np.zeros(2, np.float32), r"shape \[2, width\]"),
    (np.array([["a"], ["b"]]), r"shape \[2, width\]"),
])  # fmt: skip
def test_a_file_of_other_vectors_is_one_error(tmp_path, array, expected):
    """It names the file and both shapes."""
    np.save(tmp_path / "image.npy", array)
    schema = {"items": {"image": {"type": "vector", "file": "image.npy"}}}
    with pytest.raises(TableError, match=expected):
        read_catalog(vector_table(tmp_path), None, schema_of(schema, "s", tmp_path).items)


def test_a_vector_of_another_width_is_one_error():
    """It names the row and both widths; a column that is no list names its type."""
    types = {"image": Attribute("vector")}
    table = {"item_id": ["a", "b"], "text": ["x", "y"], "image": [[1.0, 2.0], [3.0]]}
    expected = "row 2, column `image`: expected a list of 2 numbers, .* found `a list of 1`"
    with pytest.raises(TableError, match=expected):
        read_catalog(pa.table(table), None, types)
    with pytest.raises(TableError, match=r"column `image`: expected lists of numbers, .* string"):
        read_catalog(pa.table({**table, "image": ["a.png", "b.png"]}), None, types)
