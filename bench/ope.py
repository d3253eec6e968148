"""Off-policy estimators: bias, coverage of their intervals, and speed.

Limits: an estimate is a mean of weighted clicks, so a 95 % interval should hold the truth in 95 %
of logs, not more and not less. A pass over m slates of K slots must read at least reward, mask and
six propensities once, 50 bytes a slot. The reference is the same estimators as Python loops
(`bench/estimation/loops.py`), to which the tests hold them equal, and for intervals the simplest
bootstrap in numpy: draw m decisions by index, divide, 2,000 times.

Protocol:
- truth: simulated logs of 6 items and 3 slots (`bench/estimation/slate_simulator.py`) under four
  click models, the truth enumerated; mean bias over 200 logs of 2,000 slates, in standard errors
  of that mean. Within 3 counts as unbiased, beyond 3 as detectably biased.
- coverage: 1,000 logs of 2,000 slates by 500 installs with independent clicks, which every
  estimator may assume; an estimate that is refused on a log is not counted there, and the share of
  refusals is given.
- bandit: the men's campaign of the Open Bandit Dataset (Saito et al. 2021), item x position as the
  action.
- speed: processor seconds of one thread at 10^6 slates of K = 10 (10^7 slots); the loops on 2,000
  slates and the bootstrap on 2 of its 2,000 resamples, both scaled up.

    python -m bench ope [--data PATH] [--logs 1000] [--slates 1000000]
        [truth|coverage|bandit|speed ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.estimation import open_bandit, slate_simulator
from bench.estimation.loops import naive_estimates
from bench.estimation.rows import Row, row
from bench.ranking.data import folder
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.aggregation import take_rows

SLATES = 2000
MAX_TRUTH_LOGS = 200
PRINTED = ("SN-IIPS", "DR", "SN-RIPS", "Cascade-DR")
INTERVALS = ("bootstrap", "bernstein", "betting")


def run(arguments: list[str]) -> dict[str, Any]:
    """Run the parts that are named, all by default, and return their rows."""
    parser = argparse.ArgumentParser(prog="python -m bench ope")
    parser.add_argument(
        "parts", nargs="*", default=[], choices=["truth", "coverage", "bandit", "speed", []]
    )
    parser.add_argument("--data")
    parser.add_argument("--logs", type=int, default=1000)
    parser.add_argument("--slates", type=int, default=10**6)
    options = parser.parse_args(arguments)
    parts = {
        "truth": lambda: _truth(min(MAX_TRUTH_LOGS, options.logs)),
        "coverage": lambda: _coverage(options.logs),
        "bandit": lambda: open_bandit.run(folder(options.data) / "open_bandit"),
        "speed": lambda: _speed(options.slates),
    }
    rows: list[Row] = []
    for name, part in parts.items():
        if options.parts and name not in options.parts:
            continue
        start = time.perf_counter()
        rows += part()
        print(f"({name} took {time.perf_counter() - start:.0f} s)\n", flush=True)
    return {"rows": rows}


def _truth(logs: int) -> list[Row]:
    """Return each estimator's bias under each of the four click models."""
    biases: dict[str, dict[str, tuple[float, float]]] = {}
    for clicks in slate_simulator.CLICK_MODELS:
        values: dict[str, list[float]] = {}
        for seed in range(logs):
            sample = slate_simulator.draw_log(clicks, SLATES, seed, group=np.arange(SLATES) // 20)
            for name, estimate in slate_simulator.estimates_of(sample, seed).items():
                values.setdefault(name, []).append(estimate.value)
        for name, column in values.items():
            bias = float(np.mean(column) - slate_simulator.true_value(clicks))
            error = float(np.std(column, ddof=1) / len(column) ** 0.5)
            biases.setdefault(name, {})[clicks] = bias, error

    print(
        f"bias in standard errors ({logs} logs of {SLATES} slates; * beyond 3),"
        " and in percent of the truth"
    )
    print(f"{'':<20}" + "".join(f"{clicks:>24}" for clicks in slate_simulator.CLICK_MODELS))
    for name, by_clicks in biases.items():
        cells = []
        for clicks, (bias, error) in by_clicks.items():
            mark = "*" if abs(bias) > 3 * error else " "
            percent = 100 * bias / slate_simulator.true_value(clicks)
            cells.append(f"{bias / error:>12.1f}{mark}{percent:>+9.2f} %")
        print(f"{name:<20}" + "".join(cells))
    return [
        row(clicks, name, "bias", bias, bias - 1.96 * error, bias + 1.96 * error, logs)
        | {"standard_errors": bias / error}
        for name, by_clicks in biases.items()
        for clicks, (bias, error) in by_clicks.items()
    ]


def _coverage(logs: int) -> list[Row]:
    """Return the share of logs whose intervals hold the truth, and the intervals' mean width."""
    truth = slate_simulator.true_value("independent")
    bounds = ope.max_weights(
        slate_simulator.SLOTS,
        (slate_simulator.POOL, slate_simulator.LOGGING),
        (slate_simulator.POOL, slate_simulator.TARGET),
    )
    results: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    refused: dict[str, int] = {}
    for seed in range(logs):
        sample = slate_simulator.draw_log(
            "independent", SLATES, 10_000 + seed, group=np.arange(SLATES) // 4
        )
        estimates = slate_simulator.estimates_of(sample, seed, max_weights=bounds)
        for name, estimate in estimates.items():
            refused[name] = refused.get(name, 0) + (estimate.refused is not None)
            if estimate.refused is not None or name == "observed":
                continue
            intervals = (estimate, estimate.bernstein, estimate.betting)
            for kind, interval in zip(INTERVALS, intervals, strict=True):
                if interval is not None:
                    covers = interval.low <= truth <= interval.high
                    width = interval.high - interval.low
                    results.setdefault((name, kind), []).append((covers, width))

    print(
        f"share of {logs} logs of {SLATES} slates whose 95 % interval holds the truth (mean width)"
    )
    print(f"{'':<20}" + "".join(f"{kind:>20}" for kind in INTERVALS) + f"{'refused':>10}")
    for name, count in refused.items():
        cells = [_covered(results.get((name, kind), [])) for kind in INTERVALS]
        print(f"{name:<20}" + "".join(f"{cell:>20}" for cell in cells) + f"{count / logs:>10.1%}")
    rows = []
    for (name, kind), result in results.items():
        share = float(np.mean([covers for covers, _ in result]))
        error = 1.96 * (share * (1 - share) / len(result)) ** 0.5
        coverage = row(
            "independent",
            name,
            f"coverage, {kind}",
            share,
            share - error,
            share + error,
            len(result),
        )
        width = float(np.mean([width for _, width in result]))
        rows.append(coverage | {"width": width, "refused": refused[name] / logs})
    return rows


def _covered(result: Sequence[tuple[bool, float]]) -> str:
    if not result:
        return "–"
    share = np.mean([covers for covers, _ in result])
    return f"{share:.3f} ({np.mean([width for _, width in result]):.3f})"


def _speed(m: int) -> list[Row]:
    """Return seconds on one thread, and how many times longer the plain computations take."""
    slots = 10
    log, target, predicted, seconds = _large_log(m, slots, pool=20)
    start = time.process_time()
    estimates = {
        estimate.estimator: estimate
        for estimate in ope.estimate_all(log, target, np.random.default_rng(0), predicted=predicted)
    }
    ours = time.process_time() - start
    seconds["estimates and intervals"] = ours

    few = min(m, 2000)
    small = tuple(take_rows(part, slice(few)) for part in (log, target, predicted))
    start = time.process_time()
    looped = naive_estimates(*small, estimators.WEIGHT_CAP)
    loops = (time.process_time() - start) * m / few
    worst = _worst_difference(small, looped)
    bootstrap = _plain_bootstrap(log, target, predicted, len(estimates))

    print(
        f"{m:,} slates of {slots} ({m * slots:,} slots), {len(estimates)} estimators with"
        " intervals, one thread"
    )
    for name, spent in seconds.items():
        print(f"{name:<44}{spent:>10.2f} s")
    print(f"{'loops, values alone, scaled up':<44}{loops:>10.1f} s   {loops / ours:>8.1f} ×")
    print(f"{'plain bootstrap, scaled up':<44}{bootstrap:>10.1f} s   {bootstrap / ours:>8.1f} ×")
    print(f"largest relative difference to the loops on {few} slates: {worst:.1e}")
    for name in PRINTED:
        estimate = estimates[name]
        print(f"{name} {estimate.value:.5f} [{estimate.low:.5f}, {estimate.high:.5f}]")
    data = f"{m} slates of {slots}"
    return [
        *(row(data, name, "seconds", spent) for name, spent in seconds.items()),
        row(data, "loops / ours", "ratio", loops / ours),
        row(data, "(loops + plain bootstrap) / ours", "ratio", (loops + bootstrap) / ours),
        row(data, "against the loops", "largest relative difference", worst),
    ]


def _worst_difference(small: tuple[Any, ...], looped: dict[str, float]) -> float:
    """Return the largest relative difference between our estimates and those of the loops."""
    log, target, predicted = small
    estimates = ope.estimate_all(log, target, np.random.default_rng(0), predicted=predicted)
    return max(
        abs(estimate.value - looped[estimate.estimator])
        / max(abs(looped[estimate.estimator]), 1e-12)
        for estimate in estimates
    )


def _large_log(
    m: int, slots: int, pool: int
) -> tuple[ope.SlateLog, ope.Propensities, ope.Predictions, dict[str, float]]:
    """Draw a large log and return it with target, predictions and the seconds that those took.

    The target is so close to the logging policy that weights of whole slates are usable.
    """
    rng = np.random.default_rng(0)
    seconds = {}
    items = slate_simulator.draw_ranks(m, slots, pool, 0.8, rng)
    order = np.concatenate([[1, 0], np.arange(2, pool)])
    clicks = (rng.random(items.shape) < 0.4 - 0.015 * items).astype(np.float64)
    ranks = order[items]
    judged = rng.random(items.shape) < 0.9
    group = rng.integers(0, max(1, m // 3), m)

    start = time.process_time()
    logged = ope.sequential_propensities(items, slots, pool, 0.8)
    target = ope.sequential_propensities(ranks, slots, pool, 0.7)
    seconds["propensities of both policies"] = time.process_time() - start

    start = time.process_time()
    examples = ope.RewardExamples(clicks, judged, items, group, np.ones(m))
    model = ope.fit_reward_model(examples, pool, rng)
    pool_items = np.tile(np.argsort(order), (m, 1))
    predicted = model.predict(items, pool_items, ranks, np.full(m, pool), 0.7)
    seconds["cross-fitted model and its predictions"] = time.process_time() - start
    return ope.SlateLog(clicks, judged, group, logged, np.ones(m)), target, predicted, seconds


def _plain_bootstrap(
    log: ope.SlateLog, target: ope.Propensities, predicted: ope.Predictions, n_estimators: int
) -> float:
    """Return the seconds of 2,000 resamples by index for so many estimators, from 2 of one."""
    rng = np.random.default_rng(0)
    m = len(log.reward)
    weight = ope.importance_weights(log.logged, target)["IIPS"]
    contribution = estimators.doubly_robust(weight, log.reward, predicted.shown, predicted.expected)
    total = (contribution * log.judged).sum(axis=1)
    shown = log.judged.sum(axis=1)
    start = time.process_time()
    for _ in range(2):
        drawn = rng.integers(m, size=m)
        total[drawn].sum() / shown[drawn].sum()
    return (time.process_time() - start) * 1000 * n_estimators
