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
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import Entropy, uuid7
from sanderling.slate import Slate
from sanderling.users.personalization import Floats
from sanderling.users.profiles import UserProfiles, UserSnapshot

log = logging.getLogger("sanderling")


@dataclass
class EncoderCounters:
    """What became of the contexts that were passed to `recommend`, since the engine was opened."""

    encoded: int = 0
    """Contexts that slates were decided with."""

    failed: int = 0
    """Contexts that could not be encoded: the slates were decided without them."""

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

        context = self._encode_context(scorer, request.context)
        vector, residual = _vector(scorer, user, context)
        decision = uuid7(now_ms, self._entropy)
        record = decisions.decide(
            scorer, vector, plan, request, decision, user.state.pseudonym, residual
        )
        if arm is not None:
            record = record._replace(arm=arm, slate=replace(record.slate, arm=arm.name))
        if record.slate.items:
            profiles.record_decision(record, user.state, context, now_ms)
        return record.slate

    def counters(self) -> EncoderCounters:
        """Return what became of contexts."""
        with self._lock:
            return replace(self._counters)

    def _encode_context(self, scorer: Scorer, context: str | None) -> Vector | None:
        if not context:
            return None
        try:
            vector = scorer.encoder.encode(context)
        except Exception as error:  # whatever it is, a slate without context is better than none
            log.warning("context ignored: %s", error)
            with self._lock:
                self._counters.failed += 1
                self._counters.last_fault = str(error) or type(error).__name__
            return None
        with self._lock:
            self._counters.encoded += 1
        return vector


def _is_spent(plan: Exploration, user: UserSnapshot) -> bool:
    """Return whether the user's daily budget forbids to explore."""
    return plan.daily is not None and user.explored >= plan.daily


def _vector(
    scorer: Scorer, user: UserSnapshot, context: Vector | None
) -> tuple[Vector, Floats | None]:
    """Return the user vector float32 [d], and what of it was learned on this device.

    Without personalization it is 0: scores are biases.
    """
    if user.arm is not None and not user.arm.personalized:
        return np.zeros(scorer.bundle.manifest.sizes.dim, np.float32), None
    vector = scorer.user_model.user_vector(user.state.vector, context)
    if user.residual is not None:
        vector = vector + user.residual.astype("float32")
    return vector, user.residual
