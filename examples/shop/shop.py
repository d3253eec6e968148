"""A shop: what else to offer a customer, of what is in stock and within the limit of the request.

Trains on the purchases before June, tunes baselines on May, and compares them with the slates that
an engine serves on 1 June from the bundle. README.md has the results.

    python examples/shop/shop.py [--small] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.online_retail import read
from examples.paired import interval
from sanderling import Engine
from sanderling.slate import Slate
from sanderling_quantize import quantize
from sanderling_trainer import train
from sanderling_trainer.evaluation import metrics
from sanderling_trainer.evaluation.inner_windows import best_rows
from sanderling_trainer.evaluation.peers import GRIDS, FittedPeers, grid

MAY, JUNE, JULY = 1304208000, 1306886400, 1309478400  # 2011, UTC
STOCK_S, K, DRAWS = 28 * 86_400, 10, 5


def by_user(log: pa.Table) -> dict[str, list[str]]:
    """Return the items of each user, oldest first."""
    lists = log.group_by("user_id", use_threads=False).aggregate([("item_id", "list")])
    users, items = (lists[name].to_pylist() for name in ("user_id", "item_id_list"))
    return dict(zip(users, items, strict=True))


class Shop:
    """What a shop knows at a moment, and what its customers buy from then on `until` another."""

    def __init__(self, log: pa.Table, moment: int, until: int) -> None:
        time, self.rule = log["timestamp"], log.column_names[-1]
        self.past = log.filter(pc.less(time, moment))
        later = log.filter(pc.and_(pc.greater_equal(time, moment), pc.less(time, until)))
        self.items, sold = self._catalog(self.past), self._catalog(later)
        self.launched = {item: sold[item] for item in sold if item not in self.items}
        value = {item: values[self.rule] for item, values in (sold | self.items).items()}
        # The log has no inventory: what was sold in the last four weeks counts as in stock.
        lately = self.past.filter(pc.greater_equal(self.past["timestamp"], moment - STOCK_S))
        self.stock = dict.fromkeys(self.items, 0) | dict.fromkeys(lately["item_id"].to_pylist(), 1)
        self.had, bought = by_user(self.past), by_user(later)
        self.limit, self.wanted = {}, {}
        for user in sorted(self.had.keys() & bought.keys()):
            limit = float(np.quantile([value[item] for item in self.had[user]], 0.75))
            new = {x for x in set(bought[user]) - set(self.had[user]) if value[x] <= limit}
            if any(self.stock.get(item) for item in new):
                self.limit[user] = limit
                self.wanted[user] = {item for item in new if self.stock.get(item, 1)}

    def _catalog(self, log: pa.Table) -> dict[str, dict[str, Any]]:
        wanted = [("text", "first"), (self.rule, "approximate_median")]
        items = log.group_by("item_id", use_threads=False).aggregate(wanted).to_pydict()
        ids, texts = items["item_id"], items["text_first"]
        values = items[f"{self.rule}_approximate_median"]
        return {id: {"text": x, self.rule: y} for id, x, y in zip(ids, texts, values, strict=True)}

    def ndcg(self, slates: Iterable[Sequence[Any]], launched: bool = False) -> np.ndarray:
        """Return nDCG@10 of each customer's slate, by what was known in June or `launched` too."""
        lists = [[getattr(item, "id", item) for item in slate] for slate in slates]
        known = self.items.keys() | (self.launched.keys() if launched else set())
        wanted = [items & known for items in self.wanted.values()]
        return metrics.per_user(lists, wanted, K)[f"ndcg@{K}"]


def peers(shop: Shop, chosen: Iterable[tuple[str, dict]]) -> Iterator[np.ndarray]:
    """Yield each customer's nDCG@10 by each baseline of a name and settings, under the rules."""
    ids, row = np.array(list(shop.items)), {item: at for at, item in enumerate(shop.items)}
    had = {user: np.array([row[x] for x in items]) for user, items in shop.had.items()}
    rows = np.array([row[item] for item in shop.past["item_id"].to_pylist()])
    fitted = FittedPeers(list(had.values()), rows, shop.past["timestamp"].to_numpy(), len(ids))
    asked = [had[user] for user in shop.limit]
    values = [x[shop.rule] if shop.stock[item] else np.inf for item, x in shop.items.items()]
    barred = np.array(values) > np.array(list(shop.limit.values()))[:, None]
    for mask, rows in zip(barred, asked, strict=True):
        mask[rows] = True
    for name, settings in chosen:
        scores = np.where(barred, -np.inf, fitted.scores(name, settings, asked))
        yield shop.ndcg(ids[best_rows(row, K)].tolist() for row in scores)


