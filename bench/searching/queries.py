"""Known-item queries: what somebody types who looks for one title, and 100,000 made-up titles."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MIN_EDITED = 4  # letters of a word that gets a typing error
KINDS = ("words dropped", "unfinished", "typing error", "unfinished, typing error")


class Query(NamedTuple):
    """What is typed, and the row of the title that is looked for."""

    text: str
    row: int


def catalogs(root: Path) -> dict[str, list[str]]:
    """Return the titles of MovieLens 100K and the descriptions of Online Retail."""
    lines = (root / "ml-100k" / "u.item").read_text(encoding="latin-1").splitlines()
    with (root / "online_retail" / "items.csv").open(encoding="utf-8", newline="") as file:
        gifts = [row["text"] for row in csv.DictReader(file)]
    return {"MovieLens": [line.split("|")[1] for line in lines], "Online Retail": gifts}


def made_up(titles: Sequence[str], count: int) -> list[str]:
    """Return titles of 2 to 9 words, drawn as often as they occur in these titles."""
    rng = random.Random(0)
    words = [word for title in titles for word in title.split()]
    return [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(count)]


def queries(titles: Sequence[str], kind: str, count: int, seed: int) -> list[Query]:
    """Return queries of a kind for titles drawn at random, a quarter or half of their words left
    out.

    Unfinished: half of the last word is typed, at least three letters. Typing error: in one word a
    letter is replaced, added or left out, or two neighbours are swapped.
    """
    rng = random.Random(seed)
    found: list[Query] = []
    while len(found) < count:
        row = rng.randrange(len(titles))
        words = WORD.findall(titles[row].lower())
        if len(words) < 2:
            continue
        dropped = max(1, round(len(words) * rng.choice([0.25, 0.5])))
        places = sorted(rng.sample(range(len(words)), len(words) - dropped))
        typed = [words[place] for place in places]
        if "typing error" in kind:
            long = [i for i, word in enumerate(typed) if len(word) >= MIN_EDITED and word.isalpha()]
            if not long:
                continue
            place = rng.choice(long)
            typed[place] = misspelt(typed[place], rng)
        if "unfinished" in kind:
            if len(typed[-1]) < MIN_EDITED:
                continue
            typed[-1] = typed[-1][: max(3, len(typed[-1]) // 2)]
        found.append(Query(" ".join(typed), row))
    return found


def misspelt(word: str, rng: random.Random) -> str:
    """Return a word with one random edit."""
    i = rng.randrange(len(word))
    edit = rng.choice(["replace", "add", "leave out", "swap"])
    if edit == "replace":
        return word[:i] + rng.choice(LETTERS) + word[i + 1 :]
    if edit == "add":
        return word[:i] + rng.choice(LETTERS) + word[i:]
    if edit == "leave out":
        return word[:i] + word[i + 1 :]
    i = min(i, len(word) - 2)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
