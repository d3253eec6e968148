"""Texts that a language model cannot read: measured, refused in training and by the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling_quantize import readability
from sanderling_quantize.readability import measure
from sanderling_trainer.policy.model.language_model_files import (
    MINILM,
    LanguageModelError,
    check_readable,
    resolve,
)
from tests.support.languages import TITLES

READ = ["English", "German", "French"]


@pytest.fixture(scope="module")
def minilm() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(Path(resolve(MINILM)) / "tokenizer.json"))


def words(*vocabulary: str) -> tokenizers.Tokenizer:
    """Return a tokenizer of whole words."""
    vocab = {word: row for row, word in enumerate(["[UNK]", *vocabulary])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize("language", READ)
def test_languages_that_minilm_has_learned_are_read(minilm, language):
    """Titles with accents, symbols and emoji in English, German and French pass."""
    found = measure(minilm, TITLES[language])
    assert found.is_readable()
    check_readable(MINILM, {"items": found})


@pytest.mark.parametrize("language", [name for name in TITLES if name not in READ])
def test_languages_that_minilm_cannot_read_are_refused(minilm, language):
    """Titles in other scripts are refused with the share, two texts and the remedy: characters
    are unknown to it, or it knows letters and no words."""
    found = measure(minilm, TITLES[language])
    with pytest.raises(LanguageModelError) as caught:
        check_readable(MINILM, {"items": found})
    message = str(caught.value)
    assert "--language-model" in message
    assert "%" in message
    assert sum(repr(title[:40]) in message for title in TITLES[language]) == 2
    assert "\n" not in message


def test_a_few_foreign_titles_among_english_ones_pass(minilm):
    """One title in fifty may be in a script that the model cannot read."""
    english = [f"{title} {number}" for number in range(4) for title in TITLES["English"]]
    assert measure(minilm, [*english, TITLES["Chinese"][0]]).is_readable()


def test_the_shares_are_those_counted_by_hand():
    """Of `red shoe`, `red ship`, `red  boat` and `big shoe`, `ship` and `boat` are unknown: 8 of
    28 characters, and two of four texts have the same tokens."""
    found = measure(words("red", "shoe", "big"), ["red shoe", "red ship", "red  boat", "big shoe"])
    assert found.unknown == pytest.approx(8 / 28)
    assert found.identical == 0.5
    assert found.spelled == 0.0
    assert found.texts == 4
    assert found.examples == ("red ship", "red  boat")
    assert not found.is_readable()


def test_case_and_symbols_make_no_other_text():
    """Texts that differ in what the tokenizer leaves out on purpose are no identical ones."""
    tokenizer = words("red", "shoe")
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    assert measure(tokenizer, ["Red shoe 🔥", "red SHOE ❤", "red shoe 💧"]).identical == 0.0


def test_letters_with_tokens_of_their_own_are_spelled(minilm):
    """A Russian word of seven letters is seven tokens; Hangul syllables are several tokens each."""
    assert measure(minilm, ["рюкзаки"]).spelled == 1.0
    assert measure(minilm, ["가나"]).spelled == 1.0
    assert measure(minilm, ["running shoe"]).spelled == 0.0


def test_the_tokenizer_stays_as_it_is(minilm):
    """Measuring reads texts uncut and changes no setting of the tokenizer."""
    tokenizer = tokenizers.Tokenizer.from_str(minilm.to_str())
    tokenizer.enable_truncation(4)
    before = tokenizer.to_str()
    long = "one two three four five six "
    assert measure(tokenizer, [f"{long} seven", f"{long} eight"]).identical == 0.0
    assert tokenizer.to_str() == before


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=20))
def test_any_texts_can_be_measured(texts):
    """Shares lie between 0 and 1 for any strings, those with lone surrogates included."""
    found = measure(words("red"), texts)
    assert all(0.0 <= share <= 1.0 for share in (found.unknown, found.spelled, found.identical))


def test_large_catalogs_are_sampled_and_searched_whole(monkeypatch):
    """Characters are counted in a sample; identical texts are found wherever they stand."""
    monkeypatch.setattr(readability, "SAMPLE", 10)
    monkeypatch.setattr(readability, "CHUNK", 7)
    texts = [f"red {'shoe ' * number}" for number in range(1, 101)]
    found = measure(words("red", "shoe"), [*texts, "red ship", "red boat"])
    assert found.identical == pytest.approx(2 / 102)
    assert found.unknown == pytest.approx(0.0, abs=0.01)
