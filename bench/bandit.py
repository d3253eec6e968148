"""Worlds with a known truth: a complete matrix of ratings, randomised headline tests, and a fitted simulator.

Each part's file says what it measures and how: `bandits/jester.py`, `bandits/upworthy.py`, `bandits/simulator.py`.

    python -m bench bandit [--data PATH] [--world jester|upworthy|simulator] [--seeds 5]
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from bench.ranking.data import folder

WORLDS = ("jester", "upworthy", "simulator")


def run(arguments: list[str]) -> dict[str, Any]:
    """Print each part's table and return its rows."""
    parser = argparse.ArgumentParser(prog="bench bandit")
    parser.add_argument("--data")
    parser.add_argument("--world", choices=WORLDS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for world in given.world or WORLDS:
        found = importlib.import_module(f"bench.bandits.{world}").run(
            folder(given.data), given.seeds
        )
        for row in found:
            if "@" not in row["metric"]:
                print(
                    f"{row['data']:<10} {row['model']:<40} {row['metric']:<28} "
                    f"{row['value']:8.4f} [{row['low']:.4f}, {row['high']:.4f}]"
                )
        rows += found
    return {"rows": rows}
