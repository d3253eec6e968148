"""A candidate's click rate minus the active policy's, estimated directly from the active's log.

Where both policies do the same the weight is 1 and a slot adds nothing, so that the difference has
far less variance than either value. With the weight w of what was shown, the clicks r, the model's
clicks g and the examination θ, a decision adds

    Σ_k J_k (w_k - 1) (r_k - θ_k g(a_k))  +  Σ_a g(a) Σ_l θ_l (π_l(a) - β_l(a))

(doubly robust for both policies: Dudík et al. 2011). What the log never shows is not in the first
sum; in the second it counts no more than the model is checked to be good for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.ope.aggregation import SlateLog, take_rows
from sanderling_trainer.evaluation.ope.examination import Examination
from sanderling_trainer.evaluation.ope.propensities import (
    examined_by_rank,
    importance_weights,
    places_in_row,
    sequential_propensities,
)
from sanderling_trainer.evaluation.ope.reward_model import RewardModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DECISIONS_PER_BLOCK = 8192
STEP = 1e-3
"""Of the derivative by the coefficients of θ."""

FAMILIES = ("PBM", "inclusion", "IIPS", "RIPS", "SIPS")
CLASSES = ("promoted", "explored")
"""Where the candidate ranks an item: within its slate, or in the rest of its pool."""


class Slates(NamedTuple):
    """A log of m slates of at most K slots, with what the logging policy drew them from."""

    log: SlateLog

    items: Ints
    """Catalog rows, int64 [m, K], -1 in slots that a slate does not have."""

    ranks: Ints
    """In the logging policy's order, int64 [m, K]."""

    pool: Ints
    """Int64 [m]."""

    epsilon: Floats
    """Float64 [m, K]."""

    lengths: Ints
    """How many slots each slate has, int64 [m]."""


class Orders(NamedTuple):
    """What the candidate and the logging policy rank first at m decisions."""

    ranks: Ints
    """The candidate's ranks of the shown items, int64 [m, K]."""

    items: Ints
    """The candidate's first items, in order, int64 [m, M]."""

    logged_items: Ints
    """The logging policy's first items, in order, int64 [m, M'], -1 for what the lab lacks."""

    pool: Ints
    """How many of its first items the candidate draws from, int64 [m]."""

    epsilon: Floats
    """The candidate's, float64 [m, K]."""


class Sums(NamedTuple):
    """Sums over the decisions of each resampling unit, each float64 [units] or [units, c]."""

    clicks: Floats
    slots: Floats
    """Judged ones."""

    difference: Floats
    """In clicks, by family of weights, [units, 5]."""

    slope: Floats
    """The difference of family PBM if either coefficient of θ is larger by `STEP`, [units, 2]."""

    influence: Floats
    """On the two coefficients of θ, [units, 2]."""

    examined: Floats
    """Σ θ over judged slots."""

    weight: Floats
    """Σ θ w over judged slots."""

    expected_weight: Floats
    """What `weight` is in expectation: the candidate's supported slots."""

    weight_variance: Floats
    """The variance of `weight` by the log's own probabilities, see `_Block._weight_variance`."""

    unsupported_model: Floats
    """The model's clicks on what the log never shows, by class, [units, 2]."""

    unsupported_slots: Floats
    """The examined slots there, [units, 2]."""

    checked_clicks: Floats
    """Clicks on explored items like those, by class, [units, 2]."""

    checked_model: Floats
    """The model's clicks on the same, [units, 2]."""

    squared_weight: Floats
    """Σ w² over judged slots, by family, [units, 5]."""

    plain_weight: Floats
    """Σ w over judged slots, by family, [units, 5]."""


def sums_by_unit(
    slates: Slates, orders: Orders, model: RewardModel, examination: Examination, unit: Ints
) -> Sums:
    """Return the sums over the decisions of each resampling unit, `unit` int64 [m] from 0."""
    units = int(unit.max(initial=-1)) + 1
    judged = slates.log.judged
    judged_share = judged.sum(axis=0) / np.maximum(
        (np.arange(judged.shape[1]) < slates.lengths[:, None]).sum(axis=0), 1
    )
    moves = [np.zeros(2), np.array([STEP, 0.0]), np.array([0.0, STEP])]
    curves = [examination.curve(examination.coefficients + move) for move in moves]

    parts = []
    for start in range(0, len(unit), DECISIONS_PER_BLOCK):
        rows = slice(start, start + DECISIONS_PER_BLOCK)
        block = _Block(
            take_rows(slates, rows), take_rows(orders, rows), model.take(rows), judged_share
        )
        columns = block.columns(curves, examination.influence[rows])
        parts.append([_sum_by(unit[rows], units, column) for column in columns])
    return Sums(*(np.sum(pieces, axis=0) for pieces in zip(*parts, strict=True)))


