"""Slates under rules, boosts, pins and diversity together: the engine against its definition."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import newcomers
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive import (
    joint_diverse,
    joint_newcomers,
    joint_pinned,
    naive_capped,
    probability,
)

ITEMS = 9
LISTED = (1, 4, 6, 8)
SCHEMES = ["sequential", "mixture", "softmax"]
AT_HOME = [{"id": "sku-0", "text": "coffee", "price": 14}, {"id": "sku-1", "text": "jazz album"}]


def plan_of(scheme: str, guarded: int) -> Exploration:
    return Exploration(scheme, 0.4, pool=4, guarded=guarded, newcomers=0.5, temperature=0.7)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small bundle for each scheme and number of guarded slots."""
    root = tmp_path_factory.mktemp("shaped")
    for scheme in SCHEMES:
        for guarded in (0, 2):
            plan = plan_of(scheme, guarded)
            folder = root / f"{scheme}-{guarded}"
            write_bundle(folder, items=ITEMS, exploration=plan, newcomers=LISTED)
    return root


class Definition:
    """What a request may show, and each slate's probability, by loops over all items."""

    def __init__(self, scorer, plan, request):
        self.plan = plan
        self.diversity = request["diversity"]
        vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
        rows = [row for row in range(ITEMS + 2) if row != 2]  # item-2 was removed
        ids = {row: scorer.item(row).id for row in rows}
        price = {row: scorer.item(row).attributes.get("price") for row in rows}

        def is_at_least(row, least):
            return price[row] is not None and price[row] >= least

        least = request["where"]["price"]["ge"] if "where" in request else None
        eligible = [
            row
            for row in rows
            if ids[row] not in request["exclude"] and (least is None or is_at_least(row, least))
        ]
        score = {row: scorer.score(vector, row) for row in eligible}
        for entry in request["boost"]:
            bound = entry["where"]["price"]["ge"]
            score = {row: s + entry["by"] * is_at_least(row, bound) for row, s in score.items()}

        # Of the pins, those whose items may be shown, as far as caps leave room.
        groups = {row: [] if price[row] is None else [price[row] % 2] for row in rows}
        cap = request["at_most"].get("odd", ITEMS)
        row_of = {id: row for row, id in ids.items()}
        self.pins = {}
        for slot, item in sorted(request["pin"].items()):
            taken = list(self.pins.values())
            row = row_of.get(item)
            if row in eligible and naive_capped([row], groups, cap, 1, taken):
                self.pins[slot] = row
        pinned = list(self.pins.values())
        others = [row for row in eligible if row not in pinned]
        others.sort(key=lambda row: (-score[row], row))
        size = max(plan.pool, request["k"] - len(pinned))
        self.pool = naive_capped(others, groups, cap, size, pinned)

        # Newcomers are drawn whatever their score, except where caps take the best alone.
        fresh = [row for row in others if row in LISTED or row >= ITEMS]
        fresh = [row for row in fresh if row not in self.pool]
        fresh.sort(key=lambda row: (-scorer.score(vector, row), row))
        limit = size if request["at_most"] else len(fresh)
        self.newcomers = naive_capped(fresh, groups, cap, limit, [*pinned, *self.pool])
        self.scores = np.array([score[row] for row in self.pool])
        self.vectors = scorer.codes(np.array([*self.pool, *pinned], np.int64)).astype(int).tolist()
        self.slots = min(request["k"] - len(pinned), len(self.pool)) + len(pinned)
        self.shown = [ids[row] for row in [*self.pool, *self.newcomers, *pinned]]

    def joint(self, slate: tuple[str, ...]) -> float:
        """Return the probability of a slate of ids."""
        first_pin = len(self.pool) + len(self.newcomers)
        ranks = tuple(self.shown.index(item) for item in slate)
        return joint_pinned(ranks, self.pins, first_pin, self._joint_others)

    def _joint_others(self, ranks: tuple[int, ...]) -> float:
        guarded = sum(slot not in self.pins for slot in range(self.plan.guarded))
        plan = Exploration(
            self.plan.scheme,
            self.plan.epsilon,
            pool=4,
            guarded=guarded,
            newcomers=0.5 if self.newcomers else 0.0,
            temperature=0.7,
        )
        if not self.diversity:
            return probability(plan, ranks, self.scores, len(self.newcomers))
        fixed = min(guarded, len(ranks))
        pool = len(self.pool)
        if any(rank >= pool for rank in ranks[:fixed]):
            return 0.0
        regular = newcomers.regular(plan) if self.newcomers else plan
        rate = newcomers.rate(plan) if self.newcomers else 0.0

        def joint_regular(rest):
            slate = (*ranks[:fixed], *rest)
            vectors = self.vectors[:pool], self.vectors[pool:]
            return joint_diverse(regular, slate, self.diversity, self.scores, *vectors)

        return joint_newcomers(ranks[fixed:], pool, len(self.newcomers), rate, joint_regular)


