"""Worlds with a known truth: closed forms, exact propensities, repetition by seed, and the Gymnasium interface."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.exploration import sequential
from sanderling_trainer.evaluation.simulators.ab_tests import ABTests
from sanderling_trainer.evaluation.simulators.checkerboard import Checkerboard
from sanderling_trainer.evaluation.simulators.click_models import Cascade, PositionBias, examine_all
from sanderling_trainer.evaluation.simulators.fitted import FittedEnvironment, fit_simulator
from sanderling_trainer.evaluation.simulators.logging import simulated_decisions, draw_slates
from sanderling_trainer.evaluation.simulators.rating_matrix import RatingMatrix
from sanderling_trainer.evaluation.simulators.environment import Session, slate_value, uniform_value

pytestmark = pytest.mark.lab
attractions = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)


def simulated(clicks=None, **more) -> FittedEnvironment:
    rng = np.random.default_rng(3)
    user, item = rng.integers(0, 60, 900), (rng.beta(1, 3, 900) * 40).astype(int)
    texts = [f"thing {at}" for at in range(40)]
    return fit_simulator(
        user, item, texts, clicks or examine_all(3), rng, **{"factors": 5, "rate": 0.2, **more}
    )


def matrix() -> RatingMatrix:
    return RatingMatrix(
        np.random.default_rng(0).normal(0.5, 3.0, (50, 12)), [str(at) for at in range(12)], steps=4
    )


def randomised(visitors: int = 4000) -> ABTests:
    rng = np.random.default_rng(1)
    test = np.repeat(np.arange(30), rng.integers(2, 6, 30))
    shown = np.concatenate([rng.multinomial(visitors, np.ones(k) / k) for k in np.bincount(test)])
    clicked = rng.binomial(shown, rng.uniform(0.01, 0.3, len(test)))
    return ABTests([f"arm {at}" for at in range(len(test))], test, shown, clicked)


WORLDS = {
    "checkerboard": Checkerboard(40, 20, 4),
    "matrix": matrix(),
    "tests": randomised(),
    "position": simulated(PositionBias((1.0, 0.5, 0.3))),
    "cascade": simulated(Cascade((0.0, 0.2, 1.0))),
}


@given(attractions, attractions)
def test_position_bias_is_a_product_and_the_cascade_a_walk_over_all_outcomes(attraction, onward):
    """The closed forms equal the sum over every outcome of the user's reading, slot by slot."""
    found = np.array(attraction)
    np.testing.assert_allclose(
        PositionBias((1.0, 0.5, 0.2)).probabilities(found),
        [found[0], 0.5 * found[1], 0.2 * found[2]],
    )
    chances = np.zeros(3)
    for attracted, goes in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        chance, reading = 1.0, True
        for slot in range(3):
            chance *= attraction[slot] if attracted[slot] else 1 - attraction[slot]
            chance *= onward[slot] if goes[slot] else 1 - onward[slot]
        for slot in range(3):
            chances[slot] += chance * (reading and attracted[slot])
            reading = reading and (not attracted[slot] or bool(goes[slot]))
    np.testing.assert_allclose(Cascade(tuple(onward)).probabilities(found), chances, atol=1e-12)


@pytest.mark.parametrize(
    "model", [PositionBias((1.0, 0.6, 0.3)), Cascade((0.0, 0.5, 1.0))], ids=["position", "cascade"]
)
def test_clicks_are_drawn_with_the_probabilities_of_the_closed_form(model):
    """Drawn clicks have the exact rates within 4 standard errors, and nothing unseen is clicked."""
    attraction = np.broadcast_to([0.5, 0.2, 0.8], (40_000, 3))
    clicks, seen = model.draw(attraction, np.random.default_rng(0))
    exact = model.probabilities(attraction[0])
    assert not (clicks & ~seen).any()
    assert (np.abs(clicks.mean(0) - exact) < 4 * np.sqrt(exact * (1 - exact) / 40_000)).all()


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_value_of_the_uniform_policy_is_the_mean_attraction(world):
    """Showing one item at random earns the mean of what is eligible, computed by a loop."""
    users = np.arange(min(8, world.users))
    slow = []
    for user in users:
        attraction, eligible = (
            world.attraction(np.array([user]), 0)[0],
            world.eligible(np.array([user]), 0)[0],
        )
        slow.append(sum(a for a, e in zip(attraction, eligible, strict=True) if e) / sum(eligible))
    np.testing.assert_allclose(uniform_value(world, users), slow)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_inverse_propensities_are_unbiased(world):
    """IPS by the logged propensities meets the target policy's exact value within 3 standard errors."""
    rng = np.random.default_rng(5)
    users = rng.integers(0, world.users, 6000)
    slots, eligible = world.click_model.slots, world.eligible(users, 0)
    scores = np.tile(rng.standard_normal(eligible.shape[1]), (len(users), 1))
    logged = draw_slates(scores, eligible, slots, 6, 0.9, rng)
    feedback = Session(world, users, rng).step(logged.items)
    truth = slate_value(world, users, draw_slates(scores, eligible, slots, 6, 0.4, rng).items)
    sizes = np.minimum(6, eligible.sum(axis=1))
    target = np.array(
        [joint(row, size, 0.4) for row, size in zip(logged.ranks, sizes, strict=True)]
    )
    weighted = target / logged.conditional.prod(axis=1) * feedback.clicks.sum(axis=1)
    error = np.sqrt((weighted.var() + truth.var()) / len(users))
    assert abs(weighted.mean() - truth.mean()) < 3 * error


