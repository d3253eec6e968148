"""Part "bandit": two real logs, each evaluated for the other's policy (Open Bandit Dataset, men).

Saito et al. 2021. An action is an item in one of three positions; each row is a slate of one slot.
The truth of a policy is the click rate of its own log.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np

from bench.estimation.rows import Row, row
from sanderling_trainer.evaluation import ope

POSITIONS = 3
PRINTED = ("observed", "IIPS", "SN-IIPS", "clipped IIPS", "DM", "DR", "Switch-DR", "DRos")


def run(path: Path) -> list[Row]:
    """Print and return the estimates of four pairs of log and target policy."""
    logs = {name: _read(path / name / "men" / "men.csv.gz") for name in ("random", "bts")}
    items = 1 + max(int(log["item"].max()) for log in logs.values())
    uniform = np.full((items, POSITIONS), 1.0 / items)
    thompson = _mean_policy(logs["bts"], items)
    rarest = (np.argmin(thompson, axis=0)[None] == np.arange(items)[:, None]).astype(np.float64)

    print(
        f"{'open bandit, men':<28}{'value':>9}{'low':>9}{'high':>9}{'ess':>8}{'mean w':>8}"
        f"{'max w':>9}"
    )
    rows = []
    for source, name, target in (
        ("random", "uniform", uniform),
        ("random", "bts", thompson),
        ("bts", "uniform", uniform),
        ("bts", "rarest item", rarest),
    ):
        true_log = logs["bts" if name == "bts" else "random"]
        truth = true_log["click"]
        if name == "rarest item":
            truth = truth[rarest[true_log["item"], true_log["position"]] > 0]
        error = 1.96 * truth.std() / len(truth) ** 0.5
        print(
            f"{source} -> {name}: truth by the other log {truth.mean():.5f} ± {error:.5f},"
            f" {len(truth)} rows"
        )
        estimates = _estimates(logs[source], target, items)
        data = f"open bandit, {source} -> {name}"
        rows += [
            _report(estimate, data, float(truth.mean()))
            for estimate in estimates
            if estimate.estimator in PRINTED
        ]
        if (source, name) == ("random", "uniform"):
            snips = next(one for one in estimates if one.estimator == "SN-IIPS")
            difference = snips.value - truth.mean()
            print(f"  SNIPS of the uniform policy - click rate of its log: {difference:.1e}")
    return rows


def _report(estimate: ope.Estimate, data: str, truth: float) -> Row:
    """Print an estimate and return its row; a refused one has no numbers."""
    values = (estimate.value, estimate.low, estimate.high)
    if estimate.refused:
        cells = [f"{'–':>9}"] * 3
        values = (None, None, None)
    else:
        cells = [f"{value:>9.5f}" for value in values]
    health = f"{estimate.ess:>8.0f}{estimate.mean_weight:>8.3f}{estimate.max_weight:>9.1f}"
    print(f"  {estimate.estimator:<26}{''.join(cells)}{health}  {estimate.refused or ''}")
    result = row(data, estimate.estimator, "click rate", *values)
    return result | {"ess": estimate.ess, "truth": truth, "refused": estimate.refused}


def _estimates(log: dict[str, Any], target: Any, items: int) -> list[ope.Estimate]:
    """Estimate a policy [items, positions] on a log."""
    m = len(log["click"])
    rng = np.random.default_rng(0)
    group = np.arange(m)
    every = np.ones((m, 1), np.bool_)
    clicks = log["click"][:, None].astype(np.float64)
    shown = log["item"][:, None]

    model = ope.fit_reward_model(
        ope.RewardExamples(clicks, every, shown, group, np.ones(m)), items, rng
    )
    effects = model.item_effects(np.tile(np.arange(items), (m, 1)))
    expected = np.einsum("mi,im->m", effects, target[:, log["position"]])[:, None]
    slot = model.slot_effect[model.fold]
    predicted = ope.Predictions(
        shown=slot + model.item_effects(shown),
        expected=slot + expected,
        expected_given_above=slot + expected,
        slot=np.zeros((m, 1)),
    )

    # With one slot the three kinds of propensity are the same.
    logged = ope.Propensities(*3 * [log["propensity"][:, None]])
    wanted = ope.Propensities(*3 * [target[log["item"], log["position"]][:, None]])
    slates = ope.SlateLog(clicks, every, group, logged, np.ones(m))
    return ope.estimate_all(slates, wanted, rng, predicted=predicted)


def _mean_policy(log: dict[str, Any], items: int) -> Any:
    """Return each item's mean propensity by position, [items, positions], columns summing to 1.

    Thompson sampling changes from day to day; this is its policy on average.
    """
    table = np.full((items, POSITIONS), 1e-6)
    for item in range(items):
        for position in range(POSITIONS):
            chosen = (log["item"] == item) & (log["position"] == position)
            if chosen.any():
                table[item, position] = log["propensity"][chosen].mean()
    return table / table.sum(axis=0)


def _read(path: Path) -> dict[str, Any]:
    """Return the log's columns; positions count from 0."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> Any:
        return np.array([float(row[name]) for row in rows])

    return {
        "item": column("item_id").astype(np.int64),
        "position": column("position").astype(np.int64) - 1,
        "click": column("click").astype(np.int64),
        "propensity": column("propensity_score"),
    }
