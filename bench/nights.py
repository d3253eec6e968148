"""Fourteen nights of retraining in a world with a known truth: does the loop learn?

A population is fitted to a real log (`evaluation.simulators.population`): tastes and popularity
drift, items are born every night. Every arm goes through the same nights with users of its own:
three slates a user and night, clicks drawn from the truth, some events without a slate, then the
arm learns and its next release decides. The policy's network, catalog, newcomers' quota, popularity
and learner are the product's own; devices, wire and int8 are left out (`make demo` has them).

    never retrained          the first release decides to the end
    naive refit              a new network every night, fitted to all events, clicks like any other
    ours                     what `sanderling retrain` does; a candidate that the gate holds does
                             not ship, one for a canary ships to all
    ours without gate        the same, and every candidate ships
    ours without exploration without gate too, with ε = 0
    ours, clicks as events   without correction for what was shown: clicks are events like others
    policy gradient          the other learner of the product
    best in class            the same network fitted to the true click probabilities

A value is the expected clicks of a release's slates without exploration, as a share of what the
truth itself would get from the same users. The gap closed is (ours - never retrained) / (best in
class - never retrained).

    python -m bench nights [--set online_retail|ml-100k] [--seeds 5] [--nights 14] [--arms NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.nightly.fleet import Fleet, Night
from bench.nightly.learners import ARMS, first_release, next_release
from bench.ranking import data
from sanderling.bundle.manifest import Exploration
from sanderling_trainer.evaluation.simulators.population import PopulationSettings, fit_population
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel

LOGS = {"online_retail": data.online_retail, "ml-100k": data.movielens}
CONFIGS = {
    "online_retail": {"visit_hours": 6, "horizon_days": 14, "dropout": 0.4, "epochs": 4},
    "ml-100k": {"epochs": 6},
}
MARGIN = 0.05

Floats = NDArray[np.float64]


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the rows: each arm's share of the best possible by night, and the figures asked."""
    parser = argparse.ArgumentParser(prog="bench nights")
    parser.add_argument("--data")
    parser.add_argument("--set", default="online_retail", choices=LOGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--nights", type=int, default=14)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="NAME")
    chosen = parser.parse_args(arguments)

    log = LOGS[chosen.set](data.folder(chosen.data))
    settings = PopulationSettings(nights=chosen.nights)
    found: dict[str, list[list[Night]]] = {name: [] for name in chosen.arms}
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in chosen.arms}
    for seed in range(chosen.seeds):
        rng = np.random.default_rng(seed)
        people = fit_population(log.user, log.item, log.time, log.texts, settings, rng)
        text = LanguageModel().encode(list(people.texts))
        config = Config(seed=seed, learning_rate=1.5e-3, **CONFIGS[chosen.set])
        first = first_release(people, text, config, Fleet(people, seed))
        for name in chosen.arms:
            start = time.perf_counter()
            arm = ARMS[name]
            plan = Exploration(
                epsilon=config.epsilon if arm.explores else 0.0,
                pool=config.pool,
                newcomers=config.newcomers,
            )
            fleet, release = Fleet(people, seed), first
            nights = []
            verdict = ""
            for night in range(chosen.nights):
                nights.append(fleet.night(night, release, plan))
                if arm.learner is not None and night + 1 < chosen.nights:
                    outcome = next_release(release, fleet, text, night, arm)
                    release, verdict = outcome.release, outcome.verdict
                    verdicts[name][verdict] += 1
                _print_progress(f"seed {seed} {name:<26}night {night:2}", nights[-1], verdict)
            found[name].append(nights)
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    counts = {name: dict(counter) for name, counter in verdicts.items()}
    return {"set": chosen.set, "rows": rows(found), "verdicts": counts}


def rows(found: dict[str, list[list[Night]]]) -> list[dict[str, Any]]:
    """Return each arm's mean share by night, then the figures that need several arms."""
    shares = {
        name: _column(seeds, "greedy") / _column(seeds, "best") for name, seeds in found.items()
    }
    result: list[dict[str, Any]] = []
    for name, seeds in found.items():
        slots = _column(seeds, "newcomer_slots").mean()
        wanted = _column(seeds, "newcomer_best").mean()
        result.append(
            {
                "arm": name,
                "share_by_night": shares[name].mean(axis=0).round(4).tolist(),
                "shown_by_night": (_column(seeds, "value") / _column(seeds, "best"))
                .mean(axis=0)
                .round(4)
                .tolist(),
                "newcomers": float(slots / wanted) if wanted else None,
                "worse_nights": _worse_nights(shares[name]),
            }
        )
    if {"ours", "never retrained", "best in class"} <= shares.keys():
        result += [_gap(shares, after) for after in (7, 14) if after <= shares["ours"].shape[1]]
    if {"ours", "naive refit"} <= shares.keys():
        result.append(_against(shares["ours"], shares["naive refit"]))
    return result


def _column(seeds: list[list[Night]], name: str) -> Floats:
    return np.array([[getattr(night, name) for night in nights] for nights in seeds])


def _worse_nights(share: Floats) -> float:
    """Return the share of nights on which a release was worse than the one before by the margin."""
    change = share[:, 1:] / share[:, :-1] - 1.0
    return float((change < -MARGIN).mean())


def _gap(shares: dict[str, Floats], after: int) -> dict[str, Any]:
    ours, never, best = (
        shares[name][:, after - 1] for name in ("ours", "never retrained", "best in class")
    )
    return {
        "figure": f"gap closed after {after} nights",
        "value": float((ours - never).mean() / (best - never).mean()),
    }


def _against(ours: Floats, refit: Floats) -> dict[str, Any]:
    """Return the mean difference after the first night, with a bootstrap interval over seeds."""
    change = (ours - refit)[:, 1:].mean(axis=1)
    draws = np.random.default_rng(0).choice(change, (2000, len(change))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    figure = "ours minus naive refit, share of the best possible"
    return {"figure": figure, "value": float(change.mean()), "low": float(low), "high": float(high)}


def _print_progress(label: str, found: Night, verdict: str) -> None:
    line = (
        f"{label}  greedy {found.greedy / found.best:.3f}  shown {found.value / found.best:.3f}"
        f"  newcomers {found.newcomer_slots:.3f} of {found.newcomer_best:.3f}  {verdict}"
    )
    print(line, file=sys.stderr, flush=True)