def joint(ranks: np.ndarray, size: int, epsilon: float) -> float:
    """Return the probability of a slate of ranks under scheme `sequential`."""
    left, chance = list(range(size)), 1.0
    for rank in ranks:
        chance *= epsilon / len(left) + (1 - epsilon) * (left[0] == rank)
        left.remove(rank)
    return chance


def test_draws_follow_the_probabilities_that_they_log():
    """Marginal propensities are those of the engine, and the frequencies of drawn ranks agree with them."""
    rng = np.random.default_rng(2)
    scores = np.tile(np.arange(8.0)[::-1], (20_000, 1))
    drawn = draw_slates(scores, np.ones_like(scores, dtype=bool), 3, 5, 0.5, rng)
    table = sequential.marginals(3, 5, 0.5)
    for slot in range(3):
        seen = np.bincount(drawn.items[:, slot], minlength=5) / len(scores)
        np.testing.assert_allclose(seen, table[slot], atol=0.02)
        np.testing.assert_allclose(drawn.marginal[:, slot], table[slot, drawn.ranks[:, slot]])


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_one_seed_gives_one_session(world):
    """Two sessions of one seed answer alike, and one of another seed does not."""

    def answers(seed: int) -> list[list[bool]]:
        rng = np.random.default_rng(seed)
        session, found = Session(world, np.arange(25), rng), []
        while not session.done:
            slates = draw_slates(
                np.ones(session.eligible.shape),
                session.eligible,
                world.click_model.slots,
                6,
                1.0,
                rng,
            )
            found += session.step(slates.items).clicks.tolist()
        return found

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_a_session_refuses_what_the_device_would_not_show():
    """Repeated, unknown and misshapen slates, and one slate too many, raise with what was expected; -1 is empty."""
    session = Session(
        Checkerboard(4, 6, steps=2, clicks=examine_all(2)), np.arange(2), np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match="expected an eligible item, found 3 at user 1, slot 1"):
        session.step(np.array([[0, 1], [3, 3]]))
    session = Session(
        Checkerboard(4, 6, steps=2, clicks=examine_all(2)), np.arange(2), np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match="shape"):
        session.step(np.zeros((2, 1), np.int64))
    assert session.step(np.array([[0, 1], [-1, 3]])).clicks.tolist() == [
        [True, False],
        [False, True],
    ]
    session.step(np.array([[-1, -1], [0, 1]]))
    with pytest.raises(ValueError, match="one more"):
        session.step(np.array([[2, 3], [4, 5]]))


def test_the_best_policy_of_the_checkerboard_is_always_clicked():
    """Showing each user items of his own colour earns a click a slot; the uniform policy every other."""
    world = Checkerboard(10, 8, 2)
    users = np.arange(10)
    assert slate_value(world, users, (users % 2)[:, None]).tolist() == [1.0] * 10
    assert uniform_value(world, users).tolist() == [0.5] * 10


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_inverse_propensity_value_of_randomised_tests_agrees_with_the_direct_one(seed):
    """Averaged over 30 tests, IPS with 1/K meets the value by the arms' own rates within 4 standard errors."""
    world = randomised()
    policy = np.random.default_rng(seed).random(len(world.test))
    policy /= np.bincount(world.test, policy)[world.test]
    shown = world.impressions
    second = np.bincount(world.test, (policy / world.uniform()) ** 2 * world.clicked) / np.bincount(
        world.test, shown
    )
    error = np.sqrt((second / np.bincount(world.test, shown)).sum()) / world.users
    assert abs((world.ips(policy) - world.direct(policy)).mean()) < 4 * error
    np.testing.assert_allclose(
        world.direct(world.uniform()), uniform_value(world, np.arange(world.users))
    )


def test_halves_of_the_visitors_are_independent_and_lose_nobody():
    """Impressions and clicks of the halves add up, and what one half picks looks better there than on the other."""
    world = randomised(visitors=300)
    first, second = world.halves(np.random.default_rng(0))
    assert (first.impressions + second.impressions == world.impressions).all()
    assert (first.clicked + second.clicked == world.clicked).all()
    best = np.zeros(len(world.test))
    for test in range(world.users):
        arms = np.flatnonzero(world.test == test)
        best[arms[np.argmax(first.rates[arms])]] = 1.0
    assert first.direct(best).mean() > second.direct(best).mean()


