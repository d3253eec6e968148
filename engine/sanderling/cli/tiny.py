"""`sanderling demo --tiny`: slates of a small bundle, and how rewards change them.

`make tiny` makes the bundle: 96 classics, and a policy of what simulated readers finished.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from textwrap import fill
from typing import Any

from sanderling.cli.output import finish
from sanderling.engine import Engine
from sanderling.slate import Slate, SlateItem

BUNDLE = Path(__file__).parent / "tiny_bundle"

USER = "you"
SLOTS = 6
SLATES = 3

WIDTH = 100
"""Characters of a printed line."""

FAVOURITE = "future"
"""The shelf whose books the simulated visit likes best."""

NEXT_STEPS = f"""\
From Python:

  from sanderling import Engine
  with Engine.open({str(BUNDLE)!r}, state="state/") as engine:
      slate = engine.recommend(user="anna", k=10)
      engine.reward(slate, item=slate[0], value=1.0)

On your own tables, with the lab (pip install 'sanderling-trainer[cpu,minilm]'):

  sanderling train --items items.csv --interactions log.csv --out checkpoint/
  sanderling quantize checkpoint/ --out bundle/
  sanderling recommend --bundle bundle/ --interactions log.csv

The full loop, five nights with devices, collector and retraining: sanderling demo"""


def show(as_json: bool) -> None:
    """Open the bundle with a state folder that is removed afterwards, and print slates, a reward
    after each, and where to go on.
    """
    start = time.perf_counter()
    rounds: list[tuple[Slate, SlateItem, bool]] = []
    with (
        tempfile.TemporaryDirectory() as state,
        Engine.open(BUNDLE, state, verify=True) as engine,
    ):
        for _ in range(SLATES):
            finished = [item for _, item, _ in rounds]
            slate = engine.recommend(USER, SLOTS, exclude=finished)
            item = _favourite(slate)
            receipt = engine.reward(slate, item=item, value=1.0, timeout_s=10.0)
            rounds.append((slate, item, receipt.stored))
        explanation = engine.explain(slate.decision)
        why = slate[0].why()
    seconds = time.perf_counter() - start

    result: dict[str, Any] = {
        "bundle": str(BUNDLE),
        "slates": [slate.to_dict() for slate, _, _ in rounds],
        "rewarded": [item.id for _, item, _ in rounds],
        "stored": [stored for _, _, stored in rounds],
        "why": why.to_dict(),
        "replayed_identically": explanation.is_identical,
        "seconds": seconds,
    }
    share, pool = explanation.epsilon, explanation.pool
    blocks = [
        "96 classics, and a policy trained on what 400 simulated readers finished; release"
        f" {rounds[0][0].release}, hashes verified.",
        *_rounds(rounds),
        f"* explored: {share:.0%} of the slots draw from the {pool} best books. The probability is"
        " that with which\n  a slot drew its book, given those above it; by it the lab judges the"
        " next policy.",
        fill(f"Why the last slate begins as it does, by slate[0].why(): {why}", WIDTH),
        f"The last decision, replayed from its inputs: {_same(explanation.is_identical)}."
        f" All this took {seconds:.1f} s, and nothing\nwas sent anywhere.",
        NEXT_STEPS,
    ]
    finish(result, "\n\n".join(blocks), as_json)


def _favourite(slate: Slate) -> SlateItem:
    """Return the first book of the favourite shelf, or else the first one."""
    liked = [item for item in slate if item.attributes.get("shelf") == FAVOURITE]
    return (liked or list(slate))[0]


def _rounds(rounds: list[tuple[Slate, SlateItem, bool]]) -> list[str]:
    """Return a block of text for each slate and the reward after it."""
    blocks = []
    shown: set[str] = set()
    for slate, finished, stored in rounds:
        new = sum(item.id not in shown for item in slate)
        title = (
            f"The next slate, {new} of {len(slate)} books new:"
            if shown
            else "The slate of somebody new:"
        )
        shown.update(item.id for item in slate)
        reward = "is on the disk" if stored else "could not be stored"
        blocks.append(
            "\n".join(
                [
                    title,
                    "  slot  probability  book",
                    *map(_line, slate),
                    f"{USER.capitalize()} finish {finished.title!r}: the reward of 1 {reward}.",
                ]
            )
        )
    return blocks


def _line(item: SlateItem) -> str:
    mark = "*" if item.explored else " "
    book = f"{item.title}, {item.attributes['author']} ({item.attributes['shelf']})"
    return f"  {item.slot + 1:>4}{mark} {item.propensity:>11.3f}  {book}"


def _same(is_identical: bool) -> str:
    return "the same bit for bit" if is_identical else "NOT the same, please report it"
