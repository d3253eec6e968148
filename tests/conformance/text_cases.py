"""Cases of texts: tokens, vectors of the encoder, words, search by words, and similar items."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np

from sanderling.bundle.manifest import MAX_ID
from sanderling.ranking import rules
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.search_types import SearchResult
from sanderling.ranking.similar import SimilarItems
from sanderling.ranking.text_search.search import TextSearch, words_in
from sanderling.ranking.text_search.words import words_of
from tests.conformance.files import BUNDLES, USERS, CaseFile, packed, unpacked
from tests.conformance.model_cases import ids_of, scorer_of, users_of
from tests.conformance.randoms import HOSTILE_TEXTS, any_text, pick, some, text, unit_vector, whole
from tests.conformance.rule_cases import CHANGES, catalog_of
from tests.conformance.slate_cases import WHERES

VECTOR_ERROR = 5e-3
"""How much numbers of the encoder's vectors may differ: its int8 arithmetic does."""

SCORE_ERROR = 1e-6
NEAR_TIE = 1e-5
"""Cases with scores that differ by less, but differ, are left out: their order is open."""

WORD_TEXTS = [
    *HOSTILE_TEXTS,
    "Men's l'été GROSSE größe Straße naïve Ångström",
    "日本語の文章とカタカナ、ひらがな々〆〇",
    "한국어 단어들과 조사",
    "ภาษาไทยไม่มีช่องว่าง",
    "हिन्दी में शब्द",
    "עִבְרִית וערבית العَرَبِيَّة ـــ",
    "ﬁ ﬀ ① ⅷ ㍿ ｆｕｌｌ",
    "x" * 100 + " " + "y" * 32,
    "1.5kg 3-in-1 a_b",
]


def token_cases() -> CaseFile:
    """Return the tokens of texts as contexts and as items, some with their vectors."""
    rng = Random(51)
    texts = [*HOSTILE_TEXTS, "\ud800 lone", *(text(rng) for _ in range(70))]
    texts += [any_text(rng) for _ in range(60)]
    cases = []
    for i, each in enumerate(texts):
        for bundle in ("golden", "tiny", "ruled"):
            as_item = rng.random() < 0.5
            case = {"bundle": bundle, "text": each, "as": "item" if as_item else "query"}
            cases.append(case | _encoded(scorer_of(bundle), each, as_item, i % 3 == 0))
    about = "A text with its prefix to the encoder's tokens, and to its unit vector."
    return CaseFile(about, {"bundles": BUNDLES}, cases, {"vector": VECTOR_ERROR})


def _encoded(scorer: Scorer, each: str, as_item: bool, with_vector: bool) -> dict[str, Any]:
    encoder = scorer.encoder
    prefixes = scorer.bundle.manifest.prefixes
    clean = each.encode("utf-8", "replace").decode()
    tokenizer, _ = encoder.load()
    answer = {"ids": tokenizer.encode((prefixes.item if as_item else prefixes.query) + clean).ids}
    if with_vector:
        answer["vector"] = packed(encoder.encode_item(each) if as_item else encoder.encode(each))
    return answer


def word_cases() -> CaseFile:
    """Return the words of texts."""
    rng = Random(52)
    texts = [*WORD_TEXTS, *(text(rng) for _ in range(80)), *(any_text(rng) for _ in range(160))]
    limits = [5, 16, 256]
    cases: list[dict[str, Any]] = []
    for each in texts:
        at_most = pick(rng, limits)
        cases.append({"text": each, "at_most": at_most, "words": words_of(each, at_most)})
    about = "The words by which a text is indexed, at most so many, and searched."
    return CaseFile(about, {}, cases)


def find_cases() -> CaseFile:
    """Return what is found by words and by likeness."""
    rng = Random(53)
    users = users_of(rng)
    cases: list[dict[str, Any]] = []
    while len(cases) < 450:
        catalog = pick(rng, ["tiny", "tiny", "shop", "shop+", "golden"])
        bundle = CHANGES["bundle"] if catalog == "shop+" else catalog
        place = whole(rng, 0, USERS - 1)
        case: dict[str, Any] = {"catalog": catalog, "user": place, "query": _query(rng, bundle)}
        if catalog != "shop+" and rng.random() < 0.6:  # added items have vectors of the encoder
            case["meaning"] = packed(unit_vector(rng, scorer_of(bundle).bundle.manifest.sizes.text))
        elif catalog == "shop+":
            place = case["user"] = 0
            users["shop"][0] = np.zeros_like(users["shop"][0])
        case["k"] = whole(rng, 1, 6)
        if bundle == "shop" and rng.random() < 0.3:
            case["where"] = pick(rng, WHERES)
        found = _found_by_words(case, users[bundle][place])
        gaps = -np.diff(found.scores)
        if not ((gaps > 0.0) & (gaps < NEAR_TIE)).any():
            cases.append(case | _answer(catalog_of(catalog), found))
    for _ in range(300):
        bundle = pick(rng, list(BUNDLES))
        case = {"catalog": bundle, "item": pick(rng, ids_of(bundle)), "k": whole(rng, 1, 6)}
        if bundle == "shop" and rng.random() < 0.3:
            case["where"] = pick(rng, WHERES)
        cases.append(case | _similar(case))
    vectors = {bundle: list(map(packed, users[bundle])) for bundle in users}
    shared = {"bundles": BUNDLES, "catalogs": {"shop+": CHANGES}, "users": vectors}
    about = "What `search` finds for a query, user vector and meaning, and `similar` for an item."
    return CaseFile(about, shared, cases, {"scores": SCORE_ERROR})


def _query(rng: Random, bundle: str) -> str:
    if rng.random() < 0.1:
        return pick(rng, HOSTILE_TEXTS)
    titles = [
        _search(bundle).scorer.item(row).title for row in (whole(rng, 0, 39), whole(rng, 0, 39))
    ]
    words = [word for title in titles for word in title.split()] or ["none"]
    words = some(rng, words, whole(rng, 1, 3))
    last = words[-1]
    ways = [last, last, last[: max(1, len(last) // 2)], last[1:], last.upper(), last + "x"]
    ways.append(last[:1] + last[2:])
    return " ".join([*words[:-1], pick(rng, ways)])[:MAX_ID]


@cache
def _search(catalog: str) -> TextSearch:
    return TextSearch(catalog_of(catalog))


@cache
def _likeness(catalog: str) -> SimilarItems:
    return SimilarItems(catalog_of(catalog))


def _masks(case: dict[str, Any]) -> Any:
    rule = rules.parse(case["where"]) if "where" in case else None
    return catalog_of(case["catalog"]).eligible(rule, None).masks


def _found_by_words(case: dict[str, Any], user: Any) -> SearchResult:
    meaning = unpacked(case["meaning"]) if "meaning" in case else None
    query = case["query"]
    if not words_in(query):
        return SearchResult(np.empty(0, np.int64), np.empty(0), 0)
    return _search(case["catalog"]).search(query, case["k"], user, meaning, _masks(case))


def _similar(case: dict[str, Any]) -> dict[str, Any]:
    scorer = catalog_of(case["catalog"])
    row = scorer.find(case["item"])
    assert row is not None
    found = _likeness(case["catalog"]).nearest(row, case["k"], _masks(case))
    return _answer(scorer, found)


def _answer(scorer: Scorer, found: SearchResult) -> dict[str, Any]:
    items = [scorer.item(row).id for row in found.rows.tolist()]
    return {"items": items, "scores": found.scores.tolist()}
