"""Learning on the device: off unless asked for, bounded by the shipped policy, exact in its propensities, private."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.events.schema import Decision
from sanderling.users.personalization import (
    RATE,
    TRUST,
    Residual,
    Residuals,
    divergence,
    learned,
    softmax,
    trusted,
)
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy


def opened(tmp_path, state="state", release=1, **settings):
    """Open an engine on a bundle of this test."""
    folder = tmp_path / f"bundle-{release}"
    if not folder.exists():
        write_bundle(folder, release=release, seed=release)
    return Engine.open(
        folder, tmp_path / state, clock=FakeClock(), entropy=FakeEntropy(), **settings
    )


def twelfth(engine):
    """Return the item of greedy rank 12: in the pool, and not at its top."""
    return engine.recommend("anna", k=20, greedy=True)[12].id


def like(engine, times, wanted):
    """Reward one item and turn all others down, without moving the state."""
    for _ in range(times):
        slate = engine.recommend("anna", k=20)
        values = {item: 1.0 if item.id == wanted else -1.0 for item in slate}
        engine.reward_all(slate, values, observe=False)


def rank_of(engine, wanted, user="anna"):
    """Return the greedy rank of an item."""
    return next(
        item.rank for item in engine.recommend(user, k=50, greedy=True) if item.id == wanted
    )


def test_an_item_that_a_user_likes_rises_for_that_user_alone(tmp_path):
    """Rewards move the user's ranking though the state stands still; others see what they saw."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        other = rank_of(engine, wanted, "ben")
        like(engine, 40, wanted)
        assert rank_of(engine, wanted) < 6
        assert rank_of(engine, wanted, "ben") == other


def test_a_reward_that_is_told_again_teaches_nothing_again(tmp_path):
    """Only the first telling of a reward moves the ranking; another value for the same slot does so again."""
    with opened(tmp_path, adapt=True) as engine:
        slate = engine.recommend("anna", k=5)
        shifts = []
        for value in (1.0, 1.0, 1.0, -1.0):
            engine.reward_all(slate, {slate[0]: value, slate[1]: -value}, observe=False)
            shifts.append(
                profiles_of(engine)
                ._residuals.get(slate.pseudonym, scorer_of(engine).space, 16)
                .shift.tolist()
            )
        assert shifts[0] == shifts[1] == shifts[2] != shifts[3]


def test_without_adapt_rewards_move_nothing_but_the_state(tmp_path):
    """By default nothing is learned on the device, and the wire says nothing of it."""
    with opened(tmp_path) as engine:
        wanted = twelfth(engine)
        like(engine, 10, wanted)
        assert rank_of(engine, wanted) == 12
        assert {event.adapted for event in stored(engine) if isinstance(event, Decision)} == {UNSET}


def test_adapted_decisions_are_explained_and_say_so(tmp_path):
    """A decision replays bit for bit with the residual of its time, also after more was learned."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        like(engine, 5, wanted)
        slate = engine.recommend("anna")
        like(engine, 5, wanted)
        assert engine.explain(slate.decision).same
        assert {event.adapted for event in stored(engine) if isinstance(event, Decision)} == {True}


def test_what_was_learned_survives_a_restart_and_never_leaves(tmp_path):
    """The residual is stored with the reward that made it, and no event carries it."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        like(engine, 40, wanted)
        learned_rank = rank_of(engine, wanted)
        shift = profiles_of(engine).known("anna", 0, scorer_of(engine)).shift
        uploaded = b"".join(pending.line for pending in outbox_of(engine).oldest(10_000, 1 << 30))
        assert shift.any()
        assert shift.tobytes() not in uploaded
        assert b"residual" not in uploaded
    with opened(tmp_path, adapt=True) as engine:
        assert rank_of(engine, wanted) == learned_rank


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.floats(0, 6), st.integers(2, 30))
def test_the_shipped_policy_is_never_far(seed, size, items):
    """However large a residual would be, the pool's policy stays within the trust region; a small one is kept whole."""
    rng = np.random.default_rng(seed)
    pool, shipped = rng.normal(size=(items, 8)), rng.normal(size=items)
    shift = rng.normal(size=8) * size
    kept = trusted(shift, pool, shipped)
    assert divergence(shipped + pool @ kept, shipped) <= TRUST + 1e-9
    if divergence(shipped + pool @ shift, shipped) <= TRUST:
        assert kept is shift
    else:
        assert divergence(shipped + pool @ kept, shipped) >= TRUST * 0.99


def test_a_step_is_the_policy_gradient():
    """The residual moves along the gradient of log π by finite differences, times reward less baseline."""
    rng = np.random.default_rng(0)
    pool, scores = rng.normal(size=(12, 5)), rng.normal(size=12)
    before = Residual("s", np.zeros(5), -0.5)
    moved = learned(before, pool, scores, {4: 1.0}).shift

    def log_policy(shift):
        return np.log(softmax(scores + pool @ shift))[4]

    steps = 1e-6 * np.eye(5)
    gradient = np.array([(log_policy(step) - log_policy(-step)) / 2e-6 for step in steps])
    centred = pool - softmax(scores) @ pool
    np.testing.assert_allclose(
        moved, RATE * 1.5 * gradient / np.mean((centred**2).sum(axis=1)), rtol=1e-5
    )


def test_rewards_that_are_all_alike_teach_nothing():
    """With every reward at the user's mean there is no gradient."""
    pool = np.random.default_rng(0).normal(size=(6, 4))
    after = learned(
        Residual("s", np.zeros(4), None), pool, np.zeros(6), dict.fromkeys(range(6), -1.0)
    )
    assert not after.shift.any()
    assert after.mean == -1.0


def test_a_new_bundle_halves_it_and_another_dimension_ends_it():
    """What was learned against one policy counts half against the next, and nothing where vectors are others."""
    residuals = Residuals(lambda key: None)
    pool = np.random.default_rng(0).normal(size=(6, 4))
    residuals.learn("u", "one", pool, np.zeros(6), {0: -1.0, 1: 1.0})
    first = residuals.get("u", "one", 4).shift
    assert first.any()
    np.testing.assert_array_equal(residuals.get("u", "two", 4).shift, 0.5 * first)
    assert not residuals.get("u", "three", 8).shift.any()


@pytest.mark.parametrize("stored", [None, b"", b"\xc1", b"garbage", b"\x94\x02\xa1s\xc4\x00\xc0"])
def test_damaged_residuals_count_as_none(stored):
    """Bytes that are no residual of this version begin at nothing."""
    found = Residuals(lambda key: stored).get("u", "space", 3)
    assert found.shift.tolist() == [0.0] * 3
    assert found.mean is None
