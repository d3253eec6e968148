"""What the bounds cost fleets in which everybody is honest."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from sanderling_trainer.data import influence
from sanderling_trainer.data.popularity import DAY, PopularityHistory

INSTALLS, ITEMS, DAYS, TOP = 2000, 1000, 28, 100
LIKES = 6.0  # of the median install
SPREADS = {"equal": 0.0, "log-normal, σ = 1": 1.0, "log-normal, σ = 1.5": 1.5}
KIOSK_SHARE, KIOSK_USERS = 0.02, 50


def harm() -> list[dict[str, Any]]:
    """Return for fleets and quantiles: the correlation of popularity with and without the bound,
    and the nDCG of the hundred most popular items over the likes of the week that follows.
    """
    rows = []
    for name, spread in SPREADS.items():
        for kiosks in (False, True):
            likes = _likes(np.random.default_rng(0), spread, kiosks)
            for quantile in (0.5, 0.75, 0.9, 0.95):
                fleet = f"{name}{', 2 % kiosks of 50 users' if kiosks else ''}"
                rows.append({"fleet": fleet, "quantile": quantile, **_compare(*likes, quantile)})
    return rows


def _likes(rng: np.random.Generator, spread: float, kiosks: bool) -> tuple[np.ndarray, ...]:
    """Return install, user, item and day of the likes; kiosks like things of their own more."""
    users = np.ones(INSTALLS, np.int64)
    if kiosks:
        users[: round(KIOSK_SHARE * INSTALLS)] = KIOSK_USERS
    install_of = np.repeat(np.arange(INSTALLS), users)
    counts = rng.poisson(LIKES * rng.lognormal(0.0, spread, len(install_of)))
    user = np.repeat(np.arange(len(install_of)), counts)
    day = rng.integers(0, DAYS + 7, len(user))

    # Item popularity is Zipf and drifts; an install's place favours some items.
    base = -np.log(np.arange(1, ITEMS + 1)) + 0.3 * rng.normal(size=ITEMS)
    later = base + 0.5 * rng.normal(size=ITEMS)
    place = 0.5 * rng.normal(size=(50, ITEMS))
    item = np.empty(len(user), np.int64)
    for week in range(DAYS // 7 + 1):
        drift = base + (later - base) * week / (DAYS // 7)
        for group in range(len(place)):
            rows = (day // 7 == week) & (install_of[user] % len(place) == group)
            weights = np.exp(drift + place[group])
            item[rows] = rng.choice(ITEMS, int(rows.sum()), p=weights / weights.sum())
    return install_of[user], user, item, day


def _compare(
    install: np.ndarray, user: np.ndarray, item: np.ndarray, day: np.ndarray, quantile: float
) -> dict[str, float]:
    before = day < DAYS
    columns = (user[before], item[before], day[before] * DAY, ITEMS)
    plain = PopularityHistory.of(*columns)
    with mock.patch.object(influence, "TYPICAL", quantile):
        bounded = PopularityHistory.of(*columns, install[before])

    relevance = np.bincount(item[~before], minlength=ITEMS).astype(float)
    week = [history.features([DAYS])[0][:, 1] for history in (plain, bounded)]
    return {
        "counted": float(bounded.users.sum() / plain.users.sum()),
        "correlation": float(np.corrcoef(*week)[0, 1]),
        "ndcg_without": _ndcg(week[0], relevance),
        "ndcg_with": _ndcg(week[1], relevance),
    }


def _ndcg(scores: np.ndarray, relevance: np.ndarray) -> float:
    discount = 1.0 / np.log2(np.arange(2, TOP + 2))
    best = np.sort(relevance)[::-1][:TOP] @ discount
    return float(relevance[np.argsort(-scores, kind="stable")[:TOP]] @ discount / best)
