"""Off-policy estimators: are they right where they may claim it, do intervals cover, and how fast are they.

Physics: an estimate is a mean of weighted clicks, so no honest 95 % interval is right more often or less often than
95 %; a pass over m slates of K slots must read at least reward, mask and six propensities once, 50 bytes a slot. The
peer is the same estimators as Python loops over decisions and slots (`bench/estimation/loops.py`),
which the tests hold equal, and for intervals numpy's plainest bootstrap: draw m decisions again by
index, divide, 2,000 times.

Protocol:
- truth: worlds of 6 items and 3 slots (`bench/estimation/slate_worlds.py`), four ways of clicking,
  the truth enumerated; mean bias over 200 worlds of 2,000 slates, in standard errors of that mean.
  Within 3 is right, beyond 3 is detectably wrong.
- coverage: 1,000 worlds of 2,000 slates by 500 installs with independent clicks, which every estimator may assume; an
  estimate that is refused in a world is not counted there, the share that is refused is given.
- open bandit: the men's campaign of the Open Bandit Dataset (Saito et al. 2021), item × position as the action.
- speed: processor seconds of one thread at 10⁶ slates of K = 10 (10⁷ slots); the loop twin on 2,000 slates and the
  bootstrap on 2 of its 2,000 resamples, both scaled up.

    python -m bench ope [--data PATH] [--worlds 1000] [--slates 1000000] [truth|coverage|bandit|speed ...]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.estimation import slate_worlds
from bench.estimation.loops import naive_estimates
from bench.ranking.data import folder
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.aggregation import take_rows

Row = dict[str, Any]

FAST = ("SN-IIPS", "DR", "SN-RIPS", "Cascade-DR")
SLATES, TRUTHS = 2000, 200


def run(arguments: list[str]) -> dict[str, Any]:
    """Run the parts that are named, all by default, and return their rows."""
    parser = argparse.ArgumentParser(prog="python -m bench ope")
    parser.add_argument(
        "parts", nargs="*", default=[], choices=["truth", "coverage", "bandit", "speed", []]
    )
    parser.add_argument("--data")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--slates", type=int, default=10**6)
    given = parser.parse_args(arguments)
    parts = {
        "truth": lambda: _truth(min(TRUTHS, given.worlds)),
        "coverage": lambda: _coverage(given.worlds),
        "bandit": lambda: _bandit(folder(given.data) / "open_bandit"),
        "speed": lambda: _speed(given.slates),
    }
    rows: list[Row] = []
    for name, part in parts.items():
        if not given.parts or name in given.parts:
            start = time.perf_counter()
            rows += part()
            print(f"({name} took {time.perf_counter() - start:.0f} s)\n", flush=True)
    return {"rows": rows}


def _row(
    data: str,
    model: str,
    metric: str,
    value: Any,
    low: Any = None,
    high: Any = None,
    seeds: int = 1,
) -> Row:
    said = {"low": low, "high": high, "seeds": seeds}
    return {"data": data, "model": model, "metric": metric, "value": value, **said}


def _truth(worlds: int) -> list[Row]:
    """Return each estimator's bias in standard errors, in each of the four worlds."""
    off: dict[str, dict[str, tuple[float, float]]] = {}
    for clicks in slate_worlds.CLICKS:
        values: dict[str, list[float]] = {}
        for seed in range(worlds):
            world = slate_worlds.draw(clicks, SLATES, seed, group=np.arange(SLATES) // 20)
            for name, one in slate_worlds.judge(world, seed).items():
                values.setdefault(name, []).append(one.value)
        for name, found in values.items():
            bias, error = (
                np.mean(found) - slate_worlds.truth(clicks),
                np.std(found, ddof=1) / len(found) ** 0.5,
            )
            off.setdefault(name, {})[clicks] = float(bias), float(error)
    print(
        f"bias in standard errors ({worlds} worlds of {SLATES} slates; * beyond 3), and in percent of the truth"
    )
    print(f"{'':<20}" + "".join(f"{clicks:>24}" for clicks in slate_worlds.CLICKS))
    for name, by_clicks in off.items():
        cells = [
            f"{bias / error:>12.1f}{'*' if abs(bias) > 3 * error else ' '}"
            f"{100 * bias / slate_worlds.truth(clicks):>+9.2f} %"
            for clicks, (bias, error) in by_clicks.items()
        ]
        print(f"{name:<20}" + "".join(cells))
    return [
        _row(clicks, name, "bias", bias, bias - 1.96 * error, bias + 1.96 * error, worlds)
        | {"standard_errors": bias / error}
        for name, by_clicks in off.items()
        for clicks, (bias, error) in by_clicks.items()
    ]


def _coverage(worlds: int) -> list[Row]:
    """Return the share of worlds whose intervals hold the truth, and the intervals' mean width."""
    wanted, settings = slate_worlds.truth("independent"), (slate_worlds.POOL, slate_worlds.LOGGING)
    largest = ope.max_weights(
        slate_worlds.SLOTS, settings, (slate_worlds.POOL, slate_worlds.TARGET)
    )
    held: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    refused: dict[str, int] = {}
    for seed in range(worlds):
        world = slate_worlds.draw(
            "independent", SLATES, 10_000 + seed, group=np.arange(SLATES) // 4
        )
        for name, one in slate_worlds.judge(world, seed, largest=largest).items():
            refused[name] = refused.get(name, 0) + (one.refused is not None)
            if one.refused is not None or name == "observed":
                continue
            for how, span in (
                ("bootstrap", one),
                ("bernstein", one.bernstein),
                ("betting", one.betting),
            ):
                if span is not None:
                    held.setdefault((name, how), []).append(
                        (span.low <= wanted <= span.high, span.high - span.low)
                    )
    print(
        f"share of {worlds} worlds of {SLATES} slates whose 95 % interval holds the truth (mean width)"
    )
    print(f"{'':<20}{'bootstrap':>20}{'bernstein':>20}{'betting':>20}{'refused':>10}")
    for name in refused:
        cells = [
            _covered(held.get((name, how), [])) for how in ("bootstrap", "bernstein", "betting")
        ]
        print(
            f"{name:<20}"
            + "".join(f"{cell:>20}" for cell in cells)
            + f"{refused[name] / worlds:>10.1%}"
        )
    rows = []
    for (name, how), found in held.items():
        share, n = float(np.mean([hold for hold, _ in found])), len(found)
        error = 1.96 * (share * (1 - share) / n) ** 0.5
        row = _row("independent", name, f"coverage, {how}", share, share - error, share + error, n)
        rows.append(
            row
            | {
                "width": float(np.mean([width for _, width in found])),
                "refused": refused[name] / worlds,
            }
        )
    return rows


def _covered(found: Sequence[tuple[bool, float]]) -> str:
    if not found:
        return "–"
    return (
        f"{np.mean([hold for hold, _ in found]):.3f} ({np.mean([width for _, width in found]):.3f})"
    )


def _bandit(path: Path) -> list[Row]:
    """Return what the two real logs say of each other's policy; the truth is each log's own click rate."""
    logs = {name: _read(path / name / "men" / "men.csv.gz") for name in ("random", "bts")}
    items = 1 + max(int(log["item"].max()) for log in logs.values())
    uniform, thompson = np.full((items, 3), 1.0 / items), _policy(logs["bts"], items)
    rows = []
    print(
        f"{'open bandit, men':<28}{'value':>9}{'low':>9}{'high':>9}{'ess':>8}{'mean w':>8}{'max w':>9}"
    )
    rarest = np.argmin(thompson, axis=0)[None] == np.arange(items)[:, None]
    for source, name, target in (
        ("random", "uniform", uniform),
        ("random", "bts", thompson),
        ("bts", "uniform", uniform),
        ("bts", "rarest item", rarest.astype(np.float64)),
    ):
        found = _judge_bandit(logs[source], target, items)
        truth = logs["bts" if name == "bts" else "random"]
        truth = (
            truth["click"][rarest[truth["item"], truth["position"]]]
            if name == "rarest item"
            else truth["click"]
        )
        error = 1.96 * truth.std() / len(truth) ** 0.5
        print(
            f"{source} -> {name}: truth by the other log {truth.mean():.5f} ± {error:.5f}, {len(truth)} rows"
        )
        for one in found:
            if one.estimator in (
                "observed",
                "IIPS",
                "SN-IIPS",
                "clipped IIPS",
                "DM",
                "DR",
                "Switch-DR",
                "DRos",
            ):
                said = (
                    [f"{x:>9.5f}" for x in (one.value, one.low, one.high)]
                    if not one.refused
                    else [f"{'–':>9}"] * 3
                )
                health = f"{one.ess:>8.0f}{one.mean_weight:>8.3f}{one.max_weight:>9.1f}"
                print(f"  {one.estimator:<26}{''.join(said)}{health}  {one.refused or ''}")
                told = (None, None, None) if one.refused else (one.value, one.low, one.high)
                row = _row(f"open bandit, {source} -> {name}", one.estimator, "click rate", *told)
                rows.append(
                    row | {"ess": one.ess, "truth": float(truth.mean()), "refused": one.refused}
                )
        if (source, name) == ("random", "uniform"):
            snips = next(one for one in found if one.estimator == "SN-IIPS")
            print(
                f"  SNIPS of the uniform policy - click rate of its log: {snips.value - truth.mean():.1e}"
            )
    return rows


def _judge_bandit(log: dict[str, Any], target: Any, items: int) -> list[ope.Estimate]:
    """Judge a policy [items, positions]; each row is a slate of one slot."""
    m, rng = len(log["click"]), np.random.default_rng(0)
    logged = log["propensity"][:, None]
    wanted = target[log["item"], log["position"]][:, None]
    clicks = log["click"][:, None].astype(np.float64)
    every, shown = np.ones((m, 1), np.bool_), log["item"][:, None]
    model = ope.fit(clicks, every, shown, np.arange(m), items, np.ones(m), rng)
    by_item = model.predict(np.tile(np.arange(items), (m, 1)))
    expected = np.einsum("mi,im->m", by_item, target[:, log["position"]])[:, None]
    slot = model.slot[model.fold]
    predicted = ope.Predictions(
        slot + model.predict(shown), slot + expected, slot + expected, np.zeros((m, 1))
    )
    slates = ope.SlateLog(
        clicks, every, np.arange(m), ope.Propensities(logged, logged, logged), np.ones(m)
    )
    return ope.estimate_all(slates, ope.Propensities(wanted, wanted, wanted), rng, predicted=predicted)


def _policy(log: dict[str, Any], items: int) -> Any:
    """Return BTS as a policy [items, positions]: its mean propensity of each item in each position, summing to 1."""
    table = np.full((items, 3), 1e-6)
    for item in range(items):
        for position in range(3):
            here = (log["item"] == item) & (log["position"] == position)
            if here.any():
                table[item, position] = log["propensity"][here].mean()
    return table / table.sum(axis=0)


def _read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        "item": "item_id",
        "position": "position",
        "click": "click",
        "propensity": "propensity_score",
    }
    found = {
        name: np.array([float(row[column]) for row in rows]) for name, column in columns.items()
    }
    whole = {name: found[name].astype(np.int64) for name in ("item", "position", "click")}
    return {**found, **whole, "position": whole["position"] - 1}


