"""The plain Python on docs/PORTING.md is a port too: it passes the cases of the read path."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from tests.conformance.files import BUNDLES, ROOT, load, unpacked

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EVERY = 4
"""One case of so many: loops in Python take their time."""


@pytest.fixture(params=["golden", "tiny", "shop"])
def port(request, tmp_path, monkeypatch) -> dict[str, Any]:
    """What the page's blocks define, with one of the bundles in `bundle/`."""
    shutil.copytree(ROOT / BUNDLES[request.param], tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "PORTING.md").read_text(encoding="utf-8")
    blocks = [block for block in BLOCK.findall(page) if "sanderling" not in block]
    # They end with examples of the tiny bundle, of which other bundles know no item.
    code = "\n".join(blocks).replace('assert find("moby-dick") == 0', "assert True")
    names: dict[str, Any] = {"__name__": request.param}
    exec(compile(code, "PORTING.md", "exec"), names)
    return names


def cases_of(port: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return every fourth case of a file that is of the port's bundle."""
    cases = [case for case in load(name)["cases"] if case["bundle"] == port["__name__"]]
    return cases[::EVERY]


def replayed(port: dict[str, Any], events: list[list[str]]) -> list[float]:
    """Return the state that events make."""
    state = [0.0] * port["c"]
    for item, kind in events:
        state = port["step"](state, item, kind)
    return state


def test_the_page_computes_states_and_searches(port):
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


def test_the_page_draws_slates(port):
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


def test_the_page_writes_events(port):
    """The bytes of lines of every type, decoded and encoded again."""
    import json

    for case in load("events")["cases"][::EVERY]:
        assert port["encoded"](json.loads(case["line"])) == case["line"]
