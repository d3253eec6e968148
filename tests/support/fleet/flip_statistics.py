"""Checks of randomized response: what a reward's event may hold, and how often it is flipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import exp, log

from sanderling.events.schema import Outcome

MAX_NATS = 20.0  # a count less probable than exp(-MAX_NATS) is a fault


def flip_probability(privacy: float) -> float:
    """Return the flip probability under ε (Warner 1965)."""
    return 1 / (1 + exp(privacy))


def reward_faults(event: Outcome, expected: float) -> Iterator[str]:
    """Yield faults of a randomized reward: it holds one bit and its flip probability, no more."""
    kind = {1.0: "click", -1.0: "skip"}.get(event.value)
    if event.kind != kind or event.updates_state or event.late:
        yield f"a randomized reward with more than one bit: {event}"
    if not expected or abs((event.flip_probability or 0.0) - expected) > 1e-12:
        yield f"expected flip probability {expected}, found {event.flip_probability}"


def flip_count_faults(flip_counts: Counter[tuple[float, bool]]) -> Iterator[str]:
    """Yield flip counts that are too improbable (Chernoff bound).

    `flip_counts` are numbers of rewards by ε and by whether they were flipped.
    """
    for privacy in {privacy for privacy, _ in flip_counts}:
        flipped = flip_counts[privacy, True]
        count = flipped + flip_counts[privacy, False]
        expected = flip_probability(privacy)
        if count * _divergence(flipped / count, expected) > MAX_NATS:
            yield (
                f"privacy {privacy}: expected a share {expected:.3f} of flipped rewards,"
                f" found {flipped} of {count}"
            )


def _divergence(p: float, q: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats."""
    return sum(a * log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)
