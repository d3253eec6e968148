"""Simulated environments: closed forms, exact propensities, seeds, and the Gymnasium interface."""

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
from sanderling_trainer.evaluation.simulators.environment import Session, slate_value, uniform_value
from sanderling_trainer.evaluation.simulators.fitted import (
    FittedEnvironment,
    SimulatorSettings,
    fit_simulator,
)
from sanderling_trainer.evaluation.simulators.logging import draw_slates, simulated_decisions
from sanderling_trainer.evaluation.simulators.population import (
    Population,
    PopulationSettings,
    fit_population,
)
from sanderling_trainer.evaluation.simulators.rating_matrix import RatingMatrix

pytestmark = pytest.mark.lab
attraction_lists = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3)


def simulated(click_model=None, **settings) -> FittedEnvironment:
    """Return an environment fitted to a small random log."""
    rng = np.random.default_rng(3)
    user, item = rng.integers(0, 60, 900), (rng.beta(1, 3, 900) * 40).astype(int)
    texts = [f"thing {at}" for at in range(40)]
    return fit_simulator(
        user,
        item,
        texts,
        click_model or examine_all(3),
        rng,
        SimulatorSettings(**{"factors": 5, "mean_attraction": 0.2, **settings}),
    )


def matrix() -> RatingMatrix:
    """Return a random rating matrix."""
    return RatingMatrix(
        np.random.default_rng(0).normal(0.5, 3.0, (50, 12)), [str(at) for at in range(12)], steps=4
    )


def ab_tests(visitors: int = 4000) -> ABTests:
    """Return 30 random tests of 2 to 5 arms."""
    rng = np.random.default_rng(1)
    test = np.repeat(np.arange(30), rng.integers(2, 6, 30))
    shown = np.concatenate([rng.multinomial(visitors, np.ones(k) / k) for k in np.bincount(test)])
    clicked = rng.binomial(shown, rng.uniform(0.01, 0.3, len(test)))
    return ABTests([f"arm {at}" for at in range(len(test))], test, shown, clicked)


ENVIRONMENTS = {
    "checkerboard": Checkerboard(40, 20, 4),
    "matrix": matrix(),
    "tests": ab_tests(),
    "position": simulated(PositionBias((1.0, 0.5, 0.3))),
    "cascade": simulated(Cascade((0.0, 0.2, 1.0))),
}


@given(attraction_lists, attraction_lists)
def test_closed_forms_equal_sums_over_all_outcomes(attraction, continuation):
    """Click probabilities equal the sum over every outcome of the user's reading."""
    attractions = np.array(attraction)
    np.testing.assert_allclose(
        PositionBias((1.0, 0.5, 0.2)).probabilities(attractions),
        [attractions[0], 0.5 * attractions[1], 0.2 * attractions[2]],
    )
    probabilities = np.zeros(3)
    for attracted, goes in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        probability, reading = 1.0, True
        for slot in range(3):
            probability *= attraction[slot] if attracted[slot] else 1 - attraction[slot]
            probability *= continuation[slot] if goes[slot] else 1 - continuation[slot]
        for slot in range(3):
            probabilities[slot] += probability * (reading and attracted[slot])
            reading = reading and (not attracted[slot] or bool(goes[slot]))
    np.testing.assert_allclose(
        Cascade(tuple(continuation)).probabilities(attractions), probabilities, atol=1e-12
    )


@pytest.mark.parametrize(
    "model", [PositionBias((1.0, 0.6, 0.3)), Cascade((0.0, 0.5, 1.0))], ids=["position", "cascade"]
)
def test_clicks_are_drawn_with_the_probabilities_of_the_closed_form(model):
    """Drawn clicks have the exact rates within 4 standard errors, only in examined slots."""
    attraction = np.broadcast_to([0.5, 0.2, 0.8], (40_000, 3))
    clicks, seen = model.draw(attraction, np.random.default_rng(0))
    exact = model.probabilities(attraction[0])
    assert not (clicks & ~seen).any()
    assert (np.abs(clicks.mean(0) - exact) < 4 * np.sqrt(exact * (1 - exact) / 40_000)).all()


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_value_of_the_uniform_policy_is_the_mean_attraction(environment):
    """A random item earns the mean attraction of what is eligible, computed by a loop."""
    users = np.arange(min(8, environment.users))
    slow = []
    for user in users:
        attraction, eligible = (
            environment.attraction(np.array([user]), 0)[0],
            environment.eligible(np.array([user]), 0)[0],
        )
        slow.append(sum(a for a, e in zip(attraction, eligible, strict=True) if e) / sum(eligible))
    np.testing.assert_allclose(uniform_value(environment, users), slow)


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_inverse_propensities_are_unbiased(environment):
    """IPS with the logged propensities meets the target's exact value within 3 standard errors."""
    rng = np.random.default_rng(5)
    users = rng.integers(0, environment.users, 6000)
    slots, eligible = environment.click_model.slots, environment.eligible(users, 0)
    scores = np.tile(rng.standard_normal(eligible.shape[1]), (len(users), 1))
    logged = draw_slates(scores, eligible, slots, 6, 0.9, rng)
    feedback = Session(environment, users, rng).step(logged.items)
    truth = slate_value(environment, users, draw_slates(scores, eligible, slots, 6, 0.4, rng).items)
    sizes = np.minimum(6, eligible.sum(axis=1))
    target = np.array(
        [joint(row, size, 0.4) for row, size in zip(logged.ranks, sizes, strict=True)]
    )
    weighted = target / logged.conditional.prod(axis=1) * feedback.clicks.sum(axis=1)
    error = np.sqrt((weighted.var() + truth.var()) / len(users))
    assert abs(weighted.mean() - truth.mean()) < 3 * error


