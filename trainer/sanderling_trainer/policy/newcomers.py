"""Fits what an item is scored with before anybody liked it: its text's projection and one bias.

Both are found in closed form after the warm start, and no known item's score changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import NEVER
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import (
    PopularityTable,
    seen_pairs,
    training_batches,
)
from sanderling_trainer.policy.training.context import TrainingContext

# Of the ridge regression, times the mean eigenvalue. Smaller ones rest on what a bundle's encoder
# does not keep of a text: .03 turned a text's cosine of .95 into one of .81 between the vectors.
PENALTIES = (0.3, 1.0, 3.0)
# Of features beside texts; with 0 they place no newcomer.
SHARES = (1.0, 0.3, 0.0)
RELEASE_DAYS = 14  # a release is served about so long before the next one counts anew
MIN_LIKES = 30  # of newcomers, for a share that can be told from chance
GIVEN = 0.1  # share of the log's time at its beginning whose items are no newcomers
MAX_HISTORIES = 20_000
MAX_POINTS = 4_000
MAX_ITEMS = 16_384  # that compete where a penalty is chosen
MAX_FITTED = 65_536  # items that the ridge regression sees
MAX_SCORES = 2**23  # held at once


@dataclass(frozen=True)
class NewcomerCalibration:
    """What was fitted, and on how much."""

    penalty: float | None
    """Of the ridge regression; None where the texts say nothing."""

    bias: float
    """Of newcomers, beside their popularity features."""

    newcomer_likes: int
    likes: int

    slots_share: float
    """Share of the best slots that newcomers get with this bias, at the same points."""


@torch.no_grad()
def calibrate_newcomers(
    context: TrainingContext, shown: NDArray[np.int64] | None = None
) -> NewcomerCalibration:
    """Fit the projection and the bias of newcomers; change the network in place.

    *Projection*: the ridge regression of the liked items' vectors v_i = A t_i + B ψ_i + ν_i on
    their texts' vectors t_i and features ψ_i, each item weighing the same, replaces A and B, and
    ν_i becomes what is left, so that every v_i stays as it is. The penalty, and the share of the
    features, are those with which left-out items (closed form; Allen 1974) make the latest likes
    most probable.

    *Bias*: the log's last fortnights are taken as if a release of the first day had been served in
    each. Items that nobody had liked by that day compete, by their left-out vectors, with all
    others; the bias gives them the share of the best `config.slate` slots that they had of the
    likes. As many fortnights count as hold 30 likes of newcomers. Without any the bias is the
    items' median.

    Items that nobody liked get this bias, and no residual unless they are in some history. For rows
    that are added later: residual 0, bias `network.new_item_bias`.

    context: with the popularity of its histories' log.
    shown: catalog rows, -1 for none, that devices showed: they keep the bias that they have, since
    decisions teach it.
    """
    network = context.network
    popularity = context.popularity
    if popularity is None:
        raise ValueError("expected a context with its log's popularity, found None")

    network.eval()
    points = _Points.of(context)
    born = popularity.first_days()
    liked = torch.from_numpy(born < NEVER).to(context.device)
    table = PopularityTable(popularity, context.device)

    vectors, penalty = _refit(network, liked, points, table)
    calibration = _calibrate(context, points, born, table, vectors, penalty)

    network.new_item_bias.fill_(calibration.bias)
    untaught = ~liked
    if shown is not None:
        untaught[torch.from_numpy(shown[shown >= 0]).to(context.device)] = False
    network.bias[untaught] = calibration.bias
    network.residual[~liked & ~_in_histories(context)] = 0.0
    return calibration


@dataclass(frozen=True)
class _Points:
    """q points of the log in order of time, where users came back."""

    users: Tensor
    """[q, d]."""

    days: np.ndarray
    """int64 [q]."""

    pairs: np.ndarray
    """int64 [p, 2]: points, ascending, and catalog rows liked there."""

    seen: np.ndarray
    """int64 [e, 2]: points, ascending, and catalog rows that may not be recommended there."""

    @staticmethod
    def of(context: TrainingContext) -> _Points:
        network = context.network
        items = network.items()
        users, days, pairs, seen = [], [], [], []
        count = 0
        for batch, targets in training_batches(context, _sample(context), validation=None):
            if not len(targets):
                continue
            states = network.states(items, batch.items, batch.kinds)
            users.append(network.users(states[targets.row, targets.position], targets.context))
            days.append(targets.day)
            pairs.append(_pairs(targets.point + count, targets.target))
            if not context.repeats:
                point, item = seen_pairs(batch.items, targets.row, targets.position)
                seen.append(_pairs(point + count, item))
            count += len(targets)

        if not count:
            empty = np.empty((0, 2), np.int64)
            return _Points(items[:0], np.empty(0, np.int64), empty, empty)
        day = np.concatenate(days)
        both = np.concatenate(pairs), np.concatenate([*seen, np.empty((0, 2), np.int64)])
        whole = _Points(torch.cat(users), day, *both)
        return whole.take(np.argsort(day, kind="stable"))

    def __len__(self) -> int:
        return len(self.days)

    def take(self, rows: np.ndarray) -> _Points:
        """Return some points, in the order given."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))

        def chosen(pairs: np.ndarray) -> np.ndarray:
            kept = np.column_stack([place[pairs[:, 0]], pairs[:, 1]])
            kept = kept[kept[:, 0] >= 0]
            return kept[np.argsort(kept[:, 0], kind="stable")]

        at = torch.from_numpy(rows).to(self.users.device)
        return _Points(self.users[at], self.days[rows], chosen(self.pairs), chosen(self.seen))


