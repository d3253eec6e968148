"""One recommendation: a user's snapshot and a context become a slate, which is recorded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes
from sanderling.exploration.arms import plan_of
from sanderling.ranking import decision as decisions
from sanderling.ranking.contexts import Context, context_vector
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import Entropy, uuid7
from sanderling.slate import Slate
from sanderling.users.profiles import UserProfiles, UserSnapshot

log = logging.getLogger("sanderling")


@dataclass
class EncoderCounters:
    """What became of the contexts of `recommend` and the queries of `search`, since the engine was
    opened."""

    encoded: int = 0
    """Those that were encoded."""

    failed: int = 0
    """Those that could not be: slates were decided without a context, and only words searched."""

    last_fault: str | None = None
    """Why the last of these could not be encoded."""


class Recommender:
    """Makes the slates of one engine, and counts what its encoder does. Thread-safe."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._counters = EncoderCounters()
        self._lock = Lock()

    def recommend(
        self,
        profiles: UserProfiles,
        scorer: Scorer,
        request: RecommendRequest,
        greedy: bool,
        now_ms: int,
    ) -> Slate:
        """Return the slate of a request; `greedy` switches exploration off."""
        user = profiles.snapshot(request.user, now_ms, scorer)
        arm = user.arm
        plan = plan_of(scorer.bundle.manifest, arm)
        if greedy or _is_spent(plan, user):
            plan = schemes.greedy(plan)

        context = self._context(scorer, request.context) if request.context else None
        vector = user_vector(scorer, user, context)
        decision = uuid7(now_ms, self._entropy)
        record = decisions.decide(
            scorer, vector, plan, request, decision, user.state.pseudonym, user.residual
        )
        if arm is not None:
            record = record._replace(arm=arm, slate=replace(record.slate, arm=arm.name))
        if record.slate.items:
            profiles.record_decision(record, user.state, context, now_ms)
        return record.slate

    def counters(self) -> EncoderCounters:
        """Return what became of contexts and queries."""
        with self._lock:
            return replace(self._counters)

    def _context(self, scorer: Scorer, context: Context) -> Vector | None:
        """Return the vector of a context, None where it says nothing or cannot be encoded."""
        return context_vector(
            context,
            scorer.context_features,
            lambda text: self.encode(scorer, text),
            scorer.bundle.manifest.sizes.text,
        )

    def encode(self, scorer: Scorer, text: str) -> Vector | None:
        """Return the vector [t] of a context or a query, None where it cannot be encoded."""
        try:
            vector = scorer.encoder.encode(text)
        except Exception as error:  # whatever it is, a slate without context is better than none
            fault = str(error) or type(error).__name__
            with self._lock:
                is_known = self._counters.last_fault == fault
                self._counters.failed += 1
                self._counters.last_fault = fault
            # Search asks at each key: what is missing from an app is missing every time.
            log.log(logging.DEBUG if is_known else logging.WARNING, "text not encoded: %s", fault)
            return None
        with self._lock:
            self._counters.encoded += 1
        return vector


def _is_spent(plan: Exploration, user: UserSnapshot) -> bool:
    """Return whether the user's daily budget forbids to explore."""
    return plan.daily is not None and user.explored >= plan.daily


def user_vector(scorer: Scorer, user: UserSnapshot, context: Vector | None) -> Vector:
    """Return the vector [d] of a user for a context [t], what the device has learned included.

    Without personalization it is 0: scores are biases.
    """
    if user.arm is not None and not user.arm.personalized:
        return np.zeros(scorer.bundle.manifest.sizes.dim, np.float32)
    state = user.state
    if context is None:
        vector = state.user_vector(scorer.user_model)
    else:
        vector = scorer.user_model.user_vector(state.vector, context)
    return vector if user.residual is None else vector + user.residual.astype("float32")
