"""Naive reference implementations: each is its definition written as loops, and shares no code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sanderling.events.schema import Decision, Event, Observation, Outcome, StateReset
from sanderling.events.state_checksum import NO_EVENTS, next_checksum

# Exploration


def slates(slots: int, pool: int) -> Iterator[tuple[int, ...]]:
    """Yield every ordered slate of distinct ranks."""
    return itertools.permutations(range(pool), slots)


def joint(slate: tuple[int, ...], pool: int, epsilon: float) -> float:
    """Return the probability of a slate under scheme `sequential`, straight from its definition."""
    probability = 1.0
    left = list(range(pool))
    for rank in slate:
        probability *= (1.0 - epsilon) * (rank == min(left)) + epsilon / len(left)
        left.remove(rank)
    return probability


def joint_mixture(slate: tuple[int, ...], pool: int, epsilon: float) -> float:
    """Return the probability of a slate under scheme `mixture`, straight from its definition."""
    greedy = slate == tuple(range(len(slate)))
    return (1.0 - epsilon) * greedy + epsilon / math.perm(pool, len(slate))


def joint_softmax(slate: tuple[int, ...], scores: list[float], temperature: float) -> float:
    """Return the probability of a slate under scheme `softmax`: a product of softmaxes."""
    probability = 1.0
    left = list(range(len(scores)))
    for rank in slate:
        best = max(scores[j] for j in left)
        weights = {j: math.exp((scores[j] - best) / temperature) for j in left}
        probability *= weights[rank] / sum(weights.values())
        left.remove(rank)
    return probability


def joint_newcomers(
    slate: tuple[int, ...],
    pool: int,
    newcomers: int,
    rate: float,
    joint_regular: Callable[[tuple[int, ...]], float],
) -> float:
    """Return the probability of a slate with a quota; ranks from `pool` on are newcomers.

    `joint_regular` is the scheme's probability of the slate that the other slots make.
    """
    probability = 1.0
    left = list(range(pool, pool + newcomers))
    for rank in slate:
        if rank in left:
            probability *= rate / len(left)
            left.remove(rank)
        elif left:
            probability *= 1.0 - rate
    return probability * joint_regular(tuple(rank for rank in slate if rank < pool))


def probability(plan: Any, slate: tuple[int, ...], scores: Any, count: int) -> float:
    """Return a slate's probability by its definition: guarded slots, a quota that draws from
    `count` newcomers, then the plan's scheme."""
    fixed = min(plan.guarded, len(slate))
    if slate[:fixed] != tuple(range(fixed)):
        return 0.0
    rate = plan.epsilon * plan.newcomers
    epsilon = 1.0 if rate == 1.0 else (plan.epsilon - rate) / (1.0 - rate)
    left = scores[fixed:].tolist()

    def regular(rest: tuple[int, ...]) -> float:
        if plan.scheme == "sequential":
            return joint(rest, len(left), epsilon)
        if plan.scheme == "mixture":
            return joint_mixture(rest, len(left), epsilon)
        return joint_softmax(rest, left, plan.temperature)

    rest = tuple(rank - fixed for rank in slate[fixed:])
    return joint_newcomers(rest, len(left), count, rate, regular)


def joint_pinned(
    slate: tuple[int, ...],
    pinned: Iterable[int],
    first_pin: int,
    joint_others: Callable[[tuple[int, ...]], float],
) -> float:
    """Return the probability of a slate with pinned slots; ranks from `first_pin` on are pins.

    `joint_others` is the probability of the slate that the other slots make, of its length too.
    """
    others = tuple(rank for rank in slate if rank < first_pin)
    for i, slot in enumerate(sorted(pinned)):
        place = min(slot, len(others) + i)
        if slate[place : place + 1] != (first_pin + i,):
            return 0.0
    return joint_others(others)


def diverse_values(
    diversity: float, scores: Any, rows: Any, before: Iterable[Any], left: Iterable[int]
) -> dict[int, float]:
    """Return the value of each item left: of its score, and of its likeness to the rows before."""
    scores = [float(score) for score in scores]
    span = max(scores) - min(scores) or 1.0
    values = {}
    for j in left:
        values[j] = (1.0 - diversity) * scores[j]
        cosines = []
        for other in before:
            dot = sum(int(a) * int(b) for a, b in zip(rows[j], other, strict=True))
            squares = [sum(int(a) ** 2 for a in row) for row in (rows[j], other)]
            norms = math.sqrt(squares[0]) * math.sqrt(squares[1])
            cosines.append(dot / norms if norms > 0.0 else 0.0)
        if cosines:
            values[j] = values[j] - diversity * span * max(cosines)
    return values


def diverse_greedy(
    slots: int, diversity: float, scores: Any, rows: Any, pinned: list[Any]
) -> tuple[int, ...]:
    """Return the slate that shows the item of the highest value in each slot."""
    slate: list[int] = []
    for _ in range(slots):
        left = [j for j in range(len(scores)) if j not in slate]
        before = [*pinned, *(rows[j] for j in slate)]
        values = diverse_values(diversity, scores, rows, before, left)
        slate.append(max(left, key=lambda j: (values[j], -j)))
    return tuple(slate)


