"""The plain Python on docs/PORTING.md is a port too: it passes the cases of the read path."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.files import BUNDLES, ROOT, load, unpacked

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EVERY = 4
"""One case of so many: loops in Python take their time."""

LEAST_CASES = 200
"""Each bundle has more in each file that is read here."""

MUTANTS = {
    "ties by the higher row": ("-pair[0], pair[1]", "-pair[0], -pair[1]"),
    "queries rounded down": ("round(x * (8388607.0 / peak))", "int(x * (8388607.0 / peak))"),
    "inputs not rounded": ("f32(gain[i] * gate[i] * sums[i])", "gain[i] * gate[i] * sums[i]"),
    "sums in float32": ("total += weights[", "total = f32(total) + weights["),
    "the mean in float32": ("mean = total / c", "mean = f32(total / c)"),
    "one bit of a uniform": ("(x >> 5)", "(x >> 6)"),
    "an unlucky trial picks": ("if explores else 0", "if True else 0"),
    "the other order of a sum": ("each + (1.0 - epsilon))", "(each - epsilon) + 1.0)"),
    "one bit of a constant": ("0x9E3779B9", "0x9E3779B8"),
    "short escapes missing": ("ESCAPES.get(x,", 'ESCAPES.get("",'),
    "exponents from 1e-4 on": ("not -5 <= power", "not -4 <= power"),
}
"""Faults of a port: what they replace on the page."""


def make_port(bundle: str, folder: Path, fault: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """Return what the page's blocks define, with one of the bundles in `bundle/`."""
    shutil.copytree(ROOT / BUNDLES[bundle], folder / "bundle")
    page = (ROOT / "docs" / "PORTING.md").read_text(encoding="utf-8")
    blocks = [block for block in BLOCK.findall(page) if "sanderling" not in block]
    # They end with examples of the tiny bundle, of which other bundles know no item.
    code = "\n".join(blocks).replace('assert find("moby-dick") == 0', "assert True")
    assert fault[0] in code
    names: dict[str, Any] = {"__name__": bundle}
    exec(compile(code.replace(*fault), "PORTING.md", "exec"), names)
    return names


@pytest.fixture(params=["golden", "tiny", "shop"])
def port(request, tmp_path, monkeypatch) -> dict[str, Any]:
    """The page's port of one bundle."""
    monkeypatch.chdir(tmp_path)
    return make_port(request.param, tmp_path)


def cases_of(port: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return every fourth case of a file that is of the port's bundle; there are many."""
    cases = [case for case in load(name)["cases"] if case["bundle"] == port["__name__"]]
    assert len(cases) > LEAST_CASES
    return cases[::EVERY]


def replayed(port: dict[str, Any], events: list[list[str]]) -> list[float]:
    """Return the state that events make."""
    state = [0.0] * port["c"]
    for item, kind in events:
        state = port["step"](state, item, kind)
    return state


def assert_states_and_searches(port: dict[str, Any]) -> None:
    """Every bit of states, user vectors and scores."""
    for case in cases_of(port, "states"):
        state = replayed(port, case["events"])
        context = unpacked(case["context"]).tolist() if "context" in case else None
        assert state == unpacked(case["state"]).tolist()
        assert port["user_vector"](state, context) == unpacked(case["user"]).tolist()
    for case in cases_of(port, "search"):
        user = unpacked(case["user"]).tolist()
        excluded = [*case.get("excluded", []), *case.get("hidden", [])]
        found, eligible = port["search"](user, case["k"], excluded)
        assert [row for _, row in found] == case["rows"]
        assert [score for score, _ in found] == case["scores"]
        assert eligible == case["eligible"]


def assert_slates(port: dict[str, Any]) -> None:
    """Ranks, and every bit of the conditional probabilities; marginals within the tolerance."""
    shared = load("slates-sequential")
    for case in cases_of(port, "slates-sequential"):
        plan, request, expected = case["plan"], case["request"], case["slate"]
        user = unpacked(shared["users"][case["bundle"]][case["user"]]).tolist()
        excluded = [port["find"](item) for item in request.get("exclude", [])]
        ranking, _ = port["search"](user, max(plan["pool"], request["k"]), excluded)
        slots = min(request["k"], len(ranking))
        pairs = port["uniforms"](case["decision"], slots)
        ranks, explored, conditional, marginal = port["draw"](
            slots, len(ranking), plan["epsilon"], pairs
        )
        ids = [port["record"](ranking[rank][1])["id"] for rank in ranks]
        assert (ids, ranks) == (expected["items"], expected["ranks"])
        assert list(map(int, explored)) == expected["explored"]
        assert conditional == expected["conditional"]
        assert marginal == pytest.approx(expected["marginal"], rel=0.0, abs=1e-12)


def assert_events(port: dict[str, Any]) -> None:
    """The bytes of lines of every type, decoded and encoded again."""
    cases = load("events")["cases"]
    assert len(cases) > LEAST_CASES
    for case in cases[::EVERY]:
        assert port["encoded"](json.loads(case["line"])) == case["line"]


def test_the_page_passes_the_set(port):
    """States, searches and slates of the plain Python on the page are the engine's, by bundle."""
    assert_states_and_searches(port)
    assert_slates(port)


def test_the_page_writes_the_events_of_the_set(tmp_path, monkeypatch):
    """Every byte of the lines, which depend on no bundle."""
    monkeypatch.chdir(tmp_path)
    assert_events(make_port("golden", tmp_path))


@pytest.mark.mutant
@pytest.mark.parametrize("name", MUTANTS)
def test_the_set_detects_faults_of_a_port(name, tmp_path, monkeypatch):
    """A port with one fault fails one of the checks."""
    monkeypatch.chdir(tmp_path)
    port = make_port("shop", tmp_path, MUTANTS[name])
    found = 0
    for assertions in (assert_states_and_searches, assert_slates, assert_events):
        try:
            assertions(port)
        except (AssertionError, ValueError, OverflowError, ZeroDivisionError):
            found += 1
    assert found