def joint(ranks: np.ndarray, size: int, epsilon: float) -> float:
    """Return the probability of a slate of ranks under scheme `sequential`."""
    left, probability = list(range(size)), 1.0
    for rank in ranks:
        probability *= epsilon / len(left) + (1 - epsilon) * (left[0] == rank)
        left.remove(rank)
    return probability


def test_draws_follow_the_probabilities_that_they_log():
    """Marginal propensities are the engine's, and frequencies of drawn ranks agree with them."""
    rng = np.random.default_rng(2)
    scores = np.tile(np.arange(8.0)[::-1], (20_000, 1))
    drawn = draw_slates(scores, np.ones_like(scores, dtype=bool), 3, 5, 0.5, rng)
    table = sequential.marginals(3, 5, 0.5)
    for slot in range(3):
        seen = np.bincount(drawn.items[:, slot], minlength=5) / len(scores)
        np.testing.assert_allclose(seen, table[slot], atol=0.02)
        np.testing.assert_allclose(drawn.marginal[:, slot], table[slot, drawn.ranks[:, slot]])


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_sessions_are_reproducible_by_seed(environment):
    """Two sessions of one seed have equal responses, and one of another seed differs."""

    def responses(seed: int) -> list[list[bool]]:
        rng = np.random.default_rng(seed)
        session, clicks = Session(environment, np.arange(25), rng), []
        while not session.done:
            slates = draw_slates(
                np.ones(session.eligible.shape),
                session.eligible,
                environment.click_model.slots,
                6,
                1.0,
                rng,
            )
            clicks += session.step(slates.items).clicks.tolist()
        return clicks

    assert responses(1) == responses(1)
    assert responses(1) != responses(2)