def joint_diverse(
    plan: Any, slate: tuple[int, ...], diversity: float, scores: Any, rows: Any, pinned: list[Any]
) -> float:
    """Return the probability of a slate without newcomers under a plan, by the definition."""
    fixed = min(plan.guarded, len(slate))
    if slate[:fixed] != diverse_greedy(fixed, diversity, scores, rows, pinned):
        return 0.0
    probability = 1.0
    if plan.scheme == "mixture":
        greedy = slate == diverse_greedy(len(slate), diversity, scores, rows, pinned)
        free = len(slate) - fixed
        every = math.perm(len(scores) - fixed, free)
        return (1.0 - plan.epsilon) * greedy + plan.epsilon / every if free else 1.0
    for slot in range(fixed, len(slate)):
        left = [j for j in range(len(scores)) if j not in slate[:slot]]
        before = [*pinned, *(rows[j] for j in slate[:slot])]
        values = diverse_values(diversity, scores, rows, before, left)
        best = max(values.values())
        if plan.scheme == "softmax":
            weights = {j: math.exp((values[j] - best) / plan.temperature) for j in left}
            probability *= weights[slate[slot]] / sum(weights.values())
        else:
            is_best = slate[slot] == min(j for j in left if values[j] == best)
            probability *= (1.0 - plan.epsilon) * is_best + plan.epsilon / len(left)
    return probability


# Top-k


def naive_top(
    rows: Any, scale: Any, bias: Any, query: Any, k: int, excluded: Any
) -> tuple[list[int], list[float]]:
    """Return rows and scores of the k best by sorting all, in Python's exact integers."""
    values = [float(value) for value in query.tolist()]
    peak = max((abs(value) for value in values), default=0.0)
    has_direction = all(abs(value) <= 1e12 for value in values) and peak >= 1e-12
    codes = [round(value * (8388607 / peak)) if has_direction else 0 for value in values]
    step = peak / 8388607 if has_direction else 0.0
    scored = []
    for row, items in enumerate(rows.tolist()):
        if row not in excluded:
            dot = sum(a * b for a, b in zip(items, codes, strict=True))
            scored.append((-((float(dot) * float(scale[row])) * step + float(bias[row])), row))
    scored.sort()
    return [row for _, row in scored[:k]], [-score for score, _ in scored[:k]]


def naive_capped(
    ranking: list[int], groups: list[list[Any]], at_most: int, k: int, taken: list[int]
) -> list[int]:
    """Return the first k rows of a ranking of which, with those taken before, no group has more
    than `at_most`."""
    union = list(taken)
    for row in ranking:
        if all(sum(name in groups[other] for other in union) < at_most for name in groups[row]):
            union.append(row)
    return union[len(taken) :][:k]


# Off-policy estimation


def naive_interval(sums: Any, rng: Any, resamples: int) -> tuple[float, float]:
    """Return the bootstrap interval of sum(top) / sum(bottom) over users; sums are such pairs."""
    values = []
    for _ in range(resamples):
        top = 0.0
        bottom = 0.0
        for _ in range(len(sums)):
            user = sums[int(rng.integers(len(sums)))]
            top += user[0]
            bottom += user[1]
        values.append(top / bottom)
    values.sort()
    return values[int(0.025 * resamples)], values[int(0.975 * resamples)]


def naive_expected(
    q: Any, slate: Any, pool: int, epsilon: float
) -> tuple[list[float], list[float]]:
    """Return the mean of q over all slates of scheme `sequential`, and given the slots above, for
    each slot."""
    slots = len(slate)
    over_all = [0.0] * slots
    above = []
    for other in slates(slots, pool):
        for slot, rank in enumerate(other):
            over_all[slot] += joint(other, pool, epsilon) * float(q[rank])
    for slot in range(slots):
        left = [rank for rank in range(pool) if rank not in slate[:slot]]
        above.append(
            sum(
                ((1 - epsilon) * (rank == min(left)) + epsilon / len(left)) * float(q[rank])
                for rank in left
            )
        )
    return over_all, above


# Ranking metrics


def naive_ndcg(slate: Any, relevant: set[Any], k: int) -> float:
    """Return the normalized discounted gain by its definition."""
    import math

    gain = sum((item in relevant) / math.log2(place + 1) for place, item in enumerate(slate, 1))
    ideal = sum((place <= len(relevant)) / math.log2(place + 1) for place in range(1, k + 1))
    return gain / ideal


def nearest_centres(table: Any, books: Any) -> Any:
    """Return a table [v, w] with each group replaced by its nearest of books [groups, k, group]."""
    rounded = table.copy()
    group = books.shape[2]
    for row in range(len(table)):
        for part, centres in enumerate(books):
            piece = table[row, part * group : (part + 1) * group]
            nearest = min(centres, key=lambda centre: sum((centre - piece) ** 2))
            rounded[row, part * group : (part + 1) * group] = nearest
    return rounded


# States


def rebuildable(events: Iterable[Event]) -> set[str]:
    """Return the ids of the decisions whose state follows from the events before them."""
    checksums: dict[str, list[str]] = {}  # by user: after no event, after one, …
    rebuilt: set[str] = set()
    for event in events:
        if isinstance(event, StateReset):
            checksums[event.user] = [NO_EVENTS]
        steps = event.steps if isinstance(event, StateReset) else []
        if isinstance(event, Observation) or (isinstance(event, Outcome) and event.updates_state):
            steps = [(event.item, event.kind)]
        for item, kind in steps:
            of_user = checksums.setdefault(event.user, [NO_EVENTS])
            of_user.append(next_checksum(of_user[-1], item, kind))
        if isinstance(event, Decision):
            later = checksums.get(event.user, [NO_EVENTS])[event.state_events :]
            if later[:1] == [event.state_checksum]:
                rebuilt.add(event.id)
    return rebuilt
