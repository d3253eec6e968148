"""A policy's probabilities of the shown items, and importance weights between policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.sequential import marginals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAMILIES = ("SIPS", "RIPS", "IIPS", "inclusion")
ROUNDING = 1e-9


class Propensities(NamedTuple):
    """A policy's probabilities of the shown items; 0 where it would never show the item there.

    Each row may be of another policy: a log of several releases is multi-logger data.
    """

    conditional: Floats
    """Given the slots above, float64 [m, K]."""

    marginal: Floats
    """In this slot, over all slates, float64 [m, K]."""

    inclusion: Floats
    """In any slot, float64 [m, K]."""


def sequential_propensities(
    ranks: Ints,
    slots: int,
    pool: Ints | int,
    epsilon: Floats | float,
    lengths: Ints | None = None,
) -> Propensities:
    """Return a policy's probabilities of shown items under scheme `sequential`.

    ranks int64 [m, slots] are the shown items' ranks, from 0, in the policy's greedy order of the
    eligible items. pool is int64 [m] or one number for all; epsilon is as in `settings_of`. An
    item ranked at or beyond the pool is never shown. `lengths` int64 [m] are the slates' own
    numbers of slots, `slots` unless given; the slots that a slate does not have are 1.

    Raises:
        ValueError: a rank is negative.
    """
    if (ranks < 0).any():
        raise ValueError(f"expected ranks of at least 0, found {ranks.min()}")

    pools, epsilons = settings_of(len(ranks), slots, pool, epsilon)
    in_pool = ranks < pools[:, None]
    items_left = np.maximum(pools[:, None] - np.arange(slots), 1)
    is_greedy = ranks == best_remaining_rank(ranks)
    conditional = epsilons / items_left + (1.0 - epsilons) * is_greedy

    marginal = np.empty(ranks.shape)
    inclusion = np.empty(ranks.shape)
    for rows, table in marginal_tables(pools, epsilons, lengths):
        column = np.minimum(ranks[rows], table.shape[1] - 1)
        marginal[rows] = table[np.arange(slots), column]
        inclusion[rows] = table.sum(axis=0)[column]

    shown = Propensities(conditional * in_pool, marginal * in_pool, inclusion * in_pool)
    if lengths is None:
        return shown
    missing = np.arange(slots) >= lengths[:, None]
    return Propensities(*(np.where(missing, 1.0, probability) for probability in shown))


def examined_by_rank(
    examinations: Sequence[Floats], pool: Ints | int, epsilon: Floats | float, lengths: Ints
) -> list[Floats]:
    """Return Σ_l θ_l P(slot l shows the rank) float64 [m, M] for the ranks below the largest pool.

    Each of `examinations` float64 [K] is a θ, how much each slot is looked at, and gives one
    result; `lengths` int64 [m] are the slates' own numbers of slots; pool and epsilon are as in
    `settings_of`. Where θ = 1 this is the probability of inclusion. 0 beyond a decision's own
    pool. Source: Li et al. 2018, section 3 (the position-based model).
    """
    pools, epsilons = settings_of(len(lengths), len(examinations[0]), pool, epsilon)
    shape = len(lengths), int(pools.max(initial=0))
    examined = [np.zeros(shape) for _ in examinations]
    for rows, table in marginal_tables(pools, epsilons, lengths):
        for result, theta in zip(examined, examinations, strict=True):
            result[rows, : table.shape[1]] = theta @ table
    return examined


def best_remaining_rank(ranks: Ints) -> Ints:
    """Return int64 [m, K]: for each slot the best rank that the slots above it left over."""
    m, slots = ranks.shape
    row = np.arange(m)
    best = np.empty((m, slots), np.int64)

    # Ranks at or beyond `slots` are never the best one left, so they share the last column.
    taken = np.zeros((m, slots + 1), np.bool_)
    for slot in range(slots):
        best[:, slot] = np.argmin(taken, axis=1)
        taken[row, np.minimum(ranks[:, slot], slots)] |= ranks[:, slot] < slots
    return best


def importance_weights(logged: Propensities, target: Propensities) -> dict[str, Floats]:
    """Return the weights float64 [m, K] of each family: SIPS, RIPS, IIPS and inclusion.

    Raises:
        ValueError: a logged propensity is not in (0, 1].
    """
    for name, probability in zip(Propensities._fields, logged, strict=True):
        invalid = invalid_propensities(probability)
        if invalid.any():
            example = probability[invalid].flat[0]
            raise ValueError(
                f"expected logged {name} propensities in (0, 1], found {example} in"
                f" {int(invalid.sum())} slots: what was shown had a probability above 0"
            )
    prefix = np.cumprod(target.conditional / logged.conditional, axis=1)
    return {
        "SIPS": np.broadcast_to(prefix[:, -1:], prefix.shape),
        "RIPS": prefix,
        "IIPS": target.marginal / logged.marginal,
        "inclusion": target.inclusion / logged.inclusion,
    }


def invalid_propensities(probability: Floats) -> NDArray[np.bool_]:
    """Return where a probability of something that happened is not in (0, 1]; NaN is not."""
    return ~((probability > 0.0) & (probability <= 1.0 + ROUNDING))


def max_weights(
    slots: int,
    logged: tuple[Ints | int, Floats | float],
    target: tuple[Ints | int, Floats | float],
    lengths: Ints | None = None,
) -> dict[str, float]:
    """Return an upper bound on the weights of each family under scheme `sequential`.

    The bounds hold for every order of the items, so they are known before any log; the intervals
    for any sample size need them. `logged` and `target` are (pool, epsilon), of each of m
    decisions or one for all; `lengths` int64 [m] are the slates' own numbers of slots.
    """
    of_slate = np.array([slots]) if lengths is None else lengths
    m = len(of_slate)
    logged_pools, logged_epsilons = settings_of(m, slots, *logged)
    target_pools, target_epsilons = settings_of(m, slots, *target)
    columns = [of_slate, logged_pools, target_pools, logged_epsilons, target_epsilons]
    settings = np.unique(np.column_stack(columns), axis=0)

    bounds = dict.fromkeys(FAMILIES, 0.0)
    for length, logged_pool, target_pool, *epsilons in settings.tolist():
        step = np.arange(int(min(length, logged_pool, target_pool)))
        logged_epsilon = np.array(epsilons[:slots])[step]
        target_epsilon = np.array(epsilons[slots:])[step]
        logged_table = marginals(len(step), int(logged_pool), tuple(logged_epsilon.tolist()))
        target_table = marginals(len(step), int(target_pool), tuple(target_epsilon.tolist()))

        # The worst case: the target's greedy item was the logging policy's least likely one.
        greedy = target_epsilon / (target_pool - step) + 1.0 - target_epsilon
        with np.errstate(divide="ignore"):
            prefix = float(np.prod(greedy / (logged_epsilon / (logged_pool - step))))
            item = float((target_table.max(axis=1) / logged_table.min(axis=1)).max())
            anywhere = float(target_table.sum(axis=0).max() / logged_table.sum(axis=0).min())
        for family, bound in zip(FAMILIES, (prefix, prefix, item, anywhere), strict=True):
            bounds[family] = max(bounds[family], bound)
    return bounds


def unsupported_mass(
    items: Ints, logged_items: Ints, slots: int, pool: Ints | int, epsilon: Floats | float
) -> Floats:
    """Return float64 [m]: the share of the target's slots with items that the log never shows.

    items int64 [m, M] are the target's pool in its greedy order, logged_items int64 [m, M'] the
    logging policy's pool in any order, -1 beyond a decision's own pool; pool and epsilon are the
    target's. The logging policy must explore: otherwise only its greedy slate has support.
    """
    pools, epsilons = settings_of(len(items), slots, pool, epsilon)

    supported = is_in_row(items, logged_items, logged_items >= 0)
    mass = np.zeros(len(items))
    for rows, table in marginal_tables(pools, epsilons):
        unsupported = ~supported[rows][:, : table.shape[1]]
        mass[rows] = unsupported @ table.sum(axis=0) / table.sum()
    return mass


def is_in_row(items: Ints, others: Ints, counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which items int64 [m, M] are in their own row of others [m, M'], where it counts."""
    return places_in_row(items, others, counts) >= 0