def test_a_session_refuses_invalid_slates():
    """Repeated, ineligible and misshapen slates, and one too many, raise; -1 is empty."""
    session = Session(
        Checkerboard(4, 6, steps=2, click_model=examine_all(2)),
        np.arange(2),
        np.random.default_rng(0),
    )
    with pytest.raises(ValueError, match="expected an eligible item, found 3 at user 1, slot 1"):
        session.step(np.array([[0, 1], [3, 3]]))
    session = Session(
        Checkerboard(4, 6, steps=2, click_model=examine_all(2)),
        np.arange(2),
        np.random.default_rng(0),
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
    """Items of the user's own colour earn a click a slot; the uniform policy half of that."""
    environment = Checkerboard(10, 8, 2)
    users = np.arange(10)
    assert slate_value(environment, users, (users % 2)[:, None]).tolist() == [1.0] * 10
    assert uniform_value(environment, users).tolist() == [0.5] * 10


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_ips_and_direct_values_of_ab_tests_agree(seed):
    """Averaged over 30 tests, IPS with 1/K meets the direct value within 4 standard errors."""
    environment = ab_tests()
    policy = np.random.default_rng(seed).random(len(environment.test))
    policy /= np.bincount(environment.test, policy)[environment.test]
    shown = environment.impressions
    second = np.bincount(
        environment.test, (policy / environment.uniform()) ** 2 * environment.clicked
    ) / np.bincount(environment.test, shown)
    error = np.sqrt((second / np.bincount(environment.test, shown)).sum()) / environment.users
    assert abs((environment.ips(policy) - environment.direct(policy)).mean()) < 4 * error
    np.testing.assert_allclose(
        environment.direct(environment.uniform()),
        uniform_value(environment, np.arange(environment.users)),
    )


def test_halves_of_the_visitors_are_independent_and_complete():
    """Counts of the halves add up, and arms picked on one half look better there."""
    environment = ab_tests(visitors=300)
    first, second = environment.halves(np.random.default_rng(0))
    assert (first.impressions + second.impressions == environment.impressions).all()
    assert (first.clicked + second.clicked == environment.clicked).all()
    best = np.zeros(len(environment.test))
    for test in range(environment.users):
        arms = np.flatnonzero(environment.test == test)
        best[arms[np.argmax(first.rates[arms])]] = 1.0
    assert first.direct(best).mean() > second.direct(best).mean()


def test_selected_tests_keep_their_arms():
    """Some tests in another order keep texts, impressions and clicks."""
    environment = ab_tests()
    some = environment.select(np.array([7, 2]))
    assert some.users == 2
    assert (
        some.direct(some.uniform()).tolist()
        == environment.direct(environment.uniform())[[7, 2]].tolist()
    )
    assert [some.texts[row] for row in np.flatnonzero(some.test == 1)] == [
        environment.texts[row] for row in np.flatnonzero(environment.test == 2)
    ]


def test_invalid_environments_are_refused():
    """Gaps, missing texts, lone arms, equal texts in a test and small logs raise ValueError."""
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


def test_the_simulator_has_the_rate_of_its_settings_and_the_popularity_of_its_log():
    """The mean attraction is the given one, and items popular in the log attract more."""
    environment = simulated(mean_attraction=0.2)
    attraction = environment.attraction(np.arange(environment.users), 0)
    assert attraction.mean() == pytest.approx(0.2, abs=1e-6)
    assert attraction[:, :8].mean() > 1.5 * attraction[:, 30:].mean()


def test_the_simulator_drifts_delays_rewards_and_adds_items():
    """Tastes drift, delays have the given mean, and new items appear by the horizon."""
    still, moving = simulated(), simulated(drift=0.3, mean_delay=2.0, new_item_share=0.5, horizon=4)
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
    """Rewards are ±1, those still to come are not judged, propensities are the drawn ones."""
    environment = simulated()
    rng, users = np.random.default_rng(0), np.arange(6)
    slates = draw_slates(rng.random((6, 40)), environment.eligible(users, 0), 3, 10, 0.3, rng)
    feedback = Session(environment, users, rng).step(slates.items)
    known = rng.random((6, 3)) < 0.5
    decisions = simulated_decisions(slates, feedback, known, users, np.zeros(6, np.int64))
    assert (decisions.judged == known).all()
    assert (decisions.marginal == slates.marginal).all()
    assert ((decisions.reward > 0) == feedback.clicks).all()


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_gymnasium_accepts_every_environment(environment):
    """Gymnasium's own checker passes, and an episode has as many steps as a session."""
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    from sanderling_trainer.evaluation.simulators.gym_env import SlateEnv

    env = SlateEnv(environment)
    check_env(env, skip_render_check=True)
    env.action_space.seed(0)
    env.reset(seed=0, options={"user": 1})
    steps, ended = 0, False
    while not ended:
        observation, reward, ended, _, info = env.step(env.action_space.sample())
        steps += 1
        assert reward == observation["clicks"].sum()
        assert info["ineligible"] >= 0
    assert steps == environment.steps


def test_the_gym_environment_counts_ineligible_items():
    """An item repeated within or across slates is counted and not clicked."""
    pytest.importorskip("gymnasium")
    from sanderling_trainer.evaluation.simulators.gym_env import SlateEnv

    env = SlateEnv(Checkerboard(2, 6, steps=2, click_model=examine_all(2)))
    env.reset(seed=0, options={"user": 0})
    _, reward, _, _, info = env.step(np.array([2, 2]))
    assert (reward, info["ineligible"]) == (1.0, 1)
    _, reward, ended, _, info = env.step(np.array([2, 4]))
    assert (reward, info["ineligible"], ended) == (1.0, 1, True)


def population(**settings) -> Population:
    """Return a population fitted to a small random log, with a few thousand days between events."""
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, 60, 900), (rng.beta(1, 3, 900) * 40).astype(int)
    chosen = PopulationSettings(**{"users": 50, "items": 30, "nights": 4, **settings})
    texts = [f"thing {at}" for at in range(40)]
    return fit_population(user, item, rng.integers(0, 10**7, 900), texts, chosen, rng)


def test_items_of_a_population_are_born_in_the_order_of_their_rows():
    """What exists on a night is a prefix of the rows; all are born by the last night."""
    people = population(new_item_share=0.5)
    available_from = people.truth.available_from
    assert (np.diff(available_from) >= 0).all()
    assert 0 < people.born(0) < people.born(2) < people.items
    assert people.born(3) == people.items


def test_a_population_remembers_first_events_with_items_that_exist():
    """The events before night 0 are in order of time, distinct, and name no item born later."""
    people = population(new_item_share=0.5)
    assert (np.diff(people.time) >= 0).all()
    assert people.item.max() < people.born(0)
    pairs = np.stack([people.user, people.item])
    assert np.unique(pairs, axis=1).shape[1] == len(people.user)
    assert people.time.max() < people.first_day * 86_400


def test_a_population_knows_what_other_users_of_the_log_did():
    """Users from u on take no part, and have the events that they have in the whole log."""
    part, whole = population(users=20), population(users=1000)
    assert part.users == 20
    assert len(part.user) == len(whole.user)
    counts = [np.sort(np.bincount(each.user)) for each in (part, whole)]
    assert np.array_equal(*counts)
    assert np.array_equal(part.item, whole.item)


def test_items_of_a_population_keep_their_texts():
    """`original_item` names the row of the log whose text an item has."""
    people = population()
    assert [f"thing {row}" for row in people.original_item] == list(people.texts)


def test_tastes_of_a_population_drift():
    """Attraction is the same on one night, and moves with every night."""
    people = population(drift=0.1)
    first, second, third = (people.attraction(night) for night in (0, 1, 2))
    assert np.array_equal(first, people.attraction(0))
    assert 0.0 < np.abs(second - first).mean() < np.abs(third - first).mean()
    assert first.mean() == pytest.approx(0.02, rel=0.2)  # exact over all users of the log
