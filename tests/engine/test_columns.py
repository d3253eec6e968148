"""The file of typed columns: the same answers as the catalog, and no other file is believed."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sanderling import Engine
from sanderling.bundle import columns
from sanderling.bundle.columns import FILE
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking import rules
from sanderling.ranking.catalog_attributes import BundleColumns, CatalogAttributes
from sanderling.ranking.column_file import write_columns
from tests.support.bundles import reseal, write_bundle
from tests.support.naive_rules import naive_match
from tests.support.shops import attributes_of, write_shop

values = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "2025-01-01"])
catalogs = st.lists(
    st.dictionaries(st.sampled_from(["x", "y", "z"]), values | st.lists(values, max_size=2)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(catalogs, st.sampled_from(["x", "y"]), st.lists(values.filter(bool), max_size=3))
def test_mapped_columns_answer_as_those_made_of_the_catalog(
    tmp_path_factory, catalog, name, wanted
):
    """Whatever a catalog holds, the file of its columns gives the rows, or the error, that reading
    the catalog gives."""
    folder = tmp_path_factory.mktemp("columns")
    write_columns(folder, catalog)
    answers = []
    for stored in (None, columns.read(folder, len(catalog))):
        bundle = SimpleNamespace(
            columns=stored,
            values=lambda attribute: (record.get(attribute) for record in catalog),
            record=lambda row: catalog[row],
            manifest=SimpleNamespace(sizes=SimpleNamespace(items=len(catalog))),
        )
        attributes = CatalogAttributes(BundleColumns(bundle), len(catalog), [])
        rule = rules.parse({name: {"any": wanted, "exists": True}})
        try:
            answers.append(attributes.matches(rule)[0].tolist())
        except (TypeError, ValueError) as error:
            answers.append(str(error).partition("; near")[0])
    assert answers[0] == answers[1]


def test_a_bundle_with_columns_opens_verified_and_reads_no_catalog(tmp_path, monkeypatch):
    """Rules and errors need no pass over the catalog; texts alone are read from there."""
    write_shop(tmp_path / "bundle", with_columns=True)
    with Engine.open(tmp_path / "bundle", verify=True) as engine:
        where = {"genre": "jazz", "price": {"lt": 50}, "released": {"gt": "2024-06-01"}}
        expected = {
            f"item-{row}"
            for row in range(300)
            if naive_match(where, {**attributes_of(row), "price": row % 90 + 10}, {"released"})
        }
        monkeypatch.setattr(Bundle, "values", lambda *_: pytest.fail("read the catalog"))
        slate = engine.recommend("anna", 300, where=where, greedy=True)
        assert {item.id for item in slate} == expected
        with pytest.raises(ValueError, match="near: 'genre'"):
            engine.recommend("anna", where={"gener": "jazz"})
        monkeypatch.undo()
        titled = engine.recommend("anna", 5, where={"title": "red trail shoe 0"})
        assert [item.id for item in titled] == ["item-0"]


def test_older_bundles_have_no_columns(tmp_path):
    """A bundle without the file opens and verifies; one with a file that no manifest names does
    not."""
    write_bundle(tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle", verify=True).columns is None
    write_columns(tmp_path / "bundle", [{"id": "x", "price": 3}] * 50)
    with pytest.raises(BundleError, match="only the files of the manifest"):
        Bundle.open(tmp_path / "bundle")


def schema_of(*types):
    found = [{"name": f"a{i}", "type": kind} for i, kind in enumerate(types)]
    return np.frombuffer(msgspec.json.encode(found), np.uint8)


WRONG = {
    "no schema": {"schema": None},
    "no JSON": {"schema": np.frombuffer(b"[", np.uint8)},
    "unknown type": {"schema": schema_of("matrix")},
    "equal names": {
        "schema": np.frombuffer(b'[{"name":"a","type":"text"},{"name":"a","type":"text"}]', "u1")
    },
    "no tensor": {"price.values": None},
    "another length": {"price.values": np.zeros(299)},
    "another dtype": {"price.values": np.zeros(300, np.int64)},
    "codes beyond": {"genre.codes": lambda codes: codes + 100},
    "negative codes": {"genre.codes": lambda codes: codes - 100},
    "rows beyond": {"genre.rows": lambda rows: rows + 299},
    "fewer rows": {"genre.rows": lambda rows: rows[1:]},
    "a present row of 2": {"genre.present": lambda present: present + 1},
    "vocabulary of lists": {"genre.vocabulary": np.frombuffer(b"[[1]]", np.uint8)},
    "no vocabulary": {"genre.vocabulary": None},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_columns_are_a_fault(tmp_path, name):
    """Each is a `BundleError` that names the file, when the bundle is verified, and no crash of a
    call when it is not."""
    write_shop(tmp_path / "bundle", with_columns=True)
    path = tmp_path / "bundle" / FILE
    tensors = dict(load_file(path))
    types = {
        attribute["name"]: place
        for place, attribute in enumerate(msgspec.json.decode(tensors["schema"].tobytes()))
    }
    for place, value in WRONG[name].items():
        attribute, _, part = place.partition(".")
        tensor = f"{types[attribute]}.{part}" if part else place
        if value is None:
            del tensors[tensor]
        else:
            tensors[tensor] = value(tensors[tensor]) if callable(value) else value
    save_file(tensors, path)
    reseal(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"columns\.safetensors"):
        Bundle.open(tmp_path / "bundle", verify=True)
    with pytest.raises(BundleError), Engine.open(tmp_path / "bundle") as engine:
        engine.recommend("anna", where={"genre": "jazz", "price": 3})
