"""Ranking quality of the policy on real data, beside tuned baselines under one protocol.

Every baseline tries at most 12 settings on the inner validation window and keeps the best by
nDCG@10 of its users (of 5,000 where there are more); trained again on all data before the test
window, it is measured there once. Intervals are
paired percentile bootstraps over users; the values of a model that draws are averaged over several
seeds. The best baseline of a view is the one with the highest value *in the test*, the hardest to
beat. `bench.ranking.protocols` defines the protocols.

    python -m bench quality [--data PATH] [--seeds 5] [--models NAME ...] [--sasrec] [--landing]
                            [--set online_retail|online_retail_span|beauty|ml-100k]
    python -m bench quality --defaults [--seeds 3] [--models NAME ...] [--set NAME]

`--defaults` runs the product's default path, without a flag, on every data set of
`bench.ranking.by_default`, or on one; the baselines are tuned as ever.

`--landing` fits published settings instead and prints measured beside published figures: where they
differ, the protocol is wrong. Progress and tables go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import sasrec
from bench.ranking import by_default, data, ours, ours_on_device
from bench.ranking.baselines import EASE, Blend, ItemKNN, Popular, RecentPopular
from bench.ranking.candidates import BASELINES, Candidate
from bench.ranking.protocols import DEPTH, Benchmark, K, Model, Task, read, slates
from sanderling_trainer.evaluation import metrics
from sanderling_trainer.evaluation.intervals import mean, ratio_difference

OURS = {**ours.MODELS, **ours_on_device.MODELS}

# data set, model, and what was published of it: nDCG@10, Recall@10 and HR@10 (Online Retail) or
# HR@10 alone
LANDING: list[tuple[str, Model, dict[str, float]]] = [
    ("online_retail", RecentPopular(14), {"ndcg@10": 0.1041, "recall@10": 0.0641}),
    ("online_retail", EASE(500), {"ndcg@10": 0.0970, "recall@10": 0.0682}),
    (
        "online_retail",
        Blend(200, 7, 1.0, damped=True),
        {"ndcg@10": 0.1115, "recall@10": 0.0759, "hit_rate@10": 0.498},
    ),
    ("beauty", ItemKNN(100_000, 10.0), {"ndcg@10": 0.0280, "hit_rate@10": 0.0474}),
    ("ml-100k", Popular(), {"ndcg@10": 0.0441, "hit_rate@10": 0.0862}),
]

TUNE_USERS = 5_000
"""Settings are chosen by so many users at most: 40,000 of them times 54,000 items take a minute."""

PerUser = dict[str, NDArray[np.float64]]
Judged = tuple[dict[str, PerUser], dict[str, float]]


@dataclass(frozen=True)
class Result:
    """A model's metrics per user and its coverage in each view of the report, averaged
    over `seeds` seeds.
    """

    views: Mapping[str, PerUser]
    coverage: Mapping[str, float]
    seeds: int


def run(arguments: list[str]) -> dict[str, Any]:
    """Return `rows`, the `trials` of all tuning, and the `settings` that were kept."""
    chosen = _parser().parse_args(arguments)
    if chosen.landing:
        return {"rows": landing(chosen)}
    root = data.folder(chosen.data)
    if chosen.defaults:
        names = [chosen.set] if chosen.set in by_default.SETS else list(by_default.SETS)
        parts = [
            compare(by_default.SETS[name](root), by_default.CANDIDATES, {by_default.OURS}, chosen)
            for name in names
        ]
        return {key: [one for part in parts for one in part[key]] for key in ("rows", "trials")}
    return compare(read(chosen.set, root), {**BASELINES, **OURS}, set(OURS), chosen)


def compare(
    benchmark: Benchmark,
    candidates: Mapping[str, Candidate],
    ours: set[str],
    chosen: argparse.Namespace,
) -> dict[str, Any]:
    """Return `rows`, `trials` and `settings` of the chosen models on one benchmark."""
    if unknown := set(chosen.models) - set(candidates):
        raise SystemExit(
            f"expected models of {', '.join(candidates)}, found {', '.join(sorted(unknown))}"
        )
    results, trials, settings = {}, [], {}
    for name, candidate in candidates.items():
        if candidate.suits(benchmark) and (not chosen.models or name in chosen.models):
            if candidate.like is None:
                tried, settings[name] = tune(name, candidate, benchmark.tune)
                trials += tried
            else:
                settings[name] = settings[candidate.like]
            results[name] = measure(name, candidate, settings[name], benchmark.report, chosen.seeds)
    if chosen.sasrec:
        results["SASRec"], settings["SASRec"] = stored(benchmark)
    rows = list(table(benchmark, results, ours))
    return {"rows": rows, "settings": settings, "trials": trials}


def tune(
    name: str, candidate: Candidate, task: Task
) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Return all trials, and the settings with the highest nDCG in the task's main view,
    the earlier if equal.
    """
    if len(candidate.settings) == 1:
        return [], candidate.settings[0]
    task = _for_tuning(task)
    trials: list[dict[str, Any]] = []
    for settings in candidate.settings:
        start = time.perf_counter()
        model = candidate.build(**settings)
        model.fit(task.train, 0)
        value = float(judge(slates(model, task), task)[0][task.main.name][f"ndcg@{K}"].mean())
        trials.append({"model": name, "settings": dict(settings), "value": value})
        _print_progress(
            f"  {name} {settings}: validation ndcg@{K} {value:.4f}"
            f" ({time.perf_counter() - start:.1f} s)"
        )
    return trials, candidate.settings[int(np.argmax([trial["value"] for trial in trials]))]


