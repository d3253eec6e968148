"""A student's part of a large vocabulary: what the catalog needs, and every character."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from sanderling_quantize.encoders.vocabulary import is_unspaced, student_vocabulary
from sanderling_quantize.readability import measure
from tests.support.languages import TITLES
from tests.support.worlds import unigram_tokenizer

pytestmark = pytest.mark.lab

EVERYTHING = [title for titles in TITLES.values() for title in titles]


@pytest.fixture(scope="module")
def whole():
    """A tokenizer of XLM-RoBERTa's kind with the words and characters of all languages."""
    return unigram_tokenizer(EVERYTHING)


@pytest.fixture(scope="module")
def reduced(whole):
    """What a Chinese catalog keeps of it: all characters, its own words, few others."""
    return student_vocabulary(whole, TITLES["Chinese"], len(whole), budget=1200)


def word_pieces(texts):
    """Return a tokenizer of BERT's kind with the words and characters of texts."""
    words = dict.fromkeys(word for text in texts for word in text.split())
    letters = dict.fromkeys("".join(words))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocab = {piece: row for row, piece in enumerate(dict.fromkeys([*pieces, *words]))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    tokenizer.post_processor = tokenizers.processors.BertProcessing(ends[1], ends[0])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def pieces_of(tokenizer, texts):
    return [encoding.tokens for encoding in tokenizer.encode_batch(texts)]


def test_the_catalogs_texts_keep_their_pieces(whole, reduced):
    """Texts of the catalog become the same pieces, special ones included, and each id stands for
    the row of the same piece."""
    full = whole.backend_tokenizer
    assert len(reduced.rows) == 1200 < len(whole)
    titles = TITLES["Chinese"]
    assert pieces_of(reduced.tokenizer, titles) == pieces_of(full, titles)
    for encoding in reduced.tokenizer.encode_batch(titles):
        rows = reduced.rows[encoding.ids]
        assert encoding.tokens == [full.id_to_token(int(row)) for row in rows]


@given(st.lists(st.sampled_from(sorted(set("".join(EVERYTHING)))), max_size=12).map("".join))
@settings(max_examples=200)
def test_what_the_language_model_can_read_the_student_can_spell(whole, reduced, text):
    """A text in any language has no more unknown characters than with the whole vocabulary."""
    assert (
        measure(reduced.tokenizer, [text]).unknown
        <= measure(whole.backend_tokenizer, [text]).unknown
    )
    assert "<unk>" not in reduced.tokenizer.encode(text).tokens


@pytest.mark.parametrize("language", ["Chinese", "Japanese", "Korean", "Arabic", "Russian"])
def test_titles_in_other_languages_have_no_unknown_token(reduced, language):
    """Students of a Chinese catalog spell Japanese, Korean, Arabic and Russian."""
    assert measure(reduced.tokenizer, TITLES[language]).unknown == 0.0


def test_frequent_words_of_the_catalogs_scripts_come_before_those_of_others(whole):
    """Beyond what is used, a Russian catalog keeps Russian words, and augments with them alone."""
    own, others = TITLES["Russian"][:5], TITLES["Russian"][5:]
    vocabulary = student_vocabulary(whole, own, len(whole), budget=1500)
    kept = set(vocabulary.tokenizer.get_vocab())
    assert sum(f"▁{word}" in kept for title in others for word in title.split()) > 20
    letters = {letter for word in vocabulary.words for letter in word if letter.isalpha()}
    assert letters
    assert not any(map(is_unspaced, letters))


def test_a_vocabulary_within_the_budget_stays_whole(whole):
    """Language models for English keep their tokenizer to the byte."""
    vocabulary = student_vocabulary(whole, ["红色"], 9000, budget=len(whole))
    assert vocabulary.rows.tolist() == list(range(9000))
    assert json.loads(vocabulary.tokenizer.to_str()) == json.loads(whole.backend_tokenizer.to_str())


def test_pieces_of_bert_are_reduced_too():
    """WordPiece vocabularies keep used words, characters with and without mark, and the ends."""
    tokenizer = word_pieces(EVERYTHING)
    characters = 5 + 2 * len(set("".join(EVERYTHING)) - {" "})
    titles = TITLES["German"]
    vocabulary = student_vocabulary(tokenizer, titles, len(tokenizer), budget=characters + 100)
    full = tokenizer.backend_tokenizer
    assert pieces_of(vocabulary.tokenizer, titles) == pieces_of(full, titles)
    assert measure(vocabulary.tokenizer, EVERYTHING).unknown == 0.0
    assert vocabulary.tokenizer.encode("и").tokens == ["[CLS]", "и", "[SEP]"]


def test_scripts_without_spaces_are_split_by_the_tokenizer(reduced):
    """Words keep the space before them; together they are the text."""
    known = TITLES["Chinese"][0].split()[0]
    title = f"{known}鞋红 男款"
    assert reduced.split(title)[0] == f" {known}"
    assert len(reduced.split(title)) > 2
    assert "".join(reduced.split(title)).strip() == title
    assert reduced.split("red running shoe") == [" red", " running", " shoe"]
