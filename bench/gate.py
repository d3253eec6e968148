"""The release gate on simulated nights with known truth: how often it ships, tries and holds.

Worlds: 400 users of 400 installs with tastes of 16 factors over 2,000 items whose popularity has
long tails; slates of ten by scheme `sequential` (ε .1, pool 50) from an active policy that knows
the true clicks up to noise; clicks are independent, or follow the position-based model with
examination 1 / k^.6, or a model that the gate does not assume: users who leave after a click with
probability 1/2 (cascade). Each night logs 20,000 decisions of the active policy, and candidates
are its scores moved towards the truth or away from it until their true click rate, computed in
closed form, is 5 to 10 % higher or lower. Half of them differ from the active policy by user,
half by item. The candidates are judged as the product does it, from decisions to verdict.

    python -m bench gate [--nights 200] [--decisions 20000] [--seed 0] [--worlds NAME ...]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from bench.gating import worlds
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.paired_difference import FAMILIES

KINDS = ("better", "worse", "equal", "identical")
ACTIVE = ope.ActivePolicy(1, worlds.POOL, worlds.EPSILON)


def run(arguments: list[str]) -> dict[str, Any]:
    """Judge every kind of candidate in every world; print and return shares of verdicts."""
    parser = argparse.ArgumentParser(prog="python -m bench gate")
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", nargs="*", default=list(worlds.NAMES))
    options = parser.parse_args(arguments)

    rows = []
    for name in options.worlds:
        start = time.perf_counter()
        nights: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for night in range(options.nights):
            rng = np.random.default_rng([options.seed, night])
            world = worlds.make(name, rng)
            log = worlds.draw_decisions(world, options.decisions, rng)
            decisions, slates, _ = ope.usable(log, ACTIVE)
            change = worlds.CHANGES[night % len(worlds.CHANGES)]
            for kind in KINDS if night % 10 == 0 else KINDS[:3]:
                scores, truth = worlds.candidate(world, kind, change, rng)
                orders = worlds.orders(world, scores, decisions)
                nights[kind].append({"truth": truth, **_judge(slates, orders, truth, rng)})
        rows += [
            {"world": name, "candidate": kind, **_row(results)} for kind, results in nights.items()
        ]
        print(f"({name} took {time.perf_counter() - start:.0f} s)", flush=True)
    _print(rows)
    return {"rows": rows}


def _judge(
    slates: ope.Slates, orders: ope.Orders, truth: float, rng: np.random.Generator
) -> dict[str, Any]:
    decisions = len(slates.items)
    judged = ope.judge(slates, orders, worlds.ITEMS, rng)
    verdict = ope.gate(judged.sums, decisions)
    change_of = {
        family: ope.relative_difference(judged.sums, family, decisions) for family in FAMILIES
    }
    primary = change_of["PBM"]
    return {
        "verdict": verdict.verdict,
        "unsound": not verdict.is_sound,
        "reasons": verdict.reasons,
        "better": primary.low - 2.33 * primary.error > 0.0,
        "within": primary.low - 1.96 * primary.error
        <= truth
        <= primary.high + 1.96 * primary.error,
        "error": primary.error,
        "width": primary.high - primary.low,
        "ess": primary.ess,
        "unsupported": float(judged.sums.unsupported_slots.sum() / judged.sums.examined.sum()),
        **{family: each.value - truth for family, each in change_of.items()},
    }


def _row(results: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return float(np.mean([result[name] for result in results]))

    shares = {
        verdict: float(np.mean([result["verdict"] == verdict for result in results]))
        for verdict in (ope.SHIP, ope.CANARY, ope.HOLD)
    }
    names = ("truth", "unsound", "better", "within", "error", "width", "ess", "unsupported")
    bias = {f"bias_{family}": mean(family) for family in FAMILIES[:3]}
    spread = {
        f"deviation_{family}": float(np.std([result[family] for result in results]))
        for family in FAMILIES[:3]
    }
    means = {name: mean(name) for name in names}
    return {"nights": len(results), **shares, **means, **bias, **spread}


def _print(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'world':<12}{'candidate':<11}{'truth':>7}{'ship':>7}{'canary':>8}{'hold':>7}"
        f"{'unsound':>9}{'better':>8}{'in 95 %':>9}{'error':>7}{'unsup.':>8}{'width':>7}{'ess':>7}"
        "   bias/sd: PBM, inclusion, IIPS"
    )
    for row in rows:
        biases = ", ".join(
            f"{100 * row[f'bias_{family}']:+.1f}/{100 * row[f'deviation_{family}']:.1f}"
            for family in FAMILIES[:3]
        )
        print(
            f"{row['world']:<12}{row['candidate']:<11}{100 * row['truth']:>+6.1f} "
            f"{100 * row['ship']:>6.1f}{100 * row['canary']:>8.1f}{100 * row['hold']:>7.1f}"
            f"{100 * row['unsound']:>9.1f}{100 * row['better']:>8.1f}{100 * row['within']:>9.1f}"
            f"{100 * row['error']:>7.2f}{100 * row['unsupported']:>8.2f}{100 * row['width']:>7.2f}"
            f"{row['ess']:>7.0f}   {biases}"
        )
