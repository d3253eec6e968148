"""Personalization on the device: off by default, bounded by the released policy, and private."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.events import codec
from sanderling.events.schema import Decision
from sanderling.users.personalization import (
    RATE,
    TRUST_NATS,
    Residual,
    Residuals,
    divergence,
    softmax,
    updated,
    within_trust,
)
from tests.support.bundles import write_bundle
from tests.support.engines import profiles_of, scorer_of, stored
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
    """Reward one item and give -1 to all others, without updating the state."""
    for _ in range(times):
        slate = engine.recommend("anna", k=20)
        values = {item: 1.0 if item.id == wanted else -1.0 for item in slate}
        engine.reward_all(slate, values, observe=False)


def residual_of(engine, user="anna"):
    """Return δ of a user."""
    return profiles_of(engine).snapshot(user, 0, scorer_of(engine)).residual


def rank_of(engine, wanted, user="anna"):
    """Return the greedy rank of an item."""
    return next(
        item.rank for item in engine.recommend(user, k=50, greedy=True) if item.id == wanted
    )


def test_a_liked_item_rises_for_that_user_only(tmp_path):
    """Rewards change the user's ranking though the state is unchanged; other users' stay the
    same."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        other = rank_of(engine, wanted, "ben")
        like(engine, 40, wanted)
        assert rank_of(engine, wanted) < 6
        assert rank_of(engine, wanted, "ben") == other


def test_a_repeated_reward_is_ignored(tmp_path):
    """Only the first of equal rewards for a slot changes the residual; another value does again."""
    with opened(tmp_path, adapt=True) as engine:
        slate = engine.recommend("anna", k=5)
        residuals = []
        for value in (1.0, 1.0, 1.0, -1.0):
            engine.reward_all(slate, {slate[0]: value, slate[1]: -value}, observe=False)
            residuals.append(residual_of(engine).tolist())
        assert residuals[0] == residuals[1] == residuals[2] != residuals[3]


def test_without_adapt_rewards_change_no_ranking(tmp_path):
    """By default there is no residual, and decisions have no `adapted` field."""
    with opened(tmp_path) as engine:
        wanted = twelfth(engine)
        like(engine, 10, wanted)
        assert rank_of(engine, wanted) == 12
        assert {event.adapted for event in stored(engine) if isinstance(event, Decision)} == {UNSET}


def test_adapted_decisions_are_marked_and_replayed(tmp_path):
    """A decision is replayed bit for bit with its own residual, also after more was learned."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        like(engine, 5, wanted)
        slate = engine.recommend("anna")
        like(engine, 5, wanted)
        assert engine.explain(slate.decision).is_identical
        assert {event.adapted for event in stored(engine) if isinstance(event, Decision)} == {True}


def test_the_residual_survives_a_restart_and_never_leaves_the_device(tmp_path):
    """The residual is stored with the reward that made it, and no event carries it."""
    with opened(tmp_path, adapt=True) as engine:
        wanted = twelfth(engine)
        like(engine, 40, wanted)
        learned_rank = rank_of(engine, wanted)
        residual = residual_of(engine)
        uploaded = b"".join(map(codec.encode, stored(engine)))
        assert residual.any()
        assert residual.tobytes() not in uploaded
        assert b"residual" not in uploaded
    with opened(tmp_path, adapt=True) as engine:
        assert rank_of(engine, wanted) == learned_rank


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.floats(0, 6), st.integers(2, 30))
def test_the_adapted_policy_stays_in_the_trust_region(seed, size, items):
    """A large residual is shortened to the edge of the trust region; a small one is unchanged."""
    rng = np.random.default_rng(seed)
    pool, released = rng.normal(size=(items, 8)), rng.normal(size=items)
    delta = rng.normal(size=8) * size
    kept = within_trust(delta, pool, released)
    assert divergence(released + pool @ kept, released) <= TRUST_NATS + 1e-9
    if divergence(released + pool @ delta, released) <= TRUST_NATS:
        assert kept is delta
    else:
        assert divergence(released + pool @ kept, released) >= TRUST_NATS * 0.99


def test_a_step_is_the_policy_gradient():
    """One update equals the finite-difference gradient of log π times reward minus baseline."""
    rng = np.random.default_rng(0)
    pool, scores = rng.normal(size=(12, 5)), rng.normal(size=12)
    before = Residual("s", np.zeros(5), -0.5)
    after = updated(before, pool, scores, {4: 1.0}).delta

    def log_policy(delta):
        return np.log(softmax(scores + pool @ delta))[4]

    steps = 1e-6 * np.eye(5)
    gradient = np.array([(log_policy(step) - log_policy(-step)) / 2e-6 for step in steps])
    centred = pool - softmax(scores) @ pool
    np.testing.assert_allclose(
        after, RATE * 1.5 * gradient / np.mean((centred**2).sum(axis=1)), rtol=1e-5
    )


def test_equal_rewards_give_no_gradient():
    """With every reward at the user's mean there is no gradient."""
    pool = np.random.default_rng(0).normal(size=(6, 4))
    after = updated(
        Residual("s", np.zeros(4), None), pool, np.zeros(6), dict.fromkeys(range(6), -1.0)
    )
    assert not after.delta.any()
    assert after.baseline == -1.0


def test_a_new_bundle_halves_the_residual_and_another_dimension_resets_it():
    """A residual is halved in the space of a new bundle, and zero in one of another dimension."""
    residuals = Residuals(lambda key: None)
    pool = np.random.default_rng(0).normal(size=(6, 4))
    residuals.learn("u", "one", pool, np.zeros(6), {0: -1.0, 1: 1.0})
    first = residuals.get("u", "one", 4).delta
    assert first.any()
    np.testing.assert_array_equal(residuals.get("u", "two", 4).delta, 0.5 * first)
    assert not residuals.get("u", "three", 8).delta.any()


@pytest.mark.parametrize("stored", [None, b"", b"\xc1", b"garbage", b"\x94\x02\xa1s\xc4\x00\xc0"])
def test_damaged_residuals_count_as_none(stored):
    """Bytes that are no residual of this version give an empty one."""
    residual = Residuals(lambda key: stored).get("u", "space", 3)
    assert residual.delta.tolist() == [0.0] * 3
    assert residual.baseline is None
