"""One recommendation: a user's snapshot and a context become a slate, which is recorded."""

from __future__ import annotations

import logging

from sanderling.bundle.manifest import Exploration
from sanderling.ranking import decision as decisions
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.scorer import Scorer, Vector
from sanderling.runtime.clock import Entropy, uuid7
from sanderling.slate import Slate
from sanderling.users.profiles import UserProfiles, UserSnapshot

log = logging.getLogger("sanderling")


def recommend(
    profiles: UserProfiles,
    scorer: Scorer,
    request: RecommendRequest,
    greedy: bool,
    now_ms: int,
    entropy: Entropy,
) -> Slate:
    """Return the slate of a request; `greedy` switches exploration off."""
    user = profiles.snapshot(request.user, now_ms, scorer)
    plan = _plan(scorer, user, greedy)

    context = _encode_context(scorer, request.context)
    vector = scorer.user_model.user_vector(user.state.vector, context)
    if user.residual is not None:
        vector = vector + user.residual.astype("float32")

    decision = uuid7(now_ms, entropy)
    record = decisions.decide(
        scorer, vector, plan, request, decision, user.state.pseudonym, user.residual
    )
    if record.slate.items:
        profiles.record_decision(record, user.state, context, now_ms)
    return record.slate


def _plan(scorer: Scorer, user: UserSnapshot, greedy: bool) -> Exploration:
    """Return how to explore: as the bundle says, unless the caller or the user's daily budget
    forbids it."""
    plan = scorer.bundle.manifest.exploration
    is_spent = plan.daily is not None and user.explored >= plan.daily
    return scorer.greedy if greedy or is_spent else plan


def _encode_context(scorer: Scorer, context: str | None) -> Vector | None:
    if not context:
        return None
    try:
        return scorer.encoder.encode(context)
    except Exception as error:  # whatever it is, a slate without context is better than none
        log.warning("context ignored: %s", error)
        return None