def _pairs(point: Tensor, item: Tensor) -> np.ndarray:
    return torch.stack([point, item], dim=1).cpu().numpy()


def _sample(context: TrainingContext) -> Sequence[History]:
    """Return at most `MAX_HISTORIES` of the histories, or one shard."""
    found = context.histories
    histories = found.read(0) if isinstance(found, Shards) else found
    return histories[:: -(-max(1, len(histories)) // MAX_HISTORIES)]


def _in_histories(context: TrainingContext) -> Tensor:
    """Return which items are in some history, bool [n]."""
    found = context.histories
    n = len(context.network.bias)
    if isinstance(found, Shards):
        present = found.counts() > 0
    else:
        present = np.zeros(n, np.bool_)
        for history in found:
            present[history.items] = True
    return torch.from_numpy(present).to(context.device)


class _Ridge:
    """Ridge regression of item vectors on text vectors and features, every item weighing the same.

    `share` is what features are multiplied by: the smaller, the more of them is penalized.
    """

    def __init__(self, text: Tensor, vectors: Tensor, t: int | None = None, share: float = 1.0):
        t = text.shape[1] if t is None else t
        self.text = text.double()
        self.vectors = vectors.double()
        self._factor = torch.ones(text.shape[1], dtype=torch.float64, device=text.device)
        self._factor[t:] = share
        self.text *= self._factor
        self._values, self._basis = torch.linalg.eigh(self.text.T @ self.text)
        self._projected = self._basis.T @ (self.text.T @ self.vectors)
        # The unit of the penalty: the mean eigenvalue of texts, with features or without.
        self._unit = (
            self._values.mean() if t == len(self._factor) else _mean_eigenvalue(text[:, :t])
        )

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Return the projection [d, t], and the left-out prediction [r, d] of each item.

        The prediction of an item by a fit without it is (ŷ - h y) / (1 - h), with its leverage h.
        """
        inverse = 1.0 / (self._values + penalty * self._unit)
        project = (self._basis @ (inverse[:, None] * self._projected)).T
        leverage = ((self.text @ self._basis) ** 2 * inverse).sum(dim=1, keepdim=True)
        fitted = self.text @ project.T
        left_out = (fitted - leverage * self.vectors) / (1.0 - leverage)
        return (project * self._factor).float(), left_out.float()


def _mean_eigenvalue(text: Tensor) -> Tensor:
    return text.double().square().sum() / text.shape[1]


def _refit(
    network: PolicyNetwork, liked: Tensor, points: _Points, table: PopularityTable
) -> tuple[Tensor, float | None]:
    """Replace the projection; return the vectors [n, d] with which newcomers compete, and the
    penalty.
    """
    rows = torch.nonzero(liked).flatten()
    features = 0 if network.feature_project is None else network.feature_project.shape[1]
    t = network.text.shape[1]
    # Those left out of the fit need no left-out prediction.
    most = MAX_FITTED * t // (t + features)
    rows = rows[:: -(-max(1, len(rows)) // most)]
    inputs = network.inputs(rows)
    if not len(rows) or not float((inputs - inputs.mean(dim=0)).abs().max()):
        return network.content(), None

    vectors = network.items()
    last = len(points) - MAX_POINTS
    recent = points.take(np.arange(max(0, last), len(points)))
    best = None
    for share in SHARES if features else SHARES[:1]:
        ridge = _Ridge(inputs, vectors[rows], t, share)
        for penalty in PENALTIES:
            project, left_out = ridge.solve(penalty)
            likelihood = _log_likelihood(network, recent, table, rows, left_out)
            if best is None or likelihood > best[0]:
                best = likelihood, penalty, share, project, left_out
    assert best is not None
    _, penalty, share, project, left_out = best

    network.project.copy_(project[:, :t])
    if network.feature_project is not None:
        network.feature_project.copy_(project[:, t:])
    newcomers = network.content()
    network.residual.copy_(vectors - newcomers)
    newcomers[rows] = left_out
    return newcomers, penalty


def _log_likelihood(
    network: PolicyNetwork,
    points: _Points,
    table: PopularityTable,
    rows: Tensor,
    vectors: Tensor,
) -> float:
    """Return the sum of log π of the likes among some catalog rows of these vectors."""
    step = -(-len(rows) // MAX_ITEMS)
    rows = rows[::step]
    vectors = vectors[::step]
    column = np.full(len(network.bias), -1)
    column[rows.cpu().numpy()] = np.arange(len(rows))

    total = 0.0
    for each in _chunks(len(points), len(rows)):
        chunk = points.take(each)
        biases = network.bias[rows] + table.biases(chunk.days, network.popularity_weights, rows)
        log_policy = (chunk.users @ vectors.T + biases).log_softmax(dim=-1)
        point, target = chunk.pairs[:, 0], column[chunk.pairs[:, 1]]
        total += float(log_policy[point[target >= 0], target[target >= 0]].sum())
    return total


@dataclass(frozen=True)
class _Releases:
    """Which items are newcomers for the release that is served at each of q points."""

    day: np.ndarray
    """int64 [q], days since 1970: with which the release's fortnight begins."""

    born: np.ndarray
    """int64 [n], the day on which each item was first liked, or `NEVER`."""

    def stages(self, points: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whether nobody had liked some rows when the points' releases were made, and
        whether they can be recommended, bool each, broadcast.

        What nobody ever liked could always be recommended; what was born after the fortnight not.
        """
        day = self.day[points]
        born = self.born[rows]
        listed = (born < day + RELEASE_DAYS) | (born == NEVER)
        return born >= day, listed

    def take(self, points: np.ndarray) -> _Releases:
        """Return the releases of some points."""
        return _Releases(self.day[points], self.born)


def _releases(points: _Points, born: np.ndarray) -> tuple[_Points, _Releases]:
    """Return the points of the last fortnights that hold enough likes of newcomers."""
    end = int(points.days.max(initial=0)) + 1
    start = int(points.days.min(initial=end))
    first = start + max(1, int(GIVEN * (end - start)))
    age = (end - 1 - points.days) // RELEASE_DAYS
    days = end - RELEASE_DAYS * (age + 1)

    releases = _Releases(days, born)
    new, listed = releases.stages(points.pairs[:, 0], points.pairs[:, 1])
    eligible = days[points.pairs[:, 0]] >= first
    likes = np.bincount(age[points.pairs[new & listed & eligible, 0]], minlength=1)
    enough = np.flatnonzero(likes.cumsum() >= MIN_LIKES)
    oldest = enough[0] if len(enough) else len(likes)

    rows = np.flatnonzero((age <= oldest) & (days >= first))
    rows = rows[:: -(-max(1, len(rows)) // MAX_POINTS)]
    return points.take(rows), _Releases(days[rows], born)


def _calibrate(
    context: TrainingContext,
    points: _Points,
    born: np.ndarray,
    table: PopularityTable,
    vectors: Tensor,
    penalty: float | None,
) -> NewcomerCalibration:
    """Return the bias with which newcomers of these vectors [n, d] get the share of their likes."""
    network = context.network
    recent, releases = _releases(points, born)
    new, listed = releases.stages(recent.pairs[:, 0], recent.pairs[:, 1])
    of_newcomers = int((new & listed).sum())
    likes = int(listed.sum())
    if not of_newcomers:
        return NewcomerCalibration(penalty, float(network.bias.median()), 0, likes, 0.0)

    slate = context.config.slate
    needed = np.concatenate(
        [
            _needed_biases(network, recent.take(rows), releases.take(rows), table, vectors, slate)
            for rows in _chunks(len(recent), len(born))
        ]
    )
    # A newcomer gets a slot where the bias exceeds what it needs: a quantile gives any share.
    order = np.sort(needed.ravel())
    slots = round(of_newcomers / likes * order.size)
    finite = order[np.isfinite(order)]
    certain = int((order == -np.inf).sum())
    place = min(max(0, slots - certain), len(finite) - 1)
    bias = float(finite[place]) if len(finite) else float(network.bias.median())
    return NewcomerCalibration(penalty, bias, of_newcomers, likes, float((order < bias).mean()))


def _needed_biases(
    network: PolicyNetwork,
    points: _Points,
    releases: _Releases,
    table: PopularityTable,
    vectors: Tensor,
    slate: int,
) -> np.ndarray:
    """Return float32 [q, K]: the bias above which newcomers get one slot, two, … of K.

    The j-th best newcomer is among the K best where it exceeds the (K + 1 - j)-th best known item.
    """
    popularity = table.biases(releases.day, network.popularity_weights)
    known = points.users @ network.items().T + network.bias + popularity
    new = points.users @ vectors.T + popularity

    n = len(network.bias)
    is_new, listed = releases.stages(np.arange(len(points))[:, None], np.arange(n)[None])
    known.masked_fill_(torch.from_numpy(is_new).to(known.device), -torch.inf)
    new.masked_fill_(torch.from_numpy(~is_new | ~listed).to(new.device), -torch.inf)
    for scores in (known, new):
        scores[points.seen[:, 0], points.seen[:, 1]] = -torch.inf

    size = min(slate, n)
    best = known.topk(size, dim=1).values
    rivals = new.topk(size, dim=1).values
    # With neither a newcomer nor a known item the difference is NaN: no bias fills such a slot.
    needed = (best.flip(1) - rivals).nan_to_num(torch.inf, torch.inf, -torch.inf)
    return needed.cpu().numpy()


def _chunks(points: int, items: int) -> Iterator[np.ndarray]:
    """Yield the indices of points of which so many can be scored at once."""
    size = max(1, MAX_SCORES // max(1, items))
    return (np.arange(start, min(points, start + size)) for start in range(0, points, size))