def places_in_row(items: Ints, others: Ints, counts: NDArray[np.bool_]) -> Ints:
    """Return int64 [m, M]: the column of each item in its own row of others [m, M'].

    Only where `counts` bool [m, M']; -1 for an item that is not there. A row of others has an item
    once.
    """
    if not counts.any():
        return np.full(items.shape, -1)

    # One number for each pair of row and item, ordered, so that one search compares all rows.
    width = int(max(items.max(initial=0), others.max(initial=0))) + 1
    offset = np.arange(len(items))[:, None] * width
    known = (offset + others)[counts]
    order = np.argsort(known)
    wanted = offset + items
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    found = (known[order[place]] == wanted) & (items >= 0)
    return np.where(found, np.nonzero(counts)[1][order[place]], -1)


def marginal_tables(
    pools: Ints, epsilons: Floats, lengths: Ints | None = None
) -> Iterator[tuple[Any, Floats]]:
    """Yield each distinct setting's rows, as an index, and its marginals [slots, pool] by rank.

    pools int64 [m] and epsilons float64 [m, slots] are the settings of m decisions. A slate of
    fewer slots than `slots`, by `lengths` int64 [m], shows nothing in the others.
    """
    m, slots = epsilons.shape
    of_slate = np.full(m, slots) if lengths is None else lengths
    columns = np.column_stack([pools, of_slate, epsilons])

    # Mostly all decisions have one setting, and `unique` has to sort all rows to see it.
    if m and (columns == columns[0]).all():
        settings, code = columns[:1], np.zeros(m, np.int64)
    else:
        settings, code = np.unique(columns, axis=0, return_inverse=True)
    for number, (size, length, *epsilon) in enumerate(settings.tolist()):
        rows = slice(None) if len(settings) == 1 else code.ravel() == number
        pool = int(size)
        drawn = min(int(length), pool)
        table = np.zeros((slots, pool))
        table[:drawn] = marginals(drawn, pool, tuple(epsilon[:drawn]))
        yield rows, table


def settings_of(
    m: int, slots: int, pool: Ints | int, epsilon: Floats | float
) -> tuple[Ints, Floats]:
    """Return the pool int64 [m] of each decision and the epsilon float64 [m, slots] of each slot.

    `epsilon` is one number for all, one for each decision [m], or one for each slot, [m, slots]
    or [1, slots].
    """
    by_slot = np.asarray(epsilon, np.float64)
    if by_slot.ndim == 1:
        by_slot = by_slot[:, None]
    pools = np.broadcast_to(np.asarray(pool, np.int64), m)
    return pools, np.broadcast_to(by_slot, (m, slots))
