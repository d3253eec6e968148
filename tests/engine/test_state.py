"""The user model on the device, against a float64 loop over its equations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sanderling.bundle.reader import Bundle
from sanderling.kernels import loader
from sanderling.ranking.numpy_user_model import exp
from sanderling.ranking.scorer import Scorer
from sanderling.ranking.user_model import UserModel
from sanderling.users.user_states import UserStates
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeEntropy
from tests.support.kernel_problems import KINDS, POLICIES, events, policy
from tests.support.naive_user_model import (
    naive_exp,
    naive_input,
    naive_step,
    naive_user_vector,
)


def test_the_recurrence_equals_its_equations(tmp_path):
    """State and user vector after 300 events equal a loop over the equations within 1e-4."""
    write_bundle(tmp_path / "b")
    scorer = Scorer(Bundle.open(tmp_path / "b"))
    w = {name: tensor.astype(np.float64) for name, tensor in scorer.bundle.policy.items()}
    rng = np.random.default_rng(0)
    state = scorer.user_model.initial_state()
    exact = [0.0] * len(w["state.decay"])
    for _ in range(300):
        row = int(rng.integers(50))
        kind = int(rng.integers(3))
        v = scorer.vector(row)
        state = scorer.user_model.step(state, v, scorer.bundle.manifest.kinds[kind])
        for c, decay in enumerate(w["state.decay"]):
            x = w["state.kind"][kind][c] * sum(
                w["state.input"][c][j] * float(v[j]) for j in range(len(v))
            )
            exact[c] = decay * exact[c] + math.sqrt(1 - decay**2) * x
    np.testing.assert_allclose(state, exact, atol=1e-4)
    mean = sum(exact) / len(exact)
    spread = math.sqrt(sum((x - mean) ** 2 for x in exact) / len(exact) + 1e-5)
    normal = np.array([(x - mean) / spread for x in exact]) * w["output.gain"] + w["output.shift"]
    hidden = w["output.w1"] @ normal + w["output.b1"]
    context = rng.normal(size=16).astype(np.float32)
    user = (
        w["output.w2"] @ (hidden / (1 + np.exp(-hidden)))
        + w["output.b2"]
        + w["context.project"] @ context
    )
    np.testing.assert_allclose(scorer.user_model.user_vector(state, context), user, atol=1e-4)


def test_unknown_kinds_count_as_the_first(tmp_path):
    """An event of a kind that the policy does not know changes the state as the first kind does."""
    write_bundle(tmp_path / "b")
    scorer = Scorer(Bundle.open(tmp_path / "b"))
    state = scorer.user_model.initial_state()
    v = scorer.vector(3)
    unknown = scorer.user_model.step(state, v, "unknown")
    np.testing.assert_array_equal(unknown, scorer.user_model.step(state, v, "view"))


@pytest.mark.parametrize("source", loader.SOURCES)
@pytest.mark.parametrize(("d", "c", "m", "t"), POLICIES)
def test_all_kernels_have_the_bits_of_loops_over_doubles(source, d, c, m, t):
    """Inputs, states and user vectors of compiled kernels, numba and numpy after ten events."""
    try:
        loader.chosen(source)
    except ImportError as error:
        pytest.skip(str(error))
    tensors = policy(d, c, m, t)
    model = UserModel(tensors, KINDS, source)
    state = model.initial_state()
    for item, kind, context in events(d, t, 10):
        assert model.input(item, KINDS[kind]).tolist() == naive_input(tensors, item, kind)
        after = model.step(state, item, KINDS[kind])
        assert after.tolist() == naive_step(tensors, state, item, kind)
        user = model.user_vector(after, context)
        assert user.tolist() == naive_user_vector(tensors, after, context)
        state = after


def test_states_that_are_not_finite_make_user_vectors_that_are_not():
    """No kernel traps on infinity or NaN, and none makes an ordinary vector of it."""
    tensors = policy(16, 8, 16, 16)
    for source in ("numpy", None):
        model = UserModel(tensors, KINDS, source)
        for value in (np.inf, np.nan):
            state = np.full(8, value, np.float32)
            with np.errstate(invalid="ignore"):
                assert not np.isfinite(model.user_vector(state)).any()


def test_the_exponential_is_near_that_of_the_library():
    """Within 2e-12 of math.exp, and limited beyond 708; one by one the same bits."""
    x = np.concatenate([np.linspace(-708, 708, 20_001), np.random.default_rng(2).normal(size=1000)])
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=2e-12)
    assert exp(x).tolist() == [naive_exp(value) for value in x.tolist()]
    assert exp(np.array([-1e300, 1e300])).tolist() == [naive_exp(-708.0), naive_exp(708.0)]


def test_a_state_knows_its_user_vector_until_it_changes(tmp_path):
    """Asked again, it is the same array, which nobody can change; after an event, or in another
    bundle, it is that of the new state."""
    write_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b", seed=1)
    scorer, other = (Scorer(Bundle.open(tmp_path / name)) for name in "ab")
    states = UserStates(lambda key: None, b"secret", FakeEntropy())
    before = states.get("anna", scorer)
    vector = before.user_vector(scorer.user_model)
    assert before.user_vector(scorer.user_model) is vector
    assert not vector.flags.writeable

    after = states.observe("anna", "item-1", "view", scorer)
    for state, of in ((before, scorer), (after, scorer), (states.get("anna", other), other)):
        expected = of.user_model.user_vector(state.vector)
        np.testing.assert_array_equal(state.user_vector(of.user_model), expected)
    assert not np.array_equal(after.user_vector(scorer.user_model), vector)