def _sum_by(unit: Ints, units: int, column: Floats) -> Floats:
    if column.ndim == 1:
        return np.bincount(unit, column, units).astype(np.float64)
    return np.stack([np.bincount(unit, part, units) for part in column.T], axis=1)


class _Examined(NamedTuple):
    """Σ_l J_l θ_l P(rank in slot l) for one θ."""

    candidate: Floats
    """By the candidate's rank, float64 [m, M]."""

    logged: Floats
    """By the log's rank, float64 [m, M']."""

    weight: Floats
    """Their ratio for what was shown, float64 [m, K]: 1 in slots that a slate does not have."""


class _Gains(NamedTuple):
    """The model's clicks on the items that the two policies can show."""

    scale: Floats
    """How many slots of a decision are judged relative to the mean one, float64 [m]."""

    model: Floats
    """Of the candidate's items, float64 [m, M]."""

    supported: Floats
    """The same, 0 for what the log never shows."""

    logged: Floats
    """Of the log's items, float64 [m, M']."""

    logged_ranks: Ints
    """The candidate's items' ranks in the log's pool, int64 [m, M], -1 for what it never shows."""

    missing: list[Bools]
    """The others by class, each bool [m, M]."""


@dataclass(frozen=True)
class _Block:
    """A few thousand decisions."""

    slates: Slates
    orders: Orders
    model: RewardModel
    judged_share: Floats
    """Of each slot, float64 [K]."""

    def columns(self, curves: list[Floats], influence: Floats) -> Sums:
        """Return what each decision adds, for θ as in the first of `curves`."""
        slates = self.slates
        count = 1.0 / slates.log.pass_probability
        judged = slates.log.judged * count[:, None]
        reward = np.where(slates.log.judged, slates.log.reward, 0.0)
        model_shown = self.model.clicks(slates.items)
        theta = curves[0]
        ones = np.ones_like(theta)
        main, *moved, flat, squared = self._examined([*curves, ones, np.square(theta)])
        gains = self._gains()

        def difference(weight: Floats, curve: Floats, examined: _Examined) -> Floats:
            extra = (weight - 1.0) * (reward - curve * model_shown)
            expected = (gains.supported * examined.candidate).sum(axis=1)
            expected -= (gains.logged * examined.logged).sum(axis=1)
            return (judged * extra).sum(axis=1) + count * gains.scale * expected

        weights = {"PBM": main.weight, "inclusion": flat.weight, **self._scheme_weights()}
        by_family = [
            difference(weights[name], *((ones, flat) if name == "inclusion" else (theta, main)))
            for name in FAMILIES
        ]
        slopes = [
            difference(each.weight, curve, each)
            for curve, each in zip(curves[1:], moved, strict=True)
        ]
        checks = list(self._checked(judged))
        scaled = (count * gains.scale)[:, None] * main.candidate
        return Sums(
            clicks=(judged * reward).sum(axis=1),
            slots=judged.sum(axis=1),
            difference=np.stack(by_family, axis=1),
            slope=np.stack(slopes, axis=1),
            influence=influence,
            examined=(judged * theta).sum(axis=1),
            weight=(judged * theta * main.weight).sum(axis=1),
            expected_weight=(scaled * (gains.logged_ranks >= 0)).sum(axis=1),
            weight_variance=np.square(count)
            * gains.scale
            * self._weight_variance(main, squared, gains.logged_ranks),
            unsupported_model=_sums(gains.model * part * scaled for part in gains.missing),
            unsupported_slots=_sums(part * scaled for part in gains.missing),
            checked_clicks=_sums(mask * reward for mask in checks),
            checked_model=_sums(mask * theta * model_shown for mask in checks),
            squared_weight=_sums(judged * np.square(weights[name]) for name in FAMILIES),
            plain_weight=_sums(judged * weights[name] for name in FAMILIES),
        )

    def _examined(self, curves: list[Floats]) -> list[_Examined]:
        """Return what the two policies show of each rank, and the weights, for each θ."""
        slates, orders = self.slates, self.orders
        seen = [theta * self.judged_share for theta in curves]
        of_candidate = examined_by_rank(seen, orders.pool, orders.epsilon, slates.lengths)
        of_log = examined_by_rank(seen, slates.pool, slates.epsilon, slates.lengths)
        has_slot = np.arange(len(curves[0])) < slates.lengths[:, None]
        result = []
        for candidate, logged in zip(of_candidate, of_log, strict=True):
            top = _at(candidate, orders.ranks)
            bottom = _at(logged, slates.ranks)
            weight = np.where(has_slot, top / np.maximum(bottom, 1e-300), 1.0)
            width = orders.items.shape[1], orders.logged_items.shape[1]
            result.append(_Examined(candidate[:, : width[0]], logged[:, : width[1]], weight))
        return result

    def _scheme_weights(self) -> dict[str, Floats]:
        orders, slates = self.orders, self.slates
        slots = slates.ranks.shape[1]
        target = sequential_propensities(
            orders.ranks, slots, orders.pool, orders.epsilon, slates.lengths
        )
        weights = importance_weights(slates.log.logged, target)
        return {name: weights[name] for name in ("IIPS", "RIPS", "SIPS")}

    def _gains(self) -> _Gains:
        slates, orders = self.slates, self.orders
        items = orders.items[:, : int(orders.pool.max(initial=0))]
        logged_items = orders.logged_items[:, : int(slates.pool.max(initial=0))]

        # A decision of which twice as many slots are judged counts twice.
        usual = np.cumsum(self.judged_share)[slates.lengths - 1]
        scale = slates.log.judged.sum(axis=1) / np.maximum(usual, 1e-300)

        in_pool = (np.arange(logged_items.shape[1]) < slates.pool[:, None]) & (logged_items >= 0)
        logged_ranks = places_in_row(items, logged_items, in_pool)
        supported = logged_ranks >= 0
        promoted = np.arange(items.shape[1]) < slates.lengths[:, None]
        model = self.model.clicks(items)
        return _Gains(
            scale=scale,
            model=model,
            supported=model * supported,
            logged=self.model.clicks(logged_items),
            logged_ranks=logged_ranks,
            missing=[~supported & promoted, ~supported & ~promoted],
        )

    def _weight_variance(self, main: _Examined, squared: _Examined, logged_ranks: Ints) -> Floats:
        """Return the variance of Σ_k J_k θ_k w_k under the logging policy, float64 [m].

        With q(r) = Σ_l J_l θ_l² P(rank r in slot l) and the mean weight c it is Σ_r q(r) (w(r) -
        c)², as if slots were independent: drawn without replacement they vary less. It counts the
        large weights of what is rarely shown even where a short log has not shown it.
        """
        shown = logged_ranks >= 0
        ranks = np.where(shown, logged_ranks, 0)
        bottom = np.maximum(np.take_along_axis(main.logged, ranks, axis=1), 1e-300)
        weight = shown * main.candidate / bottom
        often = shown * np.take_along_axis(squared.logged, ranks, axis=1)

        mean = (shown * main.candidate).sum(axis=1) / np.maximum(main.logged.sum(axis=1), 1e-300)
        varied = (often * np.square(weight - mean[:, None])).sum(axis=1)
        # What the candidate never shows has the weight 0.
        return varied + np.square(mean) * (squared.logged.sum(axis=1) - often.sum(axis=1))

    def _checked(self, judged: Floats) -> Iterator[Any]:
        """Yield the mask of explored items that stand for unsupported ones, of each class.

        For what the candidate promotes: what it promotes from beyond the active slate. For what it
        explores: what it explores from the outer half of the rest of the active pool.
        """
        slates, orders = self.slates, self.orders
        length = slates.lengths[:, None]
        yield judged * ((slates.ranks >= length) & (orders.ranks < length))
        outer = (length + slates.pool[:, None]) // 2
        in_pool = (orders.ranks >= length) & (orders.ranks < orders.pool[:, None])
        yield judged * ((slates.ranks >= outer) & in_pool)


def _sums(columns: Iterable[Floats]) -> Floats:
    """Return the sums over slots or ranks of each [m, ...], float64 [m, c]."""
    return np.stack([column.sum(axis=1) for column in columns], axis=1)


def _at(by_rank: Floats, ranks: Ints) -> Floats:
    """Return the value at each rank, 0 beyond the last."""
    padded = np.concatenate([by_rank, np.zeros((len(by_rank), 1))], axis=1)
    return np.take_along_axis(padded, np.minimum(ranks, by_rank.shape[1]), axis=1)
