"""Retraining with a new items table: items come, go, and change their texts and attributes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from sanderling.errors import TableError
from sanderling_quantize import checkpoint as as_quantize_reads
from sanderling_trainer.jobs import retrain as job
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.exposure import NEWCOMER_IMPRESSIONS
from sanderling_trainer.policy.model.language_model_files import LanguageModelError
from tests.support.languages import TITLES
from tests.support.nights import ITEMS, SHIPS, Shop, shop_rows

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    """A shop whose devices have shown nothing yet."""
    return Shop(tmp_path_factory.mktemp("shop")).folder


@pytest.fixture
def shop(quiet, tmp_path) -> Shop:
    shutil.copytree(quiet, tmp_path / "shop")
    shop = Shop(tmp_path / "shop")
    (shop.folder / "events").mkdir()
    return shop


def changed(shop: Shop, rows: list[dict[str, str]]):
    """Retrain with these items; return both checkpoints and the result."""
    done = shop.night(options=replace(SHIPS, items=shop.table(rows)))
    before, after = (checkpoint.load(folder) for folder in (shop.active, shop.folder / "next"))
    return before, after, done


def test_kept_items_keep_what_was_learned(shop):
    """Items in another order, without one, with two new ones, keep residual, bias, text vector and
    daily counts bit for bit; the network's other tensors stay.
    """
    rows = shop_rows(ITEMS + 2)
    del rows[3]
    before, after, done = changed(shop, rows[::-1])
    kept = [(int(name[1:]), row) for row, name in enumerate(after.catalog.ids) if name[1:] < "10"]
    old, new = (list(part) for part in zip(*kept, strict=True))
    for name in ("residual", "bias", "text"):
        found, expected = getattr(after.network, name)[new], getattr(before.network, name)[old]
        assert torch.equal(found, expected), name
    for name in ("project", "w1", "input", "popularity_weights"):
        assert torch.equal(getattr(after.network, name), getattr(before.network, name)), name

    liked = {before.catalog.ids[row]: users for row, users in zip(*counts(before), strict=True)}
    del liked["i3"]
    found = {after.catalog.ids[row]: users for row, users in zip(*counts(after), strict=True)}
    assert found == liked
    catalog = done.metrics["catalog"]
    assert (catalog["items"], catalog["added"], catalog["removed"]) == (13, 2, 1)


def counts(found: checkpoint.Checkpoint):
    return found.popularity.row.tolist(), found.popularity.users.tolist()


def test_new_items_start_as_newcomers(shop):
    """A new item has the vector of its text, no residual and the bias of newcomers; the bundle
    is told that it is a newcomer.
    """
    before, after, _ = changed(shop, shop_rows(ITEMS + 1))
    network = after.network
    assert not network.residual[-1].any()
    assert network.bias[-1] == before.network.new_item_bias
    assert torch.equal(network.popularity[-1], network.new_item_popularity)
    assert network.text[-1].norm().item() == pytest.approx(1.0, abs=1e-5)
    read = as_quantize_reads.read(shop.folder / "next")
    assert read.tensors["item.newcomer"].tolist() == [0] * ITEMS + [1]
    assert read.tensors["item.newcomer"].dtype == np.uint8


def test_a_newcomer_is_none_after_100_impressions(shop):
    """Slots that were seen count, each event once, until an item is no newcomer any more."""
    options = replace(SHIPS, items=shop.table(shop_rows(ITEMS + 1)))
    shop.night("one", options)
    for device in shop.devices:
        shop.upload(device.slates(100, shop.clock, ITEMS + 1))
    shop.night("two", options, shop.folder / "one")
    found = checkpoint.load(shop.folder / "two").exposure
    assert found.impressions.sum() == 4 * 100 * 3
    assert found.impressions[-1] < NEWCOMER_IMPRESSIONS
    shop.day()
    shop.night("three", options, shop.folder / "two")
    found = checkpoint.load(shop.folder / "three").exposure
    assert found.impressions.sum() > 1200
    assert found.newcomers.tolist() == [False] * ITEMS + [
        bool(found.impressions[-1] < NEWCOMER_IMPRESSIONS)
    ]


def test_changed_texts_are_encoded_anew(shop):
    """Another attribute changes the text's vector and nothing else of its item."""
    rows = shop_rows()
    rows[5] |= {"colour": "red"}
    before, after, done = changed(shop, rows)
    moved = (after.network.text - before.network.text).abs().max(dim=1).values > 1e-6
    assert moved.nonzero().flatten().tolist() == [5]
    assert torch.equal(after.network.residual, before.network.residual)
    assert done.metrics["catalog"]["encoded_anew"] == 1
    assert done.metrics["catalog"]["rewritten"] == 0
    assert after.catalog.records[5]["colour"] == "red"


