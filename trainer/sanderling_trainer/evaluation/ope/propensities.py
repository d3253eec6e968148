"""A policy's probabilities of the items that were shown, and the importance weights between two policies.

Refuses to know rewards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.exploration.sequential import marginals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 1e-9


class Propensities(NamedTuple):
    """A policy's probabilities of the shown items, each float64 [m, K], 0 where it would never show the item so.

    `conditional` is given the slots above, `marginal` in this slot over all slates, `inclusion` in any slot. Each row
    may be another policy's: logs of several releases at once are multi-logger data.
    """

    conditional: Floats
    marginal: Floats
    inclusion: Floats


def sequential_propensities(
    ranks: Ints, slots: int, pool: Ints | int, epsilon: Floats | float
) -> Propensities:
    """Return a policy's probabilities, under scheme `sequential`, of shown items that stand at its own `ranks`.

    ranks int64 [m, slots] are the shown items' places in the policy's greedy order of what was eligible; pool int64 [m]
    or one for all, epsilon as `per_decision` takes it; an item at or beyond the pool is never shown. Raises
    `ValueError` for a negative rank.
    """
    if (ranks < 0).any():
        raise ValueError(f"expected ranks of at least 0, found {ranks.min()}")
    pools, epsilons = per_decision(len(ranks), slots, pool, epsilon)
    inside = ranks < pools[:, None]
    left = np.maximum(pools[:, None] - np.arange(slots), 1)
    conditional = epsilons / left + (1.0 - epsilons) * (ranks == best_left(ranks))
    marginal, inclusion = np.empty(ranks.shape), np.empty(ranks.shape)
    for chosen, table in tables(pools, epsilons):
        within = np.minimum(ranks[chosen], table.shape[1] - 1)
        marginal[chosen] = table[np.arange(slots), within]
        inclusion[chosen] = table.sum(axis=0)[within]
    return Propensities(conditional * inside, marginal * inside, inclusion * inside)


def best_left(ranks: Ints) -> Ints:
    """Return int64 [m, K]: the rank of the best item that the slots above left."""
    m, slots = ranks.shape
    best, row, taken = (
        np.empty((m, slots), np.int64),
        np.arange(m),
        np.zeros((m, slots + 1), np.bool_),
    )
    for slot in range(slots):
        best[:, slot] = np.argmin(taken, axis=1)
        taken[row, np.minimum(ranks[:, slot], slots)] |= ranks[:, slot] < slots
    return best


def weights(logged: Propensities, target: Propensities) -> dict[str, Floats]:
    """Return the weights float64 [m, K] of SIPS, RIPS, IIPS and inclusion. Raises `ValueError` for impossible logs."""
    for name, probability in zip(Propensities._fields, logged, strict=True):
        wrong = impossible(probability)
        if wrong.any():
            found = probability[wrong].flat[0]
            raise ValueError(
                f"expected logged {name} propensities in (0, 1], found {found} in {int(wrong.sum())} slots:"
                " what was shown cannot have been impossible"
            )
    prefix = np.cumprod(target.conditional / logged.conditional, axis=1)
    return {
        "SIPS": np.broadcast_to(prefix[:, -1:], prefix.shape),
        "RIPS": prefix,
        "IIPS": target.marginal / logged.marginal,
        "inclusion": target.inclusion / logged.inclusion,
    }


def impossible(probability: Floats) -> NDArray[np.bool_]:
    """Return where a probability of something that happened is not in (0, 1]; NaN is not."""
    return ~((probability > 0.0) & (probability <= 1.0 + ROUNDING))


def largest_weights(
    slots: int,
    logged: tuple[Ints | int, Floats | float],
    target: tuple[Ints | int, Floats | float],
    m: int = 1,
) -> dict[str, float]:
    """Return the most that each weight can be under scheme `sequential`, known before any log: for the intervals that
    need it. `logged` and `target` are (pool, epsilon) of m decisions or for all, the order of items unknown."""
    most = dict.fromkeys(("SIPS", "RIPS", "IIPS", "inclusion"), 0.0)
    (pools, epsilons), (own_pools, own_epsilons) = (
        per_decision(m, slots, *logged),
        per_decision(m, slots, *target),
    )
    settings = np.unique(np.column_stack([pools, own_pools, epsilons, own_epsilons]), axis=0)
    for pool, own_pool, *rest in settings.tolist():
        steps = np.arange(min(slots, int(pool), int(own_pool)))
        epsilon, own_epsilon = np.array(rest[:slots])[steps], np.array(rest[slots:])[steps]
        shown = marginals(len(steps), int(pool), tuple(epsilon.tolist()))
        wanted = marginals(len(steps), int(own_pool), tuple(own_epsilon.tolist()))
        best = own_epsilon / (own_pool - steps) + 1.0 - own_epsilon
        with np.errstate(divide="ignore"):
            prefix = float(np.prod(best / (epsilon / (pool - steps))))
            found = {
                "SIPS": prefix,
                "RIPS": prefix,
                "IIPS": float((wanted.max(axis=1) / shown.min(axis=1)).max()),
                "inclusion": float(wanted.sum(axis=0).max() / shown.sum(axis=0).min()),
            }
        most = {name: max(most[name], value) for name, value in found.items()}
    return most


def unsupported_mass(
    items: Ints, logged_items: Ints, slots: int, pool: Ints | int, epsilon: Floats | float
) -> Floats:
    """Return float64 [m]: the share of the target's slots that hold items which the logging policy never shows.

    items int64 [m, M] are the target's pool in its greedy order, logged_items [m, M'] the logging policy's pool in any
    order, -1 beyond a decision's own pool; pool and epsilon are the target's. The logging policy must explore: without
    it nothing but its greedy slate has support.
    """
    pools, epsilons = per_decision(len(items), slots, pool, epsilon)
    width = int(max(items.max(initial=0), logged_items.max(initial=0))) + 1
    row = np.arange(len(items))[:, None] * width
    known = np.isin(row + items, (row + logged_items)[logged_items >= 0])
    mass = np.zeros(len(items))
    for chosen, table in tables(pools, epsilons):
        unknown = ~known[chosen][:, : table.shape[1]]
        mass[chosen] = unknown @ table.sum(axis=0) / table.sum()
    return mass


def tables(pools: Ints, epsilons: Floats) -> Iterator[tuple[Any, Floats]]:
    """Yield, for each pool and row of ε [m, slots] that occur, an index of where they do, and the marginals
    [slots, pool] by rank."""
    slots = epsilons.shape[1]
    found, code = np.unique(np.column_stack([pools, epsilons]), axis=0, return_inverse=True)
    for at, (size, *each) in enumerate(found.tolist()):
        pool, chosen = int(size), slice(None) if len(found) == 1 else code.ravel() == at
        table = np.zeros((slots, pool))
        table[: min(slots, pool)] = marginals(min(slots, pool), pool, tuple(each[:pool]))
        yield chosen, table


def per_decision(
    m: int, slots: int, pool: Ints | int, epsilon: Floats | float
) -> tuple[Ints, Floats]:
    """Return the pool of each of m decisions, and the epsilon of each of its slots [m, slots].

    `epsilon` is one for all, one for each decision [m], or one for each slot [m, slots] or [1, slots].
    """
    each = np.asarray(epsilon, np.float64)
    each = each[:, None] if each.ndim == 1 else each
    return np.broadcast_to(np.asarray(pool, np.int64), m), np.broadcast_to(each, (m, slots))