def build(shop: Shop, out: Path) -> Path:
    """Return the bundle of a policy that is trained on what the shop knows."""
    log = shop.past.select(["user_id", "item_id", "timestamp"])
    items = pa.Table.from_pylist([{"item_id": id, **rest} for id, rest in shop.items.items()])
    trained = train(log, out / "checkpoint", items, config=Path(__file__).with_name("train.toml"))
    quantize(trained.checkpoint, out / "bundle", encoder="base")
    return out / "bundle"


def serve(engine: Engine, shop: Shop) -> None:
    """Tell an engine of a shop's stock and of what its customers had."""
    engine.set_attributes({item: {"stock": stock} for item, stock in shop.stock.items()})
    for user in shop.limit:
        for item in shop.had[user]:
            engine.observe(user, item, "like")


def ask(engine: Engine, shop: Shop, greedy: bool) -> list[Slate]:
    """Return each customer's slate, under the rules of the request."""
    slates = []
    for user, limit in shop.limit.items():
        had, where = shop.had[user], {"stock": {"gt": 0}, shop.rule: {"le": limit}}
        slates.append(engine.recommend(user, K, exclude=had, where=where, greedy=greedy))
    return slates


def show(shop: Shop, slates: list[Slate]) -> None:
    """Print the last slate of which something was bought, and why it shows what."""
    slate = next(x for x in slates[::-1] if shop.wanted[x.user] & {item.id for item in x})
    print(f"\nCustomer {slate.user}, {shop.rule} up to {shop.limit[slate.user]:g}; * was bought:")
    for item in slate:
        print("*" if item.id in shop.wanted[slate.user] else " ", item.why().sentence)


def newcomers(engine: Engine, shop: Shop) -> dict[str, Any]:
    """Launch June's new items; return what exploration shows of newcomers, and what it costs."""
    engine.upsert_items({"id": id, "stock": 1, **rest} for id, rest in shop.launched.items())
    best = [ask(engine, shop, greedy=True)]
    drawn = [ask(engine, shop, greedy=False) for _ in range(DRAWS)]
    found, values = {}, []
    for name, rounds in ("greedy", best), ("exploring", drawn):
        shown = [item for slates in rounds for slate in slates for item in slate]
        values.append(np.mean([shop.ndcg(each, launched=True) for each in rounds], axis=0))
        found[f"{name}_ndcg"] = values[-1].mean()
        found[f"{name}_newcomers"] = np.mean([item.newcomer for item in shown])
        found[f"{name}_launched"] = np.mean([item.id in shop.launched for item in shown])
    return found | {"cost": interval(*values)}


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the customers, 2 minutes")
    parser.add_argument("--out", type=Path, default=Path(tempfile.mkdtemp(prefix="shop-")))
    chosen = parser.parse_args()
    log = read()
    if chosen.small:
        log = log.filter(pc.ends_with(log["user_id"], "0"))
    may, june = Shop(log, MAY, JUNE), Shop(log, JUNE, JULY)

    tried = [(name, settings) for name in GRIDS for settings in grid(name)]
    reached = [values.mean() for values in peers(may, tried)]
    tuned = dict(tried[at] for at in np.argsort(reached))  # of a name, the best comes last
    found = dict(zip(tuned, peers(june, tuned.items()), strict=True))
    best = max(found, key=lambda name: found[name].mean())
    with Engine.open(build(june, chosen.out)) as engine:
        serve(engine, june)
        slates = ask(engine, june, greedy=True)
        show(june, slates)
        launched = newcomers(engine, june)

    found["Sanderling"] = ours = june.ndcg(slates)
    print(f"\nnDCG@{K}, {len(ours)} customers in June; difference to the best baseline, 95 %")
    for name in sorted(found, key=lambda name: -found[name].mean()):
        print(f"{name:26}{found[name].mean():.4f}  {interval(found[name], found[best])}")
    figures = {"sanderling": ours.mean(), "baseline": found[best].mean(), "baseline_name": best}
    figures |= {"interval": interval(ours, found[best]), "customers": len(ours), **launched}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
