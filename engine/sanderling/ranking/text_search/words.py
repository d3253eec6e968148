"""Text -> the words by which it is indexed and searched, in any script.

Letters are compared without case, accents and compatibility forms. Where a script has no spaces
between words (Chinese, Japanese, Korean particles, Thai, Lao, Khmer, Burmese), single characters
and pairs of neighbours stand for words, as in Lucene's CJKBigramFilter.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

MAX_WORD = 32  # characters; the rest of a longer word is ignored
MEAN_WORD = 16  # characters that are read for each word asked for, spaces included

_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Marks that writers leave out: accents, Hebrew points, Arabic vowels and the stroke that widens.
_ACCENTS = dict.fromkeys([*range(0x300, 0x370), *range(0x591, 0x5C8), 0x640, *range(0x64B, 0x660)])

# Thai and Lao, Burmese, Khmer, kana and bopomofo, Han (with its repetition marks), Hangul.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_LAST_PLANE = 0x20000  # no combining marks are assigned beyond, but for format characters


def words_of(text: str, at_most: int) -> list[str]:
    """Return the first words of a text, at most so many, in their order, with repetitions.

    "Men's" is two words, as "l'été" is: who types "mens" is one edit away.
    """
    text = text[: at_most * MEAN_WORD]
    if text.isascii():
        # Nine of ten catalogs: no table of Unicode is needed.
        words = _ASCII_WORD.findall(text.lower())
        return [word[:MAX_WORD] for word in words[:at_most]]

    words = []
    for word in _unicode_word().findall(fold(text)):
        for run in _RUNS.findall(word) if _IS_UNSPACED.search(word) else [word]:
            words += _grams(run) if is_unspaced(run) else [run[:MAX_WORD]]
        if len(words) >= at_most:
            break
    return words[:at_most]


def fold(text: str) -> str:
    """Return a text without case, accents and compatibility forms."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", folded.translate(_ACCENTS))


def is_unspaced(word: str) -> bool:
    """Return whether a word is a character or a pair of a script without spaces."""
    return _IS_UNSPACED.match(word) is not None


def _grams(run: str) -> list[str]:
    """Return the characters of a run, and the pairs of neighbours."""
    return [*run, *(run[i : i + 2] for i in range(len(run) - 1))]


@cache
def _unicode_word() -> re.Pattern[str]:
    """Return the pattern of a word: letters, digits, and the marks that Indic vowels are."""
    marks = [chr(code) for code in range(_LAST_PLANE) if unicodedata.category(chr(code))[0] == "M"]
    return re.compile(f"(?:[^\\W_]|[{re.escape(''.join(marks))}])+")
