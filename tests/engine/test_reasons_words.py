"""What words do to a score: each effect is what a text without the word changes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.bundle.manifest import Prefixes
from sanderling.ranking.reasons_text import without_each_word
from tests.support.bundles import write_bundle
from tests.support.naive_reasons import score_after


@given(st.text(max_size=60))
def test_leaving_a_word_out_leaves_no_occurrence_of_it(text):
    """Of any text, all occurrences of a word go, and every other word stays in its order."""
    for word, left in without_each_word(text):
        words = re.findall(r"\w+(?:['’-]\w+)*", text)
        kept = [other for other in words if other.casefold() != word]
        assert word not in [other.casefold() for other in kept]
        assert "".join(kept) == "".join(re.findall(r"\w+|['’-](?=\w)", left)) or len(kept) < len(
            words
        )
        assert len(left) < len(text)


def test_words_of_an_added_item_have_their_exact_effects(bundle):
    """An item that the app added is scored by its text: each word's effect is what an engine
    changes to which the text came without it."""
    text = "a jazz album about the sea"
    with Engine.open(bundle) as engine:
        engine.observe("anna", "item-3", "click")
        engine.upsert_items([{"id": "new", "text": text}])
        engine.remove_items([f"item-{row}" for row in range(50)])
        shown = engine.recommend("anna", 1)[0]
        why = shown.why()
    assert shown.id == "new"
    assert {word.word for word in why.words} == {"a", "jazz", "album", "about", "the", "sea"}
    left_out = dict(without_each_word(text))
    for word in why.words:
        added = [{"id": "new", "text": left_out[word.word]}]
        without = score_after(bundle, [("item-3", "click")], "new", added=added)
        assert (word.source, word.effect) == ("text", shown.score - without)


def test_words_have_their_exact_effects_behind_prefixes(tmp_path):
    """Where the encoder reads a prefix before each text, it does so when a word is left out, too;
    half a character is read as ever."""
    bundle = tmp_path / "bundle"
    write_bundle(bundle, prefixes=Prefixes("passage: ", "query: "))
    context, text = "rainy \ud800 evening", "jazz album"
    with Engine.open(bundle) as engine:
        engine.upsert_items([{"id": "new", "text": text}])
        why = engine.recommend("anna", 1, context=context, among=["new"])[0].why()
    for word in why.words:
        left = dict(without_each_word(context if word.source == "context" else text))[word.word]
        context_then = left if word.source == "context" else context
        text_then = left if word.source == "text" else text
        added = [{"id": "new", "text": text_then}]
        assert word.effect == why.score - score_after(bundle, [], "new", context_then, added)
    assert len(why.words) == 4
