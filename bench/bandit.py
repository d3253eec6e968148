"""Policies in environments with a known truth: a rating matrix, A/B tests, a fitted simulator.

Each part's file says what it measures and how: `bandits/jester.py`, `bandits/upworthy.py` and
`bandits/simulator.py`.

    python -m bench bandit [--data PATH] [--environment jester|upworthy|simulator] [--seeds 5]
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from bench.ranking.data import folder

ENVIRONMENTS = ("jester", "upworthy", "simulator")


def run(arguments: list[str]) -> dict[str, Any]:
    """Print each part's table and return its rows."""
    parser = argparse.ArgumentParser(prog="bench bandit")
    parser.add_argument("--data")
    parser.add_argument("--environment", choices=ENVIRONMENTS, action="append")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for environment in options.environment or ENVIRONMENTS:
        part = importlib.import_module(f"bench.bandits.{environment}").run(
            folder(options.data), options.seeds
        )
        for row in part:
            if "@" not in row["metric"]:
                print(
                    f"{row['data']:<10} {row['model']:<40} {row['metric']:<28} "
                    f"{row['value']:8.4f} [{row['low']:.4f}, {row['high']:.4f}]"
                )
        rows += part
    return {"rows": rows}
