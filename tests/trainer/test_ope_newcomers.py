"""Off-policy evaluation of decisions with a quota for newcomers: by their other slots."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import newcomers, schemes
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.newcomer_slots import regular_slots
from sanderling_trainer.evaluation.ope.report import ActivePolicy, usable_decisions
from sanderling_trainer.policy.model.config import Config

pytestmark = pytest.mark.lab

SLOTS, POOL = 4, 6


def logged(plan: Exploration, count: int, m: int) -> Decisions:
    """Return decisions drawn by a plan from a pool and so many newcomers, all slots judged."""
    rng = np.random.default_rng(0)
    blocks = schemes.n_uniforms(plan, SLOTS, POOL, count)
    slates = [
        schemes.draw(plan, SLOTS, np.zeros(POOL), rng.random((blocks, 2)).tolist(), count)
        for _ in range(m)
    ]
    ranks = np.array([slate.ranks for slate in slates])
    return Decisions(
        history=np.arange(m),
        position=np.zeros(m, np.int64),
        items=ranks,
        marginal=np.array([slate.marginal for slate in slates]),
        conditional=np.array([slate.conditional for slate in slates]),
        reward=rng.choice([-1.0, 1.0], ranks.shape).astype(np.float32),
        judged=np.ones(ranks.shape, np.bool_),
        context=np.full(m, -1),
        ranks=ranks,
        group=np.arange(m),
        release=np.ones(m, np.int64),
        pool=np.full(m, POOL),
        eligible=np.full(m, POOL + count),
        epsilon=np.full(m, newcomers.regular(plan).epsilon),
        guarded=np.full(m, plan.guarded),
        newcomers=np.full(m, count),
        newcomer_rate=np.full(m, newcomers.rate(plan)),
        newcomer=ranks >= POOL,
    )


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("guarded", [0, 1])
def test_the_other_slots_are_a_plain_slate_of_the_scheme(count, guarded):
    """Without the newcomers' slots the conditionals are those of shorter slates with the logged
    ε, whichever slots newcomers took and whether they were used up."""
    plan = Exploration(epsilon=0.6, guarded=guarded, newcomers=0.7)
    decisions = logged(plan, count, 300)
    found = regular_slots(decisions)
    assert found.slots.tolist() == (SLOTS - decisions.newcomer.sum(axis=1)).tolist()
    assert len(set(found.slots)) > 1
    rebuilt = ope.sequential_propensities(found.ranks, SLOTS, POOL, found.epsilons())
    for row, slots in enumerate(found.slots):
        shown = decisions.items[row][~decisions.newcomer[row]]
        assert found.items[row].tolist() == [*shown, *[-1] * (SLOTS - slots)]
        np.testing.assert_allclose(found.conditional[row, :slots], rebuilt.conditional[row, :slots])
        assert not found.judged[row, slots:].any()


def test_decisions_without_a_quota_stay_as_they_are():
    """A log without newcomers is returned as it is."""
    decisions = logged(Exploration(epsilon=0.5), 0, 10)
    assert regular_slots(decisions) is decisions


def test_decisions_with_a_quota_are_judged_by_their_other_slots():
    """They are usable under the release's ε, with the propensities of the regular slots."""
    plan = Exploration(epsilon=0.4, newcomers=0.25)
    decisions = logged(plan, 5, 400)
    found, log, left_out = usable_decisions(decisions, ActivePolicy(1, POOL, 0.4))
    shortened = int(decisions.newcomer.any(axis=1).sum())
    assert left_out == {"a short slate, or an item that the lab does not know": shortened}
    rebuilt = ope.sequential_propensities(found.ranks, SLOTS, POOL, found.epsilons())
    np.testing.assert_allclose(log.logged.conditional, rebuilt.conditional)
    np.testing.assert_allclose(log.logged.marginal, rebuilt.marginal)

    other = usable_decisions(decisions, ActivePolicy(1, POOL, 0.5))[2]
    assert other == {"a pool or an ε that the release does not have": 400}


def test_a_candidate_explores_as_the_decision_did():
    """Where newcomers could be shown the candidate's other slots have the ε of such slots."""
    config = Config(epsilon=0.1, newcomers=0.3, guarded=1)
    epsilons = config.epsilons(3, np.array([False, True]))
    np.testing.assert_allclose(epsilons, [[0.0, 0.1, 0.1], [0.0, 0.07 / 0.97, 0.07 / 0.97]])
