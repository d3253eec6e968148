"""Films: what to watch next, page after page, and what more variety costs.

Hides each user's last ten ratings of MovieLens-100K, tunes baselines on the ten before, and
compares them with two pages that an engine serves from the bundle. README.md has the results.

    python examples/films/films.py [--small] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.paired import interval
from sanderling import Engine
from sanderling_quantize import quantize
from sanderling_trainer import train
from sanderling_trainer.data import movielens
from sanderling_trainer.evaluation import metrics
from sanderling_trainer.evaluation.inner_windows import best_rows
from sanderling_trainer.evaluation.peers import BLEND, GRIDS, FittedPeers

HIDDEN, PAGE = 10, 10
DIVERSITY = 0.0, 0.2, 0.4, 0.8
LATEST = 5, 10, 30, 1_000
WIDER = {
    "iALS": {"factors": (64,), "alpha": (0.3, 1.0, 3.0), "regularization": (0.003, 0.01, 0.03)},
    BLEND: {"regularization": (500.0, 1000.0, 2000.0), "days": (14,), "weight": (0.0, 0.5)},
}

Peer = tuple[str, int, dict]  # name, how many of the latest likes it knows, settings


class Films:
    """A log without each user's last ratings, and which films of these the user liked."""

    def __init__(self, log: pa.Table) -> None:
        later: Counter[str] = Counter()
        from_end = []
        for user in log["user_id"].to_pylist()[::-1]:
            from_end.append(later[user])
            later[user] += 1
        is_past = np.array(from_end[::-1]) >= HIDDEN
        self.past = log.filter(is_past)
        self.had: dict[str, list[tuple[str, str]]] = {}
        for row in self.past.select(["user_id", "item_id", "kind"]).to_pylist():
            self.had.setdefault(row["user_id"], []).append((row["item_id"], row["kind"]))
        self.wanted: dict[str, set[str]] = {}
        for row in log.filter(~is_past).filter(pc.field("reward") > 0).to_pylist():
            if row["user_id"] in self.had:
                self.wanted.setdefault(row["user_id"], set()).add(row["item_id"])

    def judge(self, lists: Iterable[Sequence[str]], k: int) -> dict[str, np.ndarray]:
        """Return nDCG and recall at k of each user's list of films."""
        found = metrics.per_user(list(lists), list(self.wanted.values()), k)
        return {"ndcg": found[f"ndcg@{k}"], "recall": found[f"recall@{k}"]}


def peers(films: Films, ids: list[str], chosen: Iterable[Peer]) -> Iterator[list[list[str]]]:
    """Yield the users' two pages, as one list each, by baselines that know their latest likes."""
    row = {item: at for at, item in enumerate(ids)}
    log = films.past.filter(pc.field("reward") > 0)
    rows = np.array([row[item] for item in log["item_id"].to_pylist()])
    likes = {
        user: np.array([row[item] for item, kind in had if kind == "like"], np.int64)
        for user, had in films.had.items()
    }
    fitted = FittedPeers(list(likes.values()), rows, log["timestamp"].to_numpy(), len(ids))
    asked = {latest: [likes[user][-latest:] for user in films.wanted] for latest in LATEST}
    for name, latest, settings in chosen:
        scores = fitted.scores(name, settings, asked[latest]).copy()
        for user, values in zip(films.wanted, scores, strict=True):
            values[[row[item] for item, _ in films.had[user]]] = -np.inf
        yield [[ids[at] for at in best_rows(values, 2 * PAGE)] for values in scores]


def pages(engine: Engine, films: Films, diversity: float) -> list[list[str]]:
    """Return the films on each user's first and second page."""
    found = []
    for user in films.wanted:
        rules: dict[str, Any] = {"exclude": [item for item, _ in films.had[user]]}
        rules |= {"diversity": diversity, "greedy": True}
        first = engine.recommend(user, PAGE, **rules)
        second = engine.recommend(user, PAGE, after=first, **rules)
        found.append([item.id for item in (*first, *second)])
    return found