items = st.sampled_from([*(f"item-{row}" for row in range(ITEMS)), "sku-0", "sku-1"])
prices = st.integers(9, 17)
rules = st.fixed_dictionaries(
    {
        "k": st.integers(1, 3),
        "exclude": st.lists(items, max_size=3),
        "at_most": st.sampled_from([{}, {"odd": 1}, {"odd": 2}]),
        "boost": st.lists(
            st.builds(
                lambda least, by: {"where": {"price": {"ge": least}}, "by": by},
                prices,
                st.sampled_from([-1.0, 0.25, 2.0]),
            ),
            max_size=2,
        ),
        "pin": st.dictionaries(st.integers(0, 2), items, max_size=2),
        "diversity": st.sampled_from([0.0, 0.5, 1.0]),
    },
    optional={"where": st.builds(lambda least: {"price": {"ge": least}}, prices)},
)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(deadline=None, max_examples=60)
@given(request=rules, guarded=st.sampled_from([0, 2]), seed=st.integers(0, 2**32))
def test_slates_under_random_rules_equal_enumeration(
    folders, tmp_path_factory, scheme, request, guarded, seed
):
    """Under random rules, boosts, pins, caps, exclusions and diversity, on a device with its own
    items: the probabilities of all slates sum to 1; the conditional propensities of a slate
    multiply to its own, its marginals are sums over slates, and it replays bit for bit."""
    request["pin"] = {slot: item for slot, item in request["pin"].items() if slot < request["k"]}
    if len(set(request["pin"].values())) < len(request["pin"]):
        return
    state = tmp_path_factory.mktemp("state")
    options = {"clock": FakeClock(), "entropy": FakeEntropy(seed)}
    with Engine.open(folders / f"{scheme}-{guarded}", state, **options) as engine:
        engine.upsert_items(AT_HOME)
        engine.remove_items(["item-2"])
        engine.set_attributes({f"item-{row}": {"odd": row % 2} for row in range(ITEMS)})
        engine.set_attributes({"sku-0": {"odd": 0}})
        made = [engine.recommend("anna", **request) for _ in range(4)]
        definition = Definition(scorer_of(engine), plan_of(scheme, guarded), request)
        assert all(engine.explain(slate.decision).is_identical for slate in made if slate)

    every = {
        slate: definition.joint(slate)
        for slate in permutations(definition.shown, definition.slots)
        if set(definition.shown[len(definition.shown) - len(definition.pins) :]) <= set(slate)
    }
    assert math.isclose(sum(every.values()), 1.0, rel_tol=1e-12)
    for slate in made:
        shown = tuple(item.id for item in slate)
        product = math.prod(item.propensity for item in slate)
        assert math.isclose(product, every[shown], rel_tol=1e-9)
        for item in slate:
            if item.marginal is not None:
                exact = sum(p for other, p in every.items() if other[item.slot] == item.id)
                assert math.isclose(item.marginal, exact, rel_tol=1e-9)