def _for_tuning(task: Task) -> Task:
    """Return the task with its main view alone, and of that at most `TUNE_USERS` users."""
    view = task.main
    if len(view.users) <= TUNE_USERS:
        return replace(task, views=[view])
    kept = np.random.default_rng(0).choice(len(view.users), TUNE_USERS, replace=False)
    kept.sort()
    users = view.users[kept]
    queries = replace(
        task.queries,
        user=task.queries.user[users],
        items=[task.queries.items[at] for at in users],
        times=[task.queries.times[at] for at in users],
        now=task.queries.now[users],
    )
    relevant = [view.relevant[at] for at in kept]
    asked = replace(view, users=np.arange(TUNE_USERS), relevant=relevant)
    return replace(task, queries=queries, views=[asked])


def measure(
    name: str, candidate: Candidate, settings: Mapping[str, Any], task: Task, seeds: int
) -> Result:
    """Return what a model with these settings reaches on a task, averaged over seeds
    where they change it.
    """
    start, runs = time.perf_counter(), []
    for seed in range(seeds if candidate.seeded else 1):
        model = candidate.build(**settings)
        model.fit(task.train, seed)
        runs.append(judge(slates(model, task), task))
    result = average(runs)
    value = result.views[task.main.name][f"ndcg@{K}"].mean()
    _print_progress(
        f"{name} {dict(settings)}: ndcg@{K} {value:.4f}"
        f" ({len(runs)} seeds, {time.perf_counter() - start:.1f} s)"
    )
    return result


def stored(benchmark: Benchmark) -> tuple[Result, Mapping[str, Any]]:
    """Return what SASRec's slates reach that `bench.sasrec` left, and its settings."""
    left = sasrec.HOME / f"{benchmark.name}.npz"
    if not left.exists():
        raise SystemExit(
            f"expected SASRec's slates at {left}:"
            f" run `python -m bench sasrec --set {benchmark.name}`"
        )
    with np.load(left) as file:
        found = dict(file)
    settings = json.loads(str(found.pop("settings")))
    seeds = len(next(iter(found.values())))
    runs = [{view: rows[seed] for view, rows in found.items()} for seed in range(seeds)]
    return average([judge(run, benchmark.report) for run in runs]), settings