def test_texts_that_the_checkpoint_cannot_read_are_refused(shop):
    """A catalog that turned Chinese, and contexts of a new log, are refused before events are read,
    with the remedy; where the policy was trained anyway, the night goes on."""
    titles = TITLES["Chinese"][:ITEMS]
    chinese = [row | {"text": text} for row, text in zip(shop_rows(), titles, strict=True)]
    options = replace(SHIPS, items=shop.table(chinese))
    with pytest.raises(LanguageModelError, match=r"texts of items, found .*`sanderling train"):
        shop.night(options=options)
    log = pa.table({"user_id": ["u"], "item_id": ["i1"], "timestamp": [1], "context": titles[:1]})
    with pytest.raises(LanguageModelError, match="texts of contexts"):
        shop.night(options=replace(SHIPS, interactions=log))
    assert not (shop.folder / "next").exists()

    accept_any_text(shop.active)
    assert shop.night(options=options).verdict == job.SHIP


def accept_any_text(folder: Path) -> None:
    """Let a checkpoint be one that was trained with `train_anyway`."""
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    settings["config"]["train_anyway"] = True
    path.write_text(json.dumps(settings))


def test_without_events_only_the_catalog_ships(shop):
    """A night without events writes the new catalog, and says that nothing was learned."""
    _, after, done = changed(shop, shop_rows(ITEMS + 1))
    assert done.verdict == job.SHIP
    assert "learning" not in done.metrics
    assert any("only catalog and popularity are new: 0 usable" in note for note in done.notes)
    assert after.metadata.release == 2
    same = shop.night("again", replace(SHIPS, items=shop.table(shop_rows())))
    assert same.verdict == job.NOTHING_NEW


def test_removed_items_that_were_shown_are_told(shop):
    """Missing items count as removed; one line says how many of them users have seen, and the
    states that they made are still recognized.
    """
    shop.day()
    rows = shop_rows()
    del rows[:2]
    _, after, done = changed(shop, rows)
    assert "2 of 2 items that --items lacks were shown to users; all 2 count as removed" in (
        done.notes
    )
    assert done.metrics["log"]["dropped"] == {}
    assert len(after.catalog) == ITEMS - 2
    assert done.metrics["learning"]["decisions"] == 120


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"text": "Stuhl"}, "1 kept items have no word of their text before"),
        ({"text": "", "colour": ""}, "1 items have neither text nor attributes"),
    ],
)
def test_a_text_that_looks_like_a_mistake_is_told(shop, change, note):
    """A text that changed entirely, and an empty one, are counted in one line each."""
    rows = [{**row, "colour": ""} for row in shop_rows()]
    rows[4] |= change
    _, _, done = changed(shop, rows)
    assert any(line.startswith(note) for line in done.notes), done.notes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"item_id": "x", "text": "a chair"}], "expected items of the checkpoint among the 1 of"),
        ([{"item_id": "", "text": "a chair"}], "row 1, column `item_id`: expected an item id"),
        ([{"item_id": "i1"}], "expected the columns item_id, text"),
    ],
)
def test_a_faulty_table_changes_nothing(shop, rows, message):
    """Another shop's table, empty ids and missing columns end the job before it writes."""
    with pytest.raises(TableError, match=message):
        changed(shop, rows)
    assert not (shop.folder / "next").exists()


def test_a_repeated_item_is_one_item(shop):
    """An item whose row stands twice in the next catalog is one item."""
    rows = shop_rows(ITEMS + 1)
    _, after, done = changed(shop, [*rows, rows[-1], rows[2]])
    assert len(after.catalog) == ITEMS + 1
    catalog = done.metrics["catalog"]
    assert (catalog["added"], catalog["removed"]) == (1, 0)
