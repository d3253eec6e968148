"""`Engine.search` and `Engine.similar`: what they find, in which order, and wrong arguments."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from sanderling import Engine, FoundItem, FoundItems
from sanderling.cli import app
from sanderling.kernels.loader import chosen
from sanderling.ranking.text_encoder import TextEncoder
from sanderling.ranking.text_search.search import MEANING_WEIGHT, TASTE_WEIGHT, item_text, words_in
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive_search import naive_word_scores


def missing(*_, **__):
    """Encode as an app without the extra `text` does."""
    raise ImportError("encoding text needs the extra `text`")


def by_words(
    engine: Engine, query: str, user: str | None = None, k: int = 10, **rule: Any
) -> FoundItems:
    """Search as an app does that has no encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextEncoder, "encode", missing)
        return engine.search(query, user, k, **rule)


def ids(found: FoundItems) -> list[str]:
    """Return the ids of what was found."""
    return [item.id for item in found]


def naive_search(engine: Engine, query: str, user: str | None, meaning: bool) -> dict[str, float]:
    """Return the score of each item that may be found, by the formula of docs/MATH.md."""
    scorer = engine._active_bundle.scorer
    n = scorer.bundle.manifest.sizes.items
    rows = range(n + len(scorer.overlay.added))
    records = [scorer.bundle.record(row) for row in range(n)] + list(scorer.overlay.added)
    words = naive_word_scores(words_in(query), [item_text(record) for record in records], n)

    def centred(vector, bias):
        scores = [
            float(scorer.vector(row).astype(np.float64) @ vector)
            + bias * float((scorer.index if row < n else scorer.overlay.index).bias[row % n])
            for row in rows
        ]
        return (np.array(scores) - np.mean(scores[:n])) / np.std(scores[:n])

    weight = TASTE_WEIGHT / len(words_in(query))
    total = np.array(words) + weight * centred(engine._taste(scorer, user, 0), 1)
    if meaning:
        total += MEANING_WEIGHT * centred(scorer.project(query), 0)
    mask = scorer.overlay.mask
    is_hidden = np.zeros(len(total), bool)
    is_hidden[:n] = False if mask is None else mask.hidden
    return {
        records[row]["id"]: total[row]
        for row in rows
        if not is_hidden[row] and (meaning or words[row] > 0)
    }


def check_search(engine: Engine, query: str, user: str | None, k: int, meaning: bool) -> None:
    """Compare a search with a loop over all items, without a rule and with one."""
    scores = naive_search(engine, query, user, meaning)
    search = engine.search if meaning else partial(by_words, engine)
    check_best(search(query, user, k), scores, k)

    scorer = engine._active_bundle.scorer
    prices = {id: scorer.item(scorer.find(id)).attributes.get("price", 0) for id in scores}
    cheap = {id: score for id, score in scores.items() if 0 < prices[id] < 30}
    check_best(search(query, user, k, where={"price": {"lt": 30}}), cheap, k)


def check_best(found: FoundItems, scores: dict[str, float], k: int) -> None:
    """Compare what was found with the scores of all that may be."""
    best = sorted(scores.values(), reverse=True)[:k]
    np.testing.assert_allclose([item.score for item in found], best, atol=1e-5)
    for item in found:
        assert item.score == pytest.approx(scores[item.id], abs=1e-5)


