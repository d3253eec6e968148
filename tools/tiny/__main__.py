"""Writes the bundle of `sanderling demo --tiny` anew: 96 classics, and simulated readers of them.

The lab's own `train` and `quantize` make it, with their gate. Only the language model is a toy, a
random BERT of one layer: texts that share words get similar vectors, and 60 kB hold it. On one
machine all bytes but the manifest's date and timings come out the same.
"""

from __future__ import annotations

import csv
import re
import shutil
import string
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from sanderling.cli.tiny import BUNDLE
from sanderling_quantize import quantize
from sanderling_trainer import train

BOOKS = Path(__file__).parent / "books.csv"

READERS = 400
MINUTE = 60
START = 1_750_000_000
"""Of the log, in seconds since 1970."""

FAVOURITES = (0.75, 0.2)
"""The share of a reader's books from the first and from the second favourite shelf; the others come
from any shelf."""

EXPLORATION = {"epsilon": 0.2, "pool": 30}
"""More than by default, so that a few slates show what exploration is."""


def main() -> None:
    """Train on the simulated log, build the bundle and put it into the engine's package."""
    with BOOKS.open(newline="", encoding="utf-8") as file:
        books = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        model = write_language_model(work / "language-model", books)
        trained = train(
            simulated_log(books),
            work / "checkpoint",
            catalog(books),
            app="tiny",
            language_model=str(model),
            dim=16,
            max_tokens=32,
            seed=0,
        )
        built = quantize(
            trained.checkpoint, work / "bundle", encoder="base", exploration=EXPLORATION
        )
        shutil.rmtree(BUNDLE, ignore_errors=True)
        shutil.copytree(built.folder, BUNDLE)
    size = sum(path.stat().st_size for path in BUNDLE.iterdir())
    print(f"{size / 1000:.0f} kB -> {BUNDLE}")


def catalog(books: list[dict[str, str]]) -> pa.Table:
    """Return the items: title, author, year and shelf, and a text of author, title and subject."""
    return pa.table(
        {
            "item_id": [identifier(book) for book in books],
            "title": [book["title"] for book in books],
            "text": [text_of(book) for book in books],
            "author": [book["author"] for book in books],
            "year": [int(book["year"]) for book in books],
            "shelf": [book["shelf"] for book in books],
        }
    )


def simulated_log(books: list[dict[str, str]], seed: int = 0) -> pa.Table:
    """Return what simulated readers finished, each 12 to 24 books, mostly of two shelves.

    Within a shelf the earlier books of the file are read more often.
    """
    rng = np.random.default_rng(seed)
    shelves = np.array([book["shelf"] for book in books])
    names = np.unique(shelves)
    place = np.array([np.sum(shelves[:row] == shelf) for row, shelf in enumerate(shelves)])
    rows = []
    for reader in range(READERS):
        first, second = rng.choice(names, 2, replace=False)
        taste = (1.0 - sum(FAVOURITES)) / len(names) + np.select(
            [shelves == first, shelves == second], FAVOURITES, 0.0
        )
        appeal = taste / (3.0 + place)
        count = int(rng.integers(12, 25))
        read = rng.choice(len(books), count, replace=False, p=appeal / appeal.sum())
        start = START + reader * 1000 * MINUTE
        rows += [
            (f"reader-{reader}", identifier(books[book]), start + step * MINUTE)
            for step, book in enumerate(read)
        ]
    users, items, times = zip(*rows, strict=True)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


def write_language_model(folder: Path, books: list[dict[str, str]]) -> Path:
    """Write a random BERT whose vocabulary is the words of the catalog, and letters for others."""
    words = {word for book in books for word in re.findall(r"[a-z]+", text_of(book).lower())}
    vocabulary = [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *string.ascii_lowercase,
        *(f"##{letter}" for letter in string.ascii_lowercase),
        *sorted(word for word in words if len(word) > 1),
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def text_of(book: dict[str, str]) -> str:
    """Return what the language model reads of a book."""
    return f"{book['title']} by {book['author']}. {book['about']}."


def identifier(book: dict[str, str]) -> str:
    """Return a book's id: its title in lower case, with hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", book["title"].lower()))


if __name__ == "__main__":
    main()