def distance(films: Iterable[str], genres: dict[str, set[str]]) -> float:
    """Return the mean share of genres that two of the films have not in common."""
    pairs = itertools.combinations([genres[film] for film in films], 2)
    return float(np.mean([1.0 - len(a & b) / len(a | b) for a, b in pairs]))


def build(films: Films, items: pa.Table, out: Path) -> Path:
    """Return the bundle of a policy that is trained on a log."""
    log = films.past.drop_columns("context")
    schema = {"items": {"genres": {"type": "categories", "separator": " "}}}
    config = Path(__file__).with_name("train.toml")
    trained = train(log, out / "checkpoint", items, schema=schema, config=config)
    quantize(trained.checkpoint, out / "bundle", encoder="base")
    return out / "bundle"


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the users, 2 minutes")
    parser.add_argument("--out", type=Path, default=Path(tempfile.mkdtemp(prefix="films-")))
    chosen = parser.parse_args()
    items, log = map(pq.read_table, movielens.load())
    if chosen.small:
        log = log.filter(pc.ends_with(log["user_id"], "0"))
    ids = items["item_id"].to_pylist()
    genres = dict(zip(ids, (set(x.split()) for x in items["genres"].to_pylist()), strict=True))
    report = Films(log)
    tune = Films(report.past)

    grids = GRIDS | WIDER
    tried = [
        (name, latest, dict(zip(grids[name], values, strict=True)))
        for name, latest in itertools.product(grids, LATEST)
        for values in itertools.product(*grids[name].values())
    ]
    reached = [tune.judge(lists, 2 * PAGE)["ndcg"].mean() for lists in peers(tune, ids, tried)]
    tuned = {tried[at][0]: tried[at] for at in np.argsort(reached)}  # the best comes last
    lists = dict(zip(tuned, peers(report, ids, tuned.values()), strict=True))
    with Engine.open(build(report, items, chosen.out)) as engine:
        for user in report.wanted:
            for item, kind in report.had[user]:
                engine.observe(user, item, kind)
        served = {diversity: pages(engine, report, diversity) for diversity in DIVERSITY}
    lists["Sanderling"] = served[0.0]

    found = {name: report.judge(each, 2 * PAGE) for name, each in lists.items()}
    first = {name: report.judge([x[:PAGE] for x in each], PAGE) for name, each in lists.items()}
    best = max(tuned, key=lambda name: found[name]["ndcg"].mean())
    print(f"\n{len(report.wanted)} users: nDCG of both pages, its difference to the best baseline,")
    print("recall on page 1 and on both")
    for name in sorted(found, key=lambda name: -found[name]["ndcg"].mean()):
        ndcg, recall = found[name]["ndcg"], found[name]["recall"].mean()
        apart = interval(ndcg, found[best]["ndcg"])
        print(f"{name:26}{ndcg.mean():.4f} {apart} {first[name]['recall'].mean():.3f} {recall:.3f}")
    print("\ndiversity: nDCG of page 1, its difference to that without, genres not in common")
    trade = {}
    for diversity, each in served.items():
        values = report.judge([x[:PAGE] for x in each], PAGE)["ndcg"]
        unlike = np.mean([distance(x[:PAGE], genres) for x in each])
        apart = interval(values, first["Sanderling"]["ndcg"])
        trade[str(diversity)] = {"ndcg": values.mean(), "unlike": unlike, "cost": apart}
        print(f"{diversity:<10}{values.mean():.4f} {apart} {unlike:.3f}")
    ours, theirs = found["Sanderling"]["ndcg"], found[best]["ndcg"]
    figures = {"sanderling": ours.mean(), "baseline": theirs.mean(), "baseline_name": best}
    print(json.dumps(figures | {"interval": interval(ours, theirs), "diversity": trade}))


if __name__ == "__main__":
    main()