QUERIES = [
    "red trail shoe",
    "warm j",
    "coffe",
    "tent 7",
    "mystry nov",
    "zzzz",
    "sea red zzzz",
    "re",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("user", [None, "anna"])
def test_search_is_the_exact_best_of_words_meaning_and_taste(engine, query, user):
    """The items found, and their scores, are those of a loop over all items, whatever the device
    has added and removed."""
    engine.observe("anna", "item-3")
    check_search(engine, query, user, 7, meaning=True)
    engine.upsert_items(
        [{"id": "new", "text": "red trail running shoe"}, {"id": "item-4", "text": "coffee sea"}]
    )
    engine.remove_items(["item-0"])
    check_search(engine, query, user, 7, meaning=True)


@pytest.mark.parametrize("query", QUERIES)
def test_without_an_encoder_words_and_taste_decide(engine, query):
    """Without onnxruntime the items found are those with a word of the query, in exact order."""
    engine.observe("anna", "item-3")
    check_search(engine, query, "anna", 50, meaning=False)


def test_three_letters_and_any_script(engine):
    """The beginning of a word, one character of Chinese, and a typing error find the item."""
    engine.upsert_items(
        [
            {"id": "tea", "text": "乌龙茶", "origin": ["Fujian"]},
            {"id": "shoe", "text": "Laufschuh für Größe 43"},
        ]
    )
    for query in ("乌龙", "茶", "fuj", "Fuijan"):
        assert ids(by_words(engine, query)) == ["tea"]
    for query in ("lau", "GRÖSSE", "grosse", "laufshcuh"):
        assert ids(by_words(engine, query)) == ["shoe"]


def test_what_the_device_changes_is_found_and_hidden_at_once(engine):
    """Added, changed and removed items are searched as they are now."""
    assert not by_words(engine, "velociped")
    engine.upsert_items([{"id": "bike", "text": "red velociped", "brand": "Diamant"}])
    assert ids(by_words(engine, "velociped")) == ["bike"]
    assert ids(by_words(engine, "diamant")) == ["bike"]

    engine.upsert_items([{"id": "bike", "text": "red bicycle", "brand": "Diamant"}])
    assert not by_words(engine, "velociped")
    engine.remove_items(["bike"])
    assert not by_words(engine, "diamant")
    assert "item-0" in ids(by_words(engine, "red", k=50))
    engine.remove_items(["item-0"])
    assert "item-0" not in ids(by_words(engine, "red", k=50))


def test_changed_attributes_are_searched_as_they_are_now(engine):
    """A text that `set_attributes` gives is found, one that it takes away is not, of the bundle's
    items and of added ones; the others are found as before."""
    engine.upsert_items([{"id": "bike", "text": "red velociped"}])
    for item in ("item-3", "bike"):
        engine.set_attributes({item: {"brand": "Diamant", "price": 5}})
        assert ids(by_words(engine, "diamant")) == [item]
        assert set(ids(by_words(engine, "mystery", k=50))) == {f"item-{i}" for i in range(3, 50, 7)}
        engine.set_attributes({item: {"brand": "Peugeot"}})
        assert not by_words(engine, "diamant")
        assert ids(by_words(engine, "peugeot")) == [item]
        engine.set_attributes({item: {"brand": None}})
        assert not by_words(engine, "peugeot")


def test_a_query_without_words_finds_nothing_and_a_long_one_is_cut(engine):
    """Neither is an error."""
    assert len(engine.search("")) == len(engine.search(" \n!?\ud800")) == 0
    long = engine.search("red " * 2500)
    assert len("red " * 2500) == 10_000
    assert long.items[0].id == engine.search("red " * 128).items[0].id


def test_similar_items_have_the_largest_cosines(engine):
    """They are those of a loop over all items, the item itself left out, added ones included."""
    engine.upsert_items([{"id": "new", "text": "red trail shoe 0"}])
    engine.remove_items(["item-7"])
    scorer = engine._active_bundle.scorer
    vectors = {
        item: scorer.vector(scorer.find(item)).astype(np.float64)
        for item in [f"item-{i}" for i in range(50) if i != 7] + ["new"]
    }
    for item in ("item-3", "new"):
        cosines = {
            other: vectors[item] @ v / np.linalg.norm(vectors[item]) / np.linalg.norm(v)
            for other, v in vectors.items()
            if other != item
        }
        found = engine.similar(item, 50)
        assert len(found) == 49
        best = sorted(cosines.values(), reverse=True)
        np.testing.assert_allclose([other.score for other in found], best, atol=1e-6)
        for other in found:
            assert other.score == pytest.approx(cosines[other.id], abs=1e-6)


def test_similar_items_meet_a_rule(engine):
    """Those that do are found, in the order in which they are found without it."""
    cheap = [item for item in engine.similar("item-3", 49) if item.attributes["price"] < 30]
    found = engine.similar("item-3", 49, where={"price": {"lt": 30}})
    assert 0 < len(found) < 49
    assert list(found) == cheap


def test_what_was_found_is_a_sequence_that_json_holds(engine):
    """A result has items, slices, and a form for JSON; its items can be excluded from a slate."""
    found = engine.similar("item-1", 5)
    assert isinstance(found, FoundItems)
    assert isinstance(found[0], FoundItem)
    assert [*found[1:3]] == [found[1], found[2]]
    assert json.loads(json.dumps(found.to_dict()))["items"][0]["id"] == found[0].id
    assert not {item.id for item in engine.recommend("anna", exclude=found)} & {
        item.id for item in found
    }
    assert engine.similar(found[0], 3).items == engine.similar(found[0].id, 3).items


def test_a_search_records_nothing_and_cannot_be_rewarded(engine):
    """There is no decision in the outbox, and a reward says why it is refused."""
    before = engine.counters()["outbox"]
    found = engine.search("red", "anna")
    engine.similar("item-1")
    assert engine.counters()["outbox"] == before
    for call in (engine.seen, lambda slate: engine.reward(slate, "item-1", 1.0)):
        with pytest.raises(TypeError, match=r"^slate: .*record no decision"):
            call(found)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda engine: engine.search(5), TypeError, "^query: expected str, found int"),
        (lambda engine: engine.search("red", 5), TypeError, "^user: expected str"),
        (lambda engine: engine.search("red", k=1.0), TypeError, "^k: expected int"),
        (lambda engine: engine.search("red", k=0), ValueError, "^k: expected 1 to 1000"),
        (lambda engine: engine.similar("item-1", 1001), ValueError, "^k: expected 1 to 1000"),
        (lambda engine: engine.similar(None), TypeError, "^item: expected str"),
        (lambda engine: engine.similar(""), ValueError, "^item: expected 1 to 512"),
        (lambda engine: engine.similar("gone"), ValueError, "^item: .* catalog, found 'gone'"),
        (lambda engine: engine.search("red", where=["price"]), TypeError, "^where: expected"),
        (lambda engine: engine.search("", where={"colour": 1}), ValueError, "^where: colour: "),
        (lambda engine: engine.similar("item-1", where={"colour": 1}), ValueError, "^where: "),
        (lambda engine: engine.warm_up(search="yes"), TypeError, "^search: expected True"),
    ],
)
def test_wrong_arguments_are_named(engine, call, error, message):
    """One clear error in the caller's words."""
    with pytest.raises(error, match=message):
        call(engine)