def test_selected_tests_keep_their_arms():
    """Some tests in another order keep texts, impressions and clicks."""
    world = randomised()
    some = world.select(np.array([7, 2]))
    assert some.users == 2
    assert some.direct(some.uniform()).tolist() == world.direct(world.uniform())[[7, 2]].tolist()
    assert [some.texts[row] for row in np.flatnonzero(some.test == 1)] == [
        world.texts[row] for row in np.flatnonzero(world.test == 2)
    ]


def test_bad_worlds_are_refused_with_what_was_expected():
    """Ratings with gaps, texts missing, lone arms, equal texts in a test and too small logs raise ValueError."""
    with pytest.raises(ValueError, match="finite"):
        RatingMatrix(np.array([[1.0, np.nan]]), ["a", "b"])
    with pytest.raises(ValueError, match="2 texts"):
        RatingMatrix(np.ones((1, 2)), ["a"])
    one = np.ones(2, np.int64)
    with pytest.raises(ValueError, match="two arms"):
        ABTests(["a", "b"], np.array([0, 1]), one, one)
    with pytest.raises(ValueError, match="merge"):
        ABTests(["a", "a"], np.array([0, 0]), one, one)
    with pytest.raises(ValueError, match="clicked <= impressions"):
        ABTests(["a", "b"], np.array([0, 0]), one, 2 * one)
    with pytest.raises(ValueError, match="more than 16"):
        fit_simulator(one, one, ["a", "b"], examine_all(1), np.random.default_rng(0))
    with pytest.raises(ValueError, match="examination"):
        PositionBias((0.0,))


def test_the_simulator_has_the_asked_click_rate_and_the_popularity_of_its_log():
    """The mean attraction is the rate, and items that the log likes are liked."""
    world = simulated(rate=0.2)
    found = world.attraction(np.arange(world.users), 0)
    assert found.mean() == pytest.approx(0.2, abs=1e-6)
    assert found[:, :8].mean() > 1.5 * found[:, 30:].mean()


def test_the_simulator_drifts_is_late_and_brings_new_items():
    """Drift changes tastes with time but not at time 0, rewards come late by the mean, cold items are born in time."""
    still, moving = simulated(), simulated(drift=0.3, delay=2.0, cold=0.5, horizon=4)
    users = np.arange(10)
    np.testing.assert_array_equal(still.attraction(users, 0), moving.attraction(users, 0))
    np.testing.assert_array_equal(still.attraction(users, 5), still.attraction(users, 0))
    changes = [
        np.abs(moving.attraction(users, at) - moving.attraction(users, 0)).mean()
        for at in (1, 2, 4)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]
    late = moving.reward_delays((20_000,), np.random.default_rng(0))
    assert late.mean() == pytest.approx(2.0, abs=0.1)
    assert not still.reward_delays((100,), np.random.default_rng(0)).any()
    alive = [int(moving.eligible(users, at)[0].sum()) for at in range(5)]
    assert alive == sorted(alive)
    assert alive[0] < alive[-1] == len(moving.texts)


def test_logged_slates_become_decisions_with_their_propensities():
    """Rewards are ±1, answers still under way are not judged, and propensities are the drawn ones."""
    world = simulated()
    rng, users = np.random.default_rng(0), np.arange(6)
    slates = draw_slates(rng.random((6, 40)), world.eligible(users, 0), 3, 10, 0.3, rng)
    feedback = Session(world, users, rng).step(slates.items)
    known = rng.random((6, 3)) < 0.5
    decisions = simulated_decisions(slates, feedback, known, users, np.zeros(6, np.int64))
    assert (decisions.judged == known).all()
    assert (decisions.logged == slates.marginal).all()
    assert ((decisions.reward > 0) == feedback.clicks).all()


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_gymnasium_accepts_every_world(world):
    """Gymnasium's own checker passes, and an episode has as many steps as the world's session."""
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from sanderling_trainer.evaluation.simulators.gym_env import SlateEnv

    made = SlateEnv(world)
    check_env(made, skip_render_check=True)
    made.action_space.seed(0)
    made.reset(seed=0, options={"user": 1})
    steps, ended = 0, False
    while not ended:
        observation, reward, ended, _, info = made.step(made.action_space.sample())
        steps += 1
        assert reward == observation["clicks"].sum()
        assert info["refused"] >= 0
    assert steps == world.steps


def test_the_environment_counts_what_it_does_not_show():
    """An item repeated within or across slates is refused, counted and not clicked."""
    pytest.importorskip("gymnasium")
    from sanderling_trainer.evaluation.simulators.gym_env import SlateEnv

    made = SlateEnv(Checkerboard(2, 6, steps=2, clicks=examine_all(2)))
    made.reset(seed=0, options={"user": 0})
    _, reward, _, _, info = made.step(np.array([2, 2]))
    assert (reward, info["refused"]) == (1.0, 1)
    _, reward, ended, _, info = made.step(np.array([2, 4]))
    assert (reward, info["refused"], ended) == (1.0, 1, True)
