"""Real texts to distil on and to evaluate by, from the benchmark's data and the installed packages.

Two catalogs: MovieLens' titles with year and genres (500 of 1,682 held out), and the gift shop's
descriptions (a tenth held out). Further training texts: headlines and the sentences beside them
(Upworthy), first lines of documentation of the installed packages, recombinations of the
catalogs' words, and random words of the vocabulary. None of them is a held-out text.
"""

from __future__ import annotations

import ast
import csv
import gzip
import random
import re
import site
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sanderling_quantize.encoders import text_augmentation

FILMS_HELD_OUT = 500
HEADLINES, DOCUMENTATION, MIXTURES = 45_000, 60_000, 30_000
MARKUP = re.compile(r"<[^>]+>|http\S+")


@dataclass(frozen=True)
class Corpus:
    """Texts to train on, and named sets to evaluate by."""

    own: list[str]
    """The catalogs' texts that are not held out."""

    augmented: list[str]
    """Other training texts."""

    evaluation: dict[str, list[str]]


def read(root: Path, vocabulary: Iterable[str]) -> Corpus:
    """Return the corpus; the same data, packages and vocabulary give the same."""
    rng = random.Random(0)
    words = text_augmentation.whole_words(vocabulary)
    new_films, films = _split(_films(root), FILMS_HELD_OUT, rng)
    gifts = [
        row["text"]
        for row in csv.DictReader((root / "online_retail" / "items.csv").open(encoding="utf-8"))
    ]
    new_gifts, gifts = _split(gifts, len(gifts) // 10, rng)
    titles = [film.rsplit(")", 1)[0] + ")" for film in new_films]
    evaluation = {
        "films, seen": films[:500],
        "films, unseen": new_films,
        "bare titles, unseen": titles,
        "misspelt, unseen": [_misspell(film, rng) for film in new_films],
        "capitals, unseen": [film.upper() for film in new_films],
        "gifts, seen": gifts[:500],
        "gifts, unseen": new_gifts,
    }
    own = list(dict.fromkeys([*films, *gifts]))
    for name, texts in evaluation.items():
        if "unseen" in name:
            evaluation[name] = text_augmentation.without(dict.fromkeys(texts), own)

    draw = np.random.default_rng(0)
    augmented = [
        *(film.rsplit(")", 1)[0] + ")" for film in films),
        *(gift.title() for gift in gifts),
        *list(dict.fromkeys(_headlines(root)))[:HEADLINES],
        *_sample(_documentation(), DOCUMENTATION, rng),
        *text_augmentation.augment(own, words, draw),
        *text_augmentation.augment(own, words, draw),
        *(" ".join(rng.choice(words) for _ in range(rng.randint(1, 8))) for _ in range(MIXTURES)),
    ]
    held_out = [*new_films, *titles, *new_gifts]
    augmented = text_augmentation.without(dict.fromkeys(augmented), held_out)
    return Corpus(own, augmented, evaluation)


def _split(texts: list[str], count: int, rng: random.Random) -> tuple[list[str], list[str]]:
    """Return `count` texts at random, and the others."""
    shuffled = list(texts)
    rng.shuffle(shuffled)
    return shuffled[:count], shuffled[count:]


def _films(root: Path) -> list[str]:
    folder = root / "ml-100k"
    names = [line.split("|")[0] for line in (folder / "u.genre").read_text().splitlines() if line]
    rows = [
        line.split("|")
        for line in (folder / "u.item").read_text(encoding="latin-1").split("\n")
        if line
    ]
    films = []
    for row in rows:
        genres = [name for name, flag in zip(names, row[5:], strict=True) if flag == "1"]
        films.append(f"{row[1]} {' '.join(genres)}")
    return films


def _headlines(root: Path) -> Iterator[str]:
    with gzip.open(root / "upworthy" / "arms.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield row["headline"]
            for part in (row["lede"], row["excerpt"]):
                for sentence in re.split(r"(?<=[.!?])\s+", MARKUP.sub(" ", part or "")):
                    plain = " ".join(sentence.split())
                    if 8 < len(plain) < 140:
                        yield plain


def _documentation() -> Iterator[str]:
    for folder in site.getsitepackages():
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (OSError, SyntaxError, ValueError, RecursionError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                    lines = (ast.get_docstring(node) or "").strip().splitlines()[:3]
                    yield from (line.strip() for line in lines if 10 < len(line.strip()) < 110)


def _sample(texts: Iterable[str], count: int, rng: random.Random) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    return rng.sample(distinct, min(count, len(distinct)))


def _misspell(text: str, rng: random.Random) -> str:
    """Swap two neighbouring letters of every word of more than three."""
    return " ".join(
        _swap(word, rng.randrange(1, len(word) - 2)) if len(word) > 3 else word
        for word in text.split()
    )


def _swap(word: str, index: int) -> str:
    return word[:index] + word[index + 1] + word[index] + word[index + 2 :]
