"""What is compared: each takes titles, and returns a function from a query to the ten best rows."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.searching.text_bundle import write_text_bundle
from bench.serving.random_bundle import write_random_bundle
from sanderling import Engine, FoundItems
from sanderling.ranking.text_encoder import TextEncoder

Search = Callable[[str], Sequence[int]]

K = 10
DIM = 64
WORD = re.compile(r"[^\W_]+")
FUZZY_BOOST = 2.0  # chosen on other queries of both catalogs, of 0.5, 1, 2 and 4
MIN_EDITED = 4


def sanderling(titles: Sequence[str]) -> Search:
    """`Engine.search` of an app without an encoder: words and taste, of a random policy."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_random_bundle(bundle, len(titles), DIM, state=192, records=_records(titles))
        engine = _opened(bundle)

    def search(text: str) -> Sequence[int]:
        with no_encoder():
            return _rows(engine.search(text, "anna", K))

    return search


def sanderling_encoding(titles: Sequence[str]) -> Search:
    """The same with an encoder, `$SANDERLING_ENCODER`, and items that are where their texts are."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_text_bundle(bundle, titles, Path(os.environ["SANDERLING_ENCODER"]))
        engine = _opened(bundle)
    return lambda text: _rows(engine.search(text, "anna", K))


def _opened(bundle: Path) -> Engine:
    """Return an engine that is warm; the bundle stays mapped when its folder is gone."""
    engine = Engine.open(bundle)
    engine.warm_up(search=True)
    with suppress(Exception):
        engine.search("warm")
    return engine


def _records(titles: Sequence[str]) -> Iterator[dict[str, Any]]:
    return ({"id": f"item-{row}", "title": title} for row, title in enumerate(titles))


def _rows(found: FoundItems) -> list[int]:
    return [int(item.id[len("item-") :]) for item in found]


@contextmanager
def no_encoder() -> Iterator[None]:
    """Encode nothing meanwhile, as where the extra `text` is missing."""

    def missing(*_: Any) -> Any:
        raise ImportError("encoding text needs the extra `text`")

    encode = TextEncoder.encode
    TextEncoder.encode = missing  # type: ignore[method-assign]
    try:
        yield
    finally:
        TextEncoder.encode = encode  # type: ignore[method-assign]


def tantivy(titles: Sequence[str]) -> Search:
    """Tantivy's BM25, a disjunction of the words."""
    import tantivy as library

    searcher, schema = _tantivy_index(titles)

    def search(text: str) -> Sequence[int]:
        terms = [library.Query.term_query(schema, "title", word) for word in WORD.findall(text)]
        parts = [(library.Occur.Should, term) for term in terms]
        return _tantivy_rows(searcher, library.Query.boolean_query(parts))

    return search


def tantivy_fuzzy(titles: Sequence[str]) -> Search:
    """The same with typing errors and an unfinished last word, as its fuzzy queries offer them."""
    import tantivy as library

    searcher, schema = _tantivy_index(titles)
    query = library.Query

    def search(text: str) -> Sequence[int]:
        parts = []
        words = WORD.findall(text)
        for place, word in enumerate(words):
            parts.append(query.term_query(schema, "title", word))
            is_last = place == len(words) - 1
            distance = 1 if len(word) >= MIN_EDITED else 0
            if is_last or distance:
                fuzzy = query.fuzzy_term_query(schema, "title", word, distance, True, is_last)
                parts.append(query.boost_query(fuzzy, FUZZY_BOOST))
        joined = query.boolean_query([(library.Occur.Should, part) for part in parts])
        return _tantivy_rows(searcher, joined)

    return search


def _tantivy_index(titles: Sequence[str]) -> tuple[Any, Any]:
    import tantivy as library

    builder = library.SchemaBuilder()
    builder.add_text_field("title", stored=False)
    builder.add_integer_field("row", stored=True)
    schema = builder.build()
    index = library.Index(schema)
    writer = index.writer(num_threads=1)
    for row, title in enumerate(titles):
        writer.add_document(library.Document(title=title, row=row))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index.searcher(), schema


def _tantivy_rows(searcher: Any, query: Any) -> Sequence[int]:
    return [searcher.doc(address)["row"][0] for _, address in searcher.search(query, K).hits]


def bm25s(titles: Sequence[str]) -> Search:
    """The bm25s package: BM25 from sparse matrices, whole words only."""
    import bm25s as library

    def tokens(texts: Sequence[str]) -> list[list[str]]:
        return [WORD.findall(text.lower()) for text in texts]

    retriever = library.BM25()
    retriever.index(tokens(titles), show_progress=False)
    known = retriever.vocab_dict

    def search(text: str) -> Sequence[int]:
        words = [word for word in tokens([text])[0] if word in known]
        if not words:
            return []
        rows, scores = retriever.retrieve([words], k=K, show_progress=False)
        return rows[0][scores[0] > 0].tolist()

    return search


def sqlite_fts5(titles: Sequence[str]) -> Search:
    """SQLite's full-text index: BM25 with an unfinished last word, no typing errors."""
    database = sqlite3.connect(":memory:")
    database.execute(
        "create virtual table titles using fts5(title, content='', tokenize=unicode61)"
    )
    database.executemany("insert into titles(rowid, title) values (?, ?)", enumerate(titles))
    ask = "select rowid from titles where titles match ? order by rank limit ?"

    def search(text: str) -> Sequence[int]:
        words = [f'"{word}"' for word in WORD.findall(text)]
        asked = " OR ".join(words) + "*"
        return [row for (row,) in database.execute(ask, (asked, K))]

    return search


CONTENDERS: dict[str, Callable[[Sequence[str]], Search]] = {
    "sanderling": sanderling,
    "sanderling, encoder": sanderling_encoding,
    "tantivy": tantivy,
    "tantivy, fuzzy": tantivy_fuzzy,
    "bm25s": bm25s,
    "sqlite fts5": sqlite_fts5,
}


def reciprocal_rank(titles: Sequence[str], found: Sequence[int], row: int) -> float:
    """Return 1 / the place of a title among the rows found, 0 if it is not among them.

    Items of the same title are one: no query tells them apart.
    """
    places = np.flatnonzero([titles[other] == titles[row] for other in found])
    return 1.0 / (1.0 + float(places[0])) if len(places) else 0.0
