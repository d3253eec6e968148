"""The off-policy estimators as Python loops, and slates enumerated one by one.

The reference for the trainer's estimators: each is its definition, with no code shared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any


def slates(slots: int, pool: int) -> Iterator[tuple[int, ...]]:
    """Yield every ordered slate of distinct ranks."""
    return itertools.permutations(range(pool), slots)


def joint(slate: tuple[int, ...], pool: int, epsilon: float) -> float:
    """Return the probability of a slate under scheme `sequential`, straight from its definition."""
    chance, left = 1.0, list(range(pool))
    for rank in slate:
        chance *= (1.0 - epsilon) * (rank == min(left)) + epsilon / len(left)
        left.remove(rank)
    return chance


def naive_estimates(log: Any, target: Any, predicted: Any, cap: float) -> dict[str, float]:
    """Return every estimate of one log, by loops over decisions and slots as in the papers."""
    slots = len(log.reward[0])
    families = ("SIPS", "RIPS", "IIPS", "inclusion")
    linear = dict.fromkeys(
        ("observed", "DM", "DR", "DR-inclusion", "Switch-DR", "DRos", "Cascade-DR"), 0.0
    )
    linear |= {name: 0.0 for family in families for name in (family, f"clipped {family}")}
    tops = {family: [0.0] * slots for family in families}
    bottoms = {family: [0.0] * slots for family in families}
    shown_in = [0.0] * slots
    for i in range(len(log.reward)):
        count = 1.0 / float(log.pass_probability[i])
        ratios = [
            float(target.conditional[i, k]) / float(log.logged.conditional[i, k])
            for k in range(slots)
        ]
        whole, prefix = 1.0, 1.0
        for ratio in ratios:
            whole *= ratio
        for k in range(slots):
            before, prefix = prefix, prefix * ratios[k]
            if not log.judged[i, k]:
                continue
            r, q, e = (
                float(log.reward[i, k]),
                float(predicted.shown[i, k]),
                float(predicted.expected[i, k]),
            )
            own = float(predicted.slot[i, k])
            weight = {
                "SIPS": whole,
                "RIPS": prefix,
                "IIPS": float(target.marginal[i, k]) / float(log.logged.marginal[i, k]),
                "inclusion": float(target.inclusion[i, k]) / float(log.logged.inclusion[i, k]),
            }
            shown_in[k] += count
            linear["observed"] += count * r
            for family, w in weight.items():
                linear[family] += count * w * r
                linear[f"clipped {family}"] += count * min(w, cap) * r
                tops[family][k] += count * w * r
                bottoms[family][k] += count * w
            w, anywhere = weight["IIPS"], weight["inclusion"]
            linear["DM"] += count * e
            linear["DR"] += count * (e + w * (r - q))
            linear["DR-inclusion"] += count * (e - own + anywhere * (r - (q - own)))
            linear["Switch-DR"] += count * (e + (w * (r - q) if w <= cap else 0.0))
            linear["DRos"] += count * (e + cap**2 / (w**2 + cap**2) * w * (r - q))
            linear["Cascade-DR"] += count * (
                prefix * (r - q) + before * float(predicted.expected_given_above[i, k])
            )
    result = {name: total / sum(shown_in) for name, total in linear.items()}
    for family in ("SIPS", "RIPS", "IIPS"):
        result[f"SN-{family}"] = _by_slot(tops[family], bottoms[family], shown_in)
    bottom = sum(bottoms["inclusion"])
    result["SN-inclusion"] = sum(tops["inclusion"]) / bottom if bottom else 0.0
    return result


def _by_slot(tops: list[float], bottoms: list[float], shown: list[float]) -> float:
    """Return the mean of top / bottom over slots, weighted by how many of each were shown."""
    ratios = [top / bottom if bottom else 0.0 for top, bottom in zip(tops, bottoms, strict=True)]
    return sum(n * ratio for n, ratio in zip(shown, ratios, strict=True)) / sum(shown)
