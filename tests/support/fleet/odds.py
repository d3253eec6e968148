"""Randomized rewards: what such an event may hold, and how often it is flipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import exp, log

from sanderling.events.schema import Outcome

SURPRISE = 20.0


def chance(privacy: float) -> float:
    """Return the flip probability under ε (Warner 1965)."""
    return 1 / (1 + exp(privacy))


def noise_faults(event: Outcome, flip_probability: float) -> Iterator[str]:
    """Yield faults of randomized rewards: one bit, its probability, no state update."""
    told = {1.0: "click", -1.0: "skip"}.get(event.value)
    if event.kind != told or event.updates_state or event.late:
        yield f"more than a bit: {event}"
    if not flip_probability or abs((event.flip_probability or 0.0) - flip_probability) > 1e-12:
        yield f"turned with another chance: {event.flip_probability}, expected {flip_probability}"


def odds_faults(told: Counter[tuple[float, bool]]) -> Iterator[str]:
    """Yield flip counts whose probability is below e⁻²⁰ (Chernoff bound)."""
    for privacy in {privacy for privacy, _ in told}:
        turned, count = told[privacy, True], told[privacy, True] + told[privacy, False]
        if count * _divergence(turned / count, chance(privacy)) > SURPRISE:
            yield f"privacy {privacy}: {turned} of {count} rewards are turned, expected {chance(privacy):.3f} of them"


def _divergence(found: float, expected: float) -> float:
    """Return the Kullback-Leibler divergence of two Bernoulli distributions."""
    pairs = [(found, expected), (1 - found, 1 - expected)]
    return sum(one * log(one / other) for one, other in pairs if one > 0)