def judge(found: Mapping[str, NDArray[np.int64]], task: Task) -> Judged:
    """Return the metrics per user and the coverage of slates int64 [v, DEPTH] in
    each view of a task.
    """
    counts = np.bincount(task.train.item, minlength=len(task.queries.texts)) + 1.0
    chance = counts / counts.sum()
    views, coverage = {}, {}
    for view in task.views:
        lists = [[row for row in slate if row >= 0] for slate in found[view.name].tolist()]
        views[view.name] = metrics.per_user(lists, view.relevant, K, DEPTH)
        views[view.name][f"novelty@{K}"] = np.array(
            [metrics.novelty(slate[:K], chance) for slate in lists]
        )
        coverage[view.name] = len({row for slate in lists for row in slate[:K]}) / int(
            view.candidates.sum()
        )
    return views, coverage


def average(runs: Sequence[Judged]) -> Result:
    """Return the mean over seeds of each user's metrics and of the coverage."""
    first, shown = runs[0]
    views = {
        view: {
            metric: np.mean([found[view][metric] for found, _ in runs], axis=0) for metric in users
        }
        for view, users in first.items()
    }
    return Result(
        views, {view: float(np.mean([each[view] for _, each in runs])) for view in shown}, len(runs)
    )


def table(
    benchmark: Benchmark, results: Mapping[str, Result], ours: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of every view, best first, each model's metrics and then its differences to
    the best baseline.
    """
    for view in benchmark.report.views:
        users = {name: result.views[view.name] for name, result in results.items()}
        order = sorted(users, key=lambda name: -users[name][f"ndcg@{K}"].mean())
        best = next((name for name in order if name not in ours), order[0])
        _print_progress(
            f"\n{benchmark.name}: {view.name}; {len(view.users)} users,"
            f" {int(view.candidates.sum())} items"
        )
        for name in order:
            rows = list(
                _rows(
                    f"{benchmark.name}: {view.name}",
                    name,
                    results[name],
                    view.name,
                    (best, users[best]),
                )
            )
            _print_progress(f"  {name:<24}" + _line(rows))
            yield from rows


def landing(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Return measured and published values of the data set's published figures, each model with
    settings as given.
    """
    report = read(chosen.set, data.folder(chosen.data)).report
    task, rows = replace(report, views=[report.main]), []
    for name, model, published in LANDING:
        if name == chosen.set:
            model.fit(task.train, 0)
            found = judge(slates(model, task), task)[0][task.main.name]
            for metric, value in published.items():
                rows.append(
                    {
                        "data": name,
                        "model": model.name,
                        "metric": metric,
                        "value": float(found[metric].mean()),
                    }
                )
                rows[-1]["published"] = value
                _print_progress(
                    f"{name} {model.name} {metric}: {rows[-1]['value']:.4f}, published {value:.4f}"
                )
    return rows


def _rows(
    label: str, name: str, result: Result, view: str, best: tuple[str, PerUser]
) -> Iterator[dict[str, Any]]:
    head = {"data": label, "model": name}
    peer, theirs = best
    for metric, values in result.views[view].items():
        interval = mean(values, np.random.default_rng(0)).as_dict()
        yield {**head, "metric": metric, **interval, "seeds": result.seeds}
    shown = result.coverage[view]
    yield {
        **head,
        "metric": f"coverage@{K}",
        "value": shown,
        "low": None,
        "high": None,
        "seeds": result.seeds,
    }
    for metric in (f"ndcg@{K}", f"recall@{K}", f"hit_rate@{K}") if name != peer else ():
        ones = np.ones(len(theirs[metric]))
        mine = result.views[view][metric]
        apart = ratio_difference(
            (mine, ones), (theirs[metric], ones), np.random.default_rng(0)
        ).as_dict()
        yield {
            **head,
            "metric": f"{metric} difference to the best baseline, {peer}",
            **apart,
            "seeds": result.seeds,
        }


def _line(rows: list[dict[str, Any]]) -> str:
    parts = []
    for row in rows:
        main, apart = row["metric"].startswith(f"ndcg@{K}"), "difference" in row["metric"]
        label = "difference" if apart else row["metric"]
        if main:
            parts.append(f"{label} {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]")
        elif not apart:
            parts.append(f"{label} {row['value']:.4f}")
    return "  ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench quality")
    parser.add_argument("--data")
    parser.add_argument("--set", default="online_retail")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--sasrec", action="store_true")
    parser.add_argument("--landing", action="store_true")
    parser.add_argument("--defaults", action="store_true")
    return parser


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