def test_every_kind_of_kernel_finds_the_same(tmp_path, monkeypatch):
    """Searches by compiled kernels and by numpy have the same scores, bit for bit."""
    write_bundle(tmp_path / "bundle", items=700)
    results = []
    for source in ("compiled", "numpy"):
        monkeypatch.setenv("SANDERLING_KERNELS", source)
        chosen.cache_clear()
        with Engine.open(tmp_path / "bundle", clock=FakeClock(), entropy=FakeEntropy()) as engine:
            engine.warm_up(search=True)
            searches = [engine.search(query, "anna", 20) for query in QUERIES]
            results.append((searches, engine.similar("item-1", 20)))
    chosen.cache_clear()
    assert results[0] == results[1]


def shown(monkeypatch, capsys, *arguments: str) -> tuple[object, str, str]:
    """Run `sanderling search`, installed or not; return exit status, stdout and stderr."""
    commands = [
        EntryPoint(name, f"sanderling.cli.commands:{name}", app.COMMANDS)
        for name in ("search", "doctor")
    ]
    monkeypatch.setattr(app, "entry_points", lambda group: commands)
    monkeypatch.setattr(sys, "argv", ["sanderling", "search", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.run()
    return (ended.value.code or 0, *capsys.readouterr())


def test_the_command_finds_what_the_engine_does(bundle, monkeypatch, capsys):
    """Its lines have score, id and title; with --json they are one object."""
    call = ("mystery nov", "--bundle", str(bundle), "--k", "3")
    status, text, _ = shown(monkeypatch, capsys, *call)
    with Engine.open(bundle) as engine:
        found = engine.search("mystery nov", k=3)
        cheap = engine.search("mystery nov", k=3, where={"price": {"lt": 30}})
    assert status == 0
    assert [line.split()[1] for line in text.splitlines()] == ids(found)

    rule = ("--where", '{"price": {"lt": 30}}', "--json")
    status, text, _ = shown(monkeypatch, capsys, *call, *rule)
    assert json.loads(text) == cheap.to_dict()


@pytest.mark.parametrize(
    ("rule", "status", "message"),
    [
        ("{", 2, "--where: expected a rule as JSON"),
        ('{"colour": 1}', "sanderling: where: colour: expected an attribute", ""),
    ],
)
def test_a_wrong_rule_on_the_command_line_is_named(
    bundle, monkeypatch, capsys, rule, status, message
):
    """What is no JSON is wrong usage; what is no rule of this catalog one line."""
    call = ("red", "--bundle", str(bundle), "--where", rule)
    code, _, errors = shown(monkeypatch, capsys, *call)
    assert str(code).startswith(str(status))
    assert message in " ".join(errors.replace("│", " ").split())


def test_texts_become_the_vectors_of_contexts(engine):
    """Rows are unit vectors in the texts' order, the bits that the encoder gives a context."""
    texts = ["rainy evening", "", "a \ud800 b", "rainy evening"]
    vectors = engine.encode(iter(texts))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    encoder = engine._active_bundle.scorer.encoder
    assert np.array_equal(vectors, [encoder.encode(text, keep=False) for text in texts])
    assert engine.encode([]).shape == (0, vectors.shape[1])


@pytest.mark.parametrize("texts", ["one text", b"bytes", ["a", 7], [None], 7, {"a": 1}])
def test_what_is_not_several_texts_is_refused(engine, texts):
    """One text alone would be read as its letters: it is a `TypeError` as other types are."""
    with pytest.raises(TypeError, match=r"^texts: expected"):
        engine.encode(texts)


def test_an_encoder_that_is_missing_is_an_error(engine, monkeypatch):
    """Without the extra `text` there is no vector to go on with: the error says what to install."""
    monkeypatch.setattr(TextEncoder, "encode", missing)
    with pytest.raises(ImportError, match="extra `text`"):
        engine.encode(["a"])
