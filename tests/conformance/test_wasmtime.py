"""The conformance set in WebAssembly, without a browser: the committed module in wasmtime."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from sanderling.kernels.layout import bits_for
from sanderling.ranking.search_types import RowMask
from tests.conformance.files import ROOT, load, unpacked
from tests.conformance.model_cases import scorer_of
from tests.support.wasm_kernels import WasmIndex, WasmKernels, WasmUserModel

MODULE = ROOT / "engine" / "js" / "wasm" / "sanderling.wasm"
CAPACITY = 64


class Loaded(NamedTuple):
    """An instance of the module with a bundle's items and policy in its memory."""

    kernels: WasmKernels
    index: WasmIndex
    model: WasmUserModel


@pytest.fixture(scope="module")
def opened() -> Callable[[str], Loaded]:
    """Opens each bundle once."""
    pytest.importorskip("wasmtime", reason="needs wasmtime")
    return lru_cache(_open)


def _open(bundle: str) -> Loaded:
    kernels = WasmKernels(MODULE)
    opened = scorer_of(bundle).bundle
    items = opened.items
    bits = bits_for(*items.rows.shape)
    index = WasmIndex(kernels, items.rows, items.scale, items.bias, bits, CAPACITY)
    return Loaded(kernels, index, WasmUserModel(kernels, opened.policy))


def test_searches_in_wasmtime_are_those_of_the_set(opened):
    """The rows, and every bit of the scores, of each search."""
    for case in load("search")["cases"]:
        index = opened(case["bundle"]).index
        n = scorer_of(case["bundle"]).bundle.manifest.sizes.items
        mask = None
        if "hidden" in case:
            hidden = np.zeros(n, np.bool_)
            hidden[case["hidden"]] = True
            mask = RowMask(hidden)
        excluded = np.array(case.get("excluded", []), np.int64)
        found = index.top(unpacked(case["user"]), min(case["k"], n), excluded, mask)
        assert found.rows.tolist() == case["rows"]
        assert found.scores.tolist() == case["scores"]
        assert found.eligible == case["eligible"]


def test_uniforms_in_wasmtime_are_those_of_the_set(opened):
    """Every pair of every decision."""
    kernels = opened("golden").kernels
    for case in load("uniforms")["cases"]:
        expected = [number for pair in case["uniforms"] for number in pair]
        assert kernels.uniforms(case["decision"], len(case["uniforms"])) == expected


def test_states_and_user_vectors_in_wasmtime_are_those_of_the_set(opened):
    """Every bit of the states and user vectors after events."""
    for case in load("states")["cases"]:
        state, user = _replayed(opened(case["bundle"]).model, case)
        assert state.tobytes() == unpacked(case["state"]).tobytes()
        assert user.tobytes() == unpacked(case["user"]).tobytes()


def _replayed(model: WasmUserModel, case: dict[str, Any]) -> tuple[Any, Any]:
    scorer = scorer_of(case["bundle"])
    kinds = scorer.bundle.manifest.kinds
    state = scorer.user_model.initial_state()
    for item, kind in case["events"]:
        row = scorer.find(item)
        if row is not None:
            place = kinds.index(kind) if kind in kinds else 0
            state = model.step(state, scorer.vector(row), place)
    context = unpacked(case["context"]) if "context" in case else None
    return state, model.user_vector(state, context)
