"""The sentence that says the reasons of an item."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sanderling.ranking.reasons_sentence import sentence_of
from sanderling.reasons import EventReason, GreedyChoice, PopularityReason, Reasons, SharedTrait

PLAIN = Reasons(
    decision="d",
    release=1,
    item="a",
    title="Aliens",
    slot=0,
    sentence="",
    score=3.0,
    boost=0.0,
    history_effect=2.0,
    events=(
        EventReason("b", "Alien", "click", 2, 0.5, (SharedTrait("genre", "sci-fi", 0.1),)),
        EventReason("b", "Alien", "view", 3, 0.4),
        EventReason("c", "Heat", "view", 1, 0.2),
        EventReason("d", "Up", "view", 4, 0.1),
    ),
    events_known=4,
    events_total=4,
    older_effect=0.0,
    is_exact=True,
    popularity=PopularityReason(0.1, 0.6, 0.934),
    context_effect=None,
    words=(),
    learned_effect=None,
    rank=0,
    eligible=50,
    pool=20,
    scheme="sequential",
    epsilon=0.1,
    explored=False,
    newcomer=False,
    pinned=False,
    propensity=0.905,
    marginal=0.905,
    greedy=GreedyChoice("a", "Aliens", 3.0),
    rules={},
    passed_over=0,
)
ALIEN = "“Alien” (click; in common: sci-fi)"
OTHER = GreedyChoice("z", "Zodiac", 4.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            f"“Aliens” is shown because of {ALIEN}, “Heat” (view) and its popularity (above 93 % of"
            " the catalog).",
        ),
        (
            {"history_effect": -1.0},
            "“Aliens” is shown because of its popularity (above 93 % of the catalog).",
        ),
        (
            {"history_effect": -1.0, "popularity": PopularityReason(-1.0, -1.0, 0.1), "rank": 2},
            "“Aliens” is shown because it is number 3 of 50 by score.",
        ),
        (
            {
                "popularity": PopularityReason(0.0, 0.0, 0.5),
                "passed_over": 2,
                "rules": {"at_most": {"genre": 1}},
            },
            f"“Aliens” is shown because of {ALIEN} and “Heat” (view); rules kept 2 items of a"
            " better score out.",
        ),
        (
            {
                "explored": True,
                "propensity": 0.00234,
                "greedy": OTHER,
                "popularity": PopularityReason(0.0, 0.0, 0.5),
            },
            "“Aliens” was drawn by exploration, with a probability of 0.23 %, where “Zodiac” would"
            f" stand otherwise; in its favour: {ALIEN} and “Heat” (view).",
        ),
        (
            {
                "explored": True,
                "newcomer": True,
                "propensity": 0.01,
                "greedy": OTHER,
                "history_effect": 0.0,
                "popularity": PopularityReason(-1.0, -1.0, 0.1),
            },
            "“Aliens” is shown as a newcomer, with a probability of 1 %, where “Zodiac” would stand"
            " otherwise.",
        ),
        ({"pinned": True, "propensity": 1.0}, "“Aliens” is pinned to this slot by the app."),
        (
            {"title": "x" * 80, "history_effect": 0.0},
            f"“{'x' * 59}…” is shown because of its popularity (above 93 % of the catalog).",
        ),
    ],
)
def test_the_sentence_names_the_strongest_causes(changes, sentence):
    """The strongest causes come first, one event of an item, weak ones not at all."""
    assert sentence_of(replace(PLAIN, **changes)) == sentence
