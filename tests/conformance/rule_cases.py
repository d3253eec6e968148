"""Cases of rules on attributes: which items meet them, and what is wrong with invalid ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

import numpy as np

from sanderling.arguments import check_caps, check_diversity, check_k, check_pins
from sanderling.ranking import boosts, rules
from sanderling.ranking.catalog_overlay import addition, removal
from sanderling.ranking.pins import check_known
from sanderling.ranking.scorer import Scorer
from tests.conformance.files import BUNDLES, CaseFile
from tests.conformance.invalid_rules import INVALID_ARGUMENTS, INVALID_RULES
from tests.conformance.make_bundles import BRANDS, DAYS, TAGS
from tests.conformance.model_cases import scorer_of
from tests.conformance.randoms import START_MS, pick, some, whole

Rule = dict[str, Any]

CHANGES: dict[str, Any] = {
    "bundle": "shop",
    "now_ms": START_MS,
    "upsert": [
        {"id": "new-1", "text": "blue camping tent", "brand": "Acme", "stock": 2, "price": 12},
        {"id": "item-20", "text": "jazz album 20", "tags": ["jazz", "brandneu"], "colour": "red"},
        {"id": "new-2", "title": "Neu ☂", "text": "film", "sale": True, "released": "2026-01-01"},
        {"id": "new-3", "text": "coffee", "price": "not a number", "brand": 7, "colour": "blue"},
    ],
    "remove": ["item-4", "new-3", "no such item"],
    "set_attributes": {
        "item-0": {"stock": 0, "brand": "Neuware"},
        "item-1": {"stock": None, "tags": ["folk"]},
        "new-1": {"stock": 9},
        "item-2": {"shade": "dark"},
    },
}
"""What an app did to the catalog of `shop`: calls in this order."""


def rule_cases() -> CaseFile:
    """Return rules and arguments, valid and invalid ones."""
    rng = Random(41)
    cases = [_matched(pick(rng, ["shop", "shop", "shop+", "golden"]), rng) for _ in range(1300)]
    cases += [
        {"catalog": catalog, "where": where} | _fault(lambda c=catalog, w=where: _mask(c, w))
        for where in INVALID_RULES
        for catalog in ("shop", "shop+")
    ]
    cases += [
        {"argument": argument, "value": value} | _fault(lambda a=argument, v=value: _check(a, v))
        for argument, value in INVALID_ARGUMENTS
    ]
    shared = {"bundles": BUNDLES, "catalogs": {"shop+": CHANGES}}
    about = "Rules to the rows that meet them; invalid rules and arguments to the error."
    return CaseFile(about, shared, cases)


@cache
def catalog_of(name: str) -> Scorer:
    """Return the scorer of a bundle, `shop+` with `CHANGES`."""
    return changed(scorer_of("shop")) if name == "shop+" else scorer_of(name)


def changed(scorer: Scorer) -> Scorer:
    """Return a scorer of the bundle `shop` after `CHANGES`."""
    now_ms = CHANGES["now_ms"]
    records = [addition(record, now_ms) for record in CHANGES["upsert"]]
    removals = [removal(item, now_ms) for item in CHANGES["remove"]]
    scorer = scorer.with_overlay(records).with_overlay(removals)
    return scorer.with_changes(CHANGES["set_attributes"])


def _mask(catalog: str, where: Any) -> str:
    """Return which rows meet a rule, a bit each, as the hex digits of bytes, lowest bit first."""
    scorer = catalog_of(catalog)
    is_match = np.concatenate(scorer._attributes.matches(rules.parse(where)))
    return np.packbits(is_match, bitorder="little").tobytes().hex()


def _matched(catalog: str, rng: Random) -> dict[str, Any]:
    where = _rule(rng, _ATTRIBUTES[catalog], whole(rng, 0, 2))
    return {"catalog": catalog, "where": where, "rows": _mask(catalog, where)}


def _fault(check: Callable[[], Any]) -> dict[str, str]:
    """Return the class and the sentence of an error."""
    try:
        check()
    except (TypeError, ValueError) as error:
        return {"raises": type(error).__name__, "error": str(error)}
    raise AssertionError("expected an error")


def _check(argument: str, value: Any) -> None:
    if argument == "pin" and isinstance(value, dict):
        pins: Mapping[int, str] = check_pins({int(slot): item for slot, item in value.items()}, 5)
        check_known(scorer_of("shop"), pins)
    elif argument == "boost":
        scorer_of("shop").eligible(None, None, boosts.parse(value))
    else:
        checks: dict[str, Callable[[Any], Any]] = {
            "k": check_k,
            "at_most": check_caps,
            "diversity": check_diversity,
            "pin": lambda pins: check_pins(pins, 5),
        }
        checks[argument](value)


def _number(rng: Random) -> Any:
    return pick(rng, [0, 1, 2, 3, 7, 10, 25.5, 49.99, -1, 1e300, 50, 10**20, 12.0])


def _ordering(rng: Random, operand: Any) -> Rule:
    return {pick(rng, ["lt", "le", "gt", "ge"]): operand}


def _scalar_rule(number: Callable[[Random], Any]) -> Callable[[Random], Any]:
    def make(rng: Random) -> Any:
        return pick(
            rng,
            [
                number(rng),
                _ordering(rng, number(rng)),
                {**_ordering(rng, number(rng)), **_ordering(rng, number(rng))},
                {pick(rng, ["in", "any", "all"]): [number(rng), number(rng)]},
                {"exists": rng.random() < 0.5},
            ],
        )

    return make


def _category_rule(values: list[Any]) -> Callable[[Random], Any]:
    def make(rng: Random) -> Any:
        several = some(rng, values, whole(rng, 1, 3))
        options = [several[0], {"eq": several[0]}, {"exists": rng.random() < 0.5}, {"in": []}]
        return pick(rng, [*options, *({name: several} for name in ("in", "any", "all"))])

    return make


def _time(rng: Random) -> Any:
    return pick(rng, [*DAYS, "2025-01-01", 1_735_725_600, "2024-02-29T00:00:00.5Z", -3600.0])


_SHOP: dict[str, Callable[[Random], Any]] = {
    "price": _scalar_rule(_number),
    "stock": _scalar_rule(_number),
    "released": _scalar_rule(_time),
    "sale": lambda rng: pick(rng, [True, False, {"in": [True]}, {"exists": False}, {"in": []}]),
    "brand": _category_rule([*BRANDS, "nobody"]),
    "tags": _category_rule([*TAGS, "unheard"]),
    "mixed": _category_rule([7, 7.0, "7", True, False, "x", 1]),
    "title": _category_rule(["red trail shoe 0", "green warm jacket 1", "no such title"]),
}
_ATTRIBUTES = {
    "shop": _SHOP,
    "shop+": _SHOP
    | {"colour": _category_rule(["red", "blue"]), "shade": _category_rule(["dark", "light"])},
    "golden": {"price": _SHOP["price"], "title": _SHOP["title"]},
}


def _rule(rng: Random, attributes: dict[str, Callable[[Random], Any]], depth: int) -> Rule:
    rule: Rule = {}
    for name in some(rng, list(attributes), whole(rng, 0 if depth else 1, 2)):
        rule[name] = attributes[name](rng)
    if depth:
        connective = pick(rng, ["and", "or", "not"])
        parts = [_rule(rng, attributes, depth - 1) for _ in range(whole(rng, 0, 3))]
        rule[connective] = (parts or [{}])[0] if connective == "not" else parts
    return rule