def _speed(m: int) -> list[Row]:
    """Return seconds on one thread, and how many times longer the plain ways take."""
    slots, pool = 10, 20
    log, target, predicted, spent = _large(m, slots, pool)
    start = time.process_time()
    found = {
        one.estimator: one
        for one in ope.estimate_all(log, target, np.random.default_rng(0), predicted=predicted)
    }
    spent["estimates and intervals"] = time.process_time() - start

    few = min(m, 2000)
    small, wanted, guess = (take_rows(part, slice(few)) for part in (log, target, predicted))
    start = time.process_time()
    slow = naive_estimates(small, wanted, guess, estimators.WEIGHT_CAP)
    loop = (time.process_time() - start) * m / few
    again = {
        one.estimator: one.value
        for one in ope.estimate_all(small, wanted, np.random.default_rng(0), predicted=guess)
    }
    worst = max(abs(again[name] - slow[name]) / max(abs(slow[name]), 1e-12) for name in slow)
    bootstrap = _plain_bootstrap(log, target, predicted, len(found))

    ours = spent["estimates and intervals"]
    print(
        f"{m:,} slates of {slots} ({m * slots:,} slots), {len(found)} estimators with intervals, one thread"
    )
    for name, seconds in spent.items():
        print(f"{name:<44}{seconds:>10.2f} s")
    print(f"{'loop twin, values alone, scaled up':<44}{loop:>10.1f} s   {loop / ours:>8.1f} ×")
    print(f"{'plain bootstrap, scaled up':<44}{bootstrap:>10.1f} s   {bootstrap / ours:>8.1f} ×")
    print(f"largest relative difference to the twin on {few} slates: {worst:.1e}")
    print(
        "  ".join(
            f"{name} {found[name].value:.5f} [{found[name].low:.5f}, {found[name].high:.5f}]"
            for name in FAST
        )
    )
    data = f"{m} slates of {slots}"
    return [
        *(_row(data, name, "seconds", seconds) for name, seconds in spent.items()),
        _row(data, "loop twin / ours", "ratio", loop / ours),
        _row(data, "(loop twin + plain bootstrap) / ours", "ratio", (loop + bootstrap) / ours),
        _row(data, "against the loop twin", "largest relative difference", worst),
    ]


