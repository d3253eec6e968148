"""The kernels in Node, as WebAssembly and in plain JavaScript: the bits of Python."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.exploration.philox import plain_uniforms
from sanderling.ranking.index import Int8Index
from sanderling.ranking.numpy_user_model import exp
from sanderling.ranking.user_model import UserModel
from tests.support.javascript import needs_node
from tests.support.kernel_problems import (
    KINDS,
    POLICIES,
    SIZES,
    Search,
    events,
    found,
    policy,
    searches,
    table,
)

pytestmark = needs_node
SOURCES = ["wasm", "plain"]


def text(array: Any, kind: Any) -> str:
    """Return the bytes of an array of a kind as base64."""
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode()


def floats(array: Any) -> str:
    """Return the bytes of float32 as base64."""
    return text(array, np.float32)


def as_call(search: Search) -> dict[str, Any]:
    """Return a search as Node reads it."""
    return {
        "query": floats(search.query),
        "k": search.k,
        "excluded": text(search.excluded, np.int32),
        "hidden": None if search.hidden is None else text(search.hidden, np.uint8),
        "raised": text(search.raised, np.int32),
        "by": floats(search.by),
    }


def check_searches(node: Any, source: str, n: int, d: int, k: int, seed: int) -> None:
    """Compare searches in Node with Python's."""
    rows, scale, bias = table(n, d, seed)
    wanted = searches(n, d, k, seed)
    answers = node(
        "searches",
        source,
        d,
        text(rows, np.int8),
        floats(scale),
        floats(bias),
        [as_call(search) for search in wanted],
    )
    index = Int8Index(rows, scale, bias)
    for search, answer in zip(wanted, answers, strict=True):
        expected = found(index, search)
        scores = text(expected.scores, np.float64)
        assert answer == [text(expected.rows, np.int32), scores, expected.eligible, scores]


def test_node_has_webassembly_with_vectors(node):
    """The kernels that are loaded unless others are asked for are the compiled ones."""
    assert [node("source", source) for source in SOURCES] == SOURCES


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_searches_have_the_rows_and_scores_of_python(node, source, n, d, k):
    """Ties, exclusions, masks, raised biases, extreme queries: the same rows and bits of scores."""
    check_searches(node, source, n, d, k, 0)


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 40), st.integers(0, 300))
def test_searches_of_any_size_have_the_rows_and_scores_of_python(node, source, seed, n, d, k):
    """The same for drawn sizes."""
    check_searches(node, source, n, d, k, seed)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("d", "c", "m", "t"), POLICIES)
def test_states_have_the_bits_of_python(node, source, d, c, m, t):
    """Inputs, states and user vectors after forty events."""
    tensors = policy(d, c, m, t)
    history = events(d, t, 40)
    steps = [
        {
            "item": floats(item),
            "kind": kind,
            "context": None if context is None else floats(context),
        }
        for item, kind, context in history
    ]
    encoded = {name: floats(tensor) for name, tensor in tensors.items()}
    answers = node("states", source, encoded, steps)
    model = UserModel(tensors, KINDS)
    state = model.initial_state()
    for (item, kind, context), answer in zip(history, answers, strict=True):
        added = model.input(item, KINDS[kind])
        state = model.step(state, item, KINDS[kind])
        assert answer == [floats(v) for v in (added, state, model.user_vector(state, context))]


@pytest.mark.parametrize("source", SOURCES)
@given(decision=st.binary(min_size=16, max_size=16).map(bytes.hex), blocks=st.integers(0, 40))
@settings(deadline=None)
def test_uniforms_are_those_of_python(node, source, decision, blocks):
    """Two doubles a block, for any id."""
    expected = np.array(plain_uniforms(decision, blocks)).reshape(-1)
    assert node("uniforms", source, decision, blocks) == text(expected, np.float64)


def test_the_exponential_has_the_bits_of_numpy(node):
    """From far below to far above the limits, in plain JavaScript."""
    x = np.concatenate([np.linspace(-750, 750, 4001), np.random.default_rng(5).normal(size=2000)])
    assert node("exp", text(x, np.float64)) == text(exp(x), np.float64)
