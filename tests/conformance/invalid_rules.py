"""Rules and arguments that are refused."""

from __future__ import annotations

from typing import Any


def _nested(levels: int) -> dict[str, Any]:
    rule: dict[str, Any] = {"stock": 1}
    for _ in range(levels):
        rule = {"not": rule}
    return rule


INVALID_RULES: list[Any] = [
    *(None, 7, "stock", [], [{"stock": 1}], True),
    {"stock": None},
    {"stock": {"eq": None}},
    {"stock": [1, 2]},
    {"stock": {}},
    {"stock": {"=": 1}},
    {"stock": {"between": [1, 2]}},
    {"stock": {"lt": True}},
    {"stock": {"lt": [1]}},
    {"stock": {"lt": None}},
    {"stock": {"lt": "many"}},
    {"stock": {"in": 1}},
    {"stock": {"in": "abc"}},
    {"stock": {"in": [1, None]}},
    {"stock": {"in": [[1]]}},
    {"stock": {"all": []}},
    {"stock": {"exists": 1}},
    {"stock": {"exists": "true"}},
    {"stock": "1"},
    {"stock": True},
    {"stock": {"in": [1, "2"]}},
    {"price": {"eq": "cheap"}},
    {"sale": 1},
    {"sale": "true"},
    {"sale": {"lt": 1}},
    {"sale": {"ge": "x"}},
    {"brand": 7},
    {"brand": True},
    {"brand": {"lt": "b"}},
    {"brand": {"in": ["Acme", 7]}},
    {"tags": {"gt": 1}},
    {"tags": {"all": [1]}},
    {"tags": {"any": [False]}},
    {"released": True},
    {"released": "yesterday"},
    {"released": {"lt": "20250101"}},
    {"released": {"lt": "2025-13-01"}},
    {"released": {"in": ["2025-01-01", ""]}},
    {"mixed": {"lt": 7}},
    {"brnad": "Acme"},
    {"": 1},
    {"nothing like that": 1},
    {"id": "item-0"},
    {"id": {"in": ["item-0"]}},
    {"and": {"stock": 1}},
    {"or": "stock"},
    {"and": [1]},
    {"or": [{"stock": 1}, None]},
    {"not": []},
    {"not": "stock"},
    {"not": [{"stock": 1}]},
    {"and": [{"or": [{"not": {"stock": {"lt": []}}}]}]},
    _nested(17),
    {"or": [{"stock": number} for number in range(257)]},
    {"stock": {"in": [1] * 10_001}},
]
"""Each is wrong on its own or does not fit the catalog of the bundle `shop`."""

INVALID_ARGUMENTS: list[tuple[str, Any]] = [
    *(("k", value) for value in (0, -1, 1001, "10", 2.5, True, None)),
    *(("diversity", value) for value in (-0.1, 1.5, "0.5", None, True)),
    *(("at_most", value) for value in ([], "brand", None, {"brand": 0}, {"brand": 10_001})),
    *(("at_most", value) for value in ({"brand": "2"}, {"brand": 1.5}, {"brand": True}, {"": 1})),
    *(("at_most", value) for value in ({"a\nb": 1}, {"x" * 513: 1}, {"brand": None})),
    *(("pin", value) for value in ([], "item-0", None, {"5": "item-0"}, {"-1": "item-0"})),
    *(("pin", value) for value in ({"0": 7}, {"0": None}, {"0": "item-1", "3": "item-1"})),
    *(("pin", value) for value in ({"0": "no such item"}, {"2": "item-1", "1": ""})),
    *(("boost", value) for value in (None, 1, "x", {}, {"where": {}, "by": 1}, [1], [{}])),
    ("boost", [{"where": {"stock": 1}}]),
    ("boost", [{"where": {"stock": 1}, "by": 1, "to": 2}]),
    ("boost", [{"where": {"stock": 1}, "by": "1"}]),
    ("boost", [{"where": {"stock": 1}, "by": True}]),
    ("boost", [{"where": {"stock": 1}, "by": 1e7}]),
    ("boost", [{"where": {"stock": 1}, "by": -1000001}]),
    ("boost", [{"where": 5, "by": 1}]),
    ("boost", [{"where": {"stock": {"<": 1}}, "by": 1}]),
    ("boost", [{"where": {"sale": True}, "by": 1}, {"where": {"nothing": 1}, "by": 1}]),
    ("boost", [{"where": {"brand": 1}, "by": 1}]),
    ("boost", [{"where": {"stock": 1}, "by": 1}] * 17),
    ("boost", [{"where": {"price": {"gt": 5 * i + 3}}, "by": 2.0**i} for i in range(16)]),
]
"""Arguments of `recommend` with k = 5, by name."""
