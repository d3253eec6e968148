"""The vocabulary of a student: what a catalog needs of a large one, and every single character.

A multilingual tokenizer has 250,000 pieces of words, which would take 24 MB in codes. A student
keeps those of its catalog's texts, all single characters, so that what the language model can read
the student can spell, and the most frequent pieces of the catalog's scripts.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_quantize.encoders.tokenization import Tokens, tokenize

BUDGET = 40_000
"""Words of a student at most: with two layers of 384 dimensions the encoder has 7.7 MB."""

MIN_SCRIPT_SHARE = 0.005
"""Of the texts' letters, for a script to be one of theirs."""

MARKS = ("▁", "##")
"""What tokenizers write before pieces: a word begins here, or goes on."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with the rows of the language model's table that its ids stand for."""

    tokenizer: Any
    """A `tokenizers.Tokenizer`."""

    rows: NDArray[np.int64]
    """[v], the language model's id of each id."""

    words: list[str]
    """Pieces that a text of the catalog's scripts may have, without marks."""

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Return each text's token ids, int64 [s], cut to `max_tokens`."""
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        encodings = self.tokenizer.encode_batch(list(texts))
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    def split(self, text: str) -> list[str]:
        """Return a text's words, each with the space before it; those of scripts without spaces
        are split as the tokenizer does."""
        words = []
        for word in text.split():
            if not any(map(is_unspaced, word)):
                words.append(f" {word}")
                continue
            offsets = self.tokenizer.encode(word, add_special_tokens=False).offsets
            starts = sorted({0, *(start for start, _ in offsets), len(word)})
            parts = [word[start:stop] for start, stop in itertools.pairwise(starts)]
            words += [f" {parts[0]}", *parts[1:]]
        return words


def student_vocabulary(
    tokenizer: Any, texts: Sequence[str], rows: int, budget: int = BUDGET
) -> Vocabulary:
    """Return a language model's whole vocabulary where it fits the budget, otherwise a part.

    tokenizer: of `transformers`, with a tokenizer.json. A byte-level one stays whole.
    texts: the catalog's and those that the student is trained on, with their prefixes.
    rows: of the language model's table of words.

    The tokenizer of the result is a copy.
    """
    import tokenizers

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = _pieces(content["model"])
    if len(pieces) <= budget or content["model"]["type"] not in ("Unigram", "WordPiece"):
        copied = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        return Vocabulary(copied, np.arange(rows), list(tokenizer.get_vocab()))

    used = Counter(id for ids in tokenize(tokenizer, texts, 1 << 20) for id in ids.tolist())
    scripts = _scripts(texts)
    belongs = [_belongs(piece, scripts) for piece in pieces]
    special = {entry["id"] for entry in content["added_tokens"]}
    special |= {row for row, piece in enumerate(pieces) if piece == _unknown(content["model"])}

    def rank(row: int) -> tuple[bool, bool, bool, bool, int]:
        # Ids rise as pieces become rarer, in the vocabularies of both kinds.
        is_character = len(_plain(pieces[row])) <= 1
        return row not in special, row not in used, not is_character, not belongs[row], row

    kept = sorted(sorted(range(len(pieces)), key=rank)[:budget])
    words = [pieces[row] for row in kept if belongs[row]]
    reduced = tokenizers.Tokenizer.from_str(json.dumps(_reduce(content, kept)))
    return Vocabulary(reduced, np.array(kept, np.int64), words)


def is_unspaced(character: str) -> bool:
    """Return whether a character is of a script that is written without spaces between words."""
    return _script(character) in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "THAI", "LAO")


def _pieces(model: dict[str, Any]) -> list[str]:
    """Return a tokenizer's pieces in the order of their ids."""
    if model["type"] == "Unigram":
        return [piece for piece, _ in model["vocab"]]
    return sorted(model["vocab"], key=model["vocab"].get)


def _unknown(model: dict[str, Any]) -> str:
    if model["type"] == "Unigram":
        piece: str = model["vocab"][model["unk_id"]][0]
        return piece
    unknown: str = model["unk_token"]
    return unknown


def _plain(piece: str) -> str:
    for mark in MARKS:
        piece = piece.removeprefix(mark)
    return piece


def _script(character: str) -> str:
    """Return the first word of a character's Unicode name, which for letters is the script."""
    return unicodedata.name(character, "").split(" ")[0]


def _scripts(texts: Iterable[str]) -> set[str]:
    counts = Counter(
        _script(character) for text in texts for character in text if character.isalpha()
    )
    total = counts.total()
    return {script for script, count in counts.items() if count >= MIN_SCRIPT_SHARE * total}


def _belongs(piece: str, scripts: set[str]) -> bool:
    return all(_script(letter) in scripts for letter in _plain(piece) if letter.isalpha())


def _reduce(content: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the content of a tokenizer.json with some of its pieces, numbered anew."""
    new_id = {old: new for new, old in enumerate(kept)}
    model = dict(content["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in kept]
        model["unk_id"] = new_id[model["unk_id"]]
    else:
        pieces = _pieces(model)
        model["vocab"] = {pieces[old]: new for old, new in new_id.items()}

    added = [{**entry, "id": new_id[entry["id"]]} for entry in content["added_tokens"]]
    processor = _renumbered(content["post_processor"], new_id)
    return {**content, "model": model, "added_tokens": added, "post_processor": processor}


def _renumbered(processor: Any, new_id: dict[int, int]) -> Any:
    """Return a post-processor that adds the same special tokens by their new ids."""
    if not processor:
        return processor
    changed = dict(processor)
    if processor["type"] == "Sequence":
        changed["processors"] = [_renumbered(part, new_id) for part in processor["processors"]]
    for name in ("sep", "cls"):
        if name in processor:
            token, old = processor[name]
            changed[name] = [token, new_id[old]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**entry, "ids": [new_id[old] for old in entry["ids"]]}
            for name, entry in processor["special_tokens"].items()
        }
    return changed