def _large(
    m: int, slots: int, pool: int
) -> tuple[ope.SlateLog, ope.Propensities, ope.Predictions, dict[str, float]]:
    """Draw a large log, near enough to its target that slate weights live; time what must come before estimates."""
    rng, spent = np.random.default_rng(0), {}
    items = slate_worlds.draw_ranks(m, slots, pool, 0.8, rng)
    order = np.concatenate([[1, 0], np.arange(2, pool)])
    clicks = (rng.random(items.shape) < 0.4 - 0.015 * items).astype(np.float64)
    ranks, judged, group = (
        order[items],
        rng.random(items.shape) < 0.9,
        rng.integers(0, max(1, m // 3), m),
    )
    start = time.process_time()
    logged = ope.sequential_propensities(items, slots, pool, 0.8)
    target = ope.sequential_propensities(ranks, slots, pool, 0.7)
    spent["propensities of both policies"] = time.process_time() - start
    start = time.process_time()
    model = ope.fit(clicks, judged, items, group, pool, np.ones(m), rng)
    predicted = model.predictions(
        items, np.tile(np.argsort(order), (m, 1)), ranks, np.full(m, pool), 0.7
    )
    spent["cross-fitted model and its predictions"] = time.process_time() - start
    return ope.SlateLog(clicks, judged, group, logged, np.ones(m)), target, predicted, spent


def _plain_bootstrap(
    log: ope.SlateLog, target: ope.Propensities, predicted: ope.Predictions, many: int
) -> float:
    """Return the seconds of 2,000 resamples of decisions by index for so many estimators, from 2 resamples of one."""
    rng, m = np.random.default_rng(0), len(log.reward)
    weight = ope.importance_weights(log.logged, target)["IIPS"]
    terms = (
        estimators.doubly_robust(weight, log.reward, predicted.shown, predicted.expected)
        * log.judged
    ).sum(axis=1)
    shown = log.judged.sum(axis=1)
    start = time.process_time()
    for _ in range(2):
        again = rng.integers(m, size=m)
        terms[again].sum() / shown[again].sum()
    return (time.process_time() - start) * 1000 * many
