"""A feed of posts to answer, with blocks, a floor for new authors and a budget to explore."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.social.posts import WEEK, Post, opening, read
from sanderling import Engine
from sanderling_quantize import quantize
from sanderling_trainer import train
from sanderling_trainer.evaluation import intervals
from sanderling_trainer.evaluation.metrics import per_user

HERE, K, FLOOR, DAILY, DAY = Path(__file__).parent, 10, 0.4, 3, 86_400
STEP = 7.0  # all boosts are multiples of one, since an engine takes 16 different sums
TUNE, TEST = 1_029_576_704, 1_030_976_812  # 17 August and 2 September 2002
GRID = [(smoothing, age) for smoothing in (0.01, 0.03, 0.1, 0.3) for age in (1, 1.5, 2, 2.5, 3)]


def habit(view: tuple, smoothing: float, age: float) -> list[str]:
    """Return the ids of a feed by age and by how often the reader wrote to a post's list."""
    now, mine, feed, _ = view
    lists = Counter(post.community for post in mine)

    def score(post: Post) -> float:
        share = (lists[post.community] + smoothing) / (len(mine) + smoothing)
        return np.log(share) - age * np.log((now.time - post.time) / 3600 + 0.5)

    return [post.id for post in sorted(feed, key=score, reverse=True)[:K]]


def build(posts: list[Post], out: Path) -> Path:
    """Train on what was written and answered; return the folder of the bundle."""
    names = "user_id", "item_id", "timestamp", "kind"
    ids = {post.id for post in posts}
    rows = [(by.author, by.answers, by.time, "reply") for by in posts if by.answers in ids]
    rows += [(by.author, by.id, by.time + 1, "post") for by in posts]
    log = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    items = pa.Table.from_pylist([post._asdict() for post in posts])
    files = {"config": HERE / "train.toml", "schema": HERE / "schema.toml"}
    trained = train(log, out / "checkpoint", items.rename_columns({"id": "item_id"}), **files)
    return quantize(trained.checkpoint, out / "bundle", encoder="base").folder


def replay(engine: Engine, clock: SimpleNamespace, views: list, blocks: dict, floor: float) -> dict:
    """Return what a device serves before each post since `TEST`, by post."""
    slates, owed = {}, 0.0
    for post, mine, _, hidden in views:
        clock.now = post.time
        if post.time >= TEST:
            # Half an hour, 1.5 hours … 63.5 hours
            wishes = [{"time": {"gt": post.time - 1800 * (2**n - 1)}} for n in range(1, 8)]
            wishes += [{"community": {"in": [own.community for own in mine]}}] * 3
            wishes += [{"is_new_author": True}] * int(min(5, max(0, owed // K)))
            boost = [{"where": wish, "by": STEP} for wish in wishes]
            rule = {"time": {"gt": post.time - WEEK}, "not": {"author": blocks[post.author]}}
            slates[post] = engine.recommend(post.author, K, where=rule, exclude=hidden, boost=boost)
            owed += sum(floor - each.attributes["is_new_author"] for each in slates[post])
            engine.upsert_items([post._asdict()])
        if post.answers in {each.id for each in slates.get(post, [])}:
            engine.reward(slates[post], post.answers, 1.0, "reply")
        elif post.answers:
            engine.observe(post.author, post.answers, "reply")
        engine.observe(post.author, post.id, "post")
    return slates


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a run of two minutes")
    parser.add_argument("--out", type=Path, default=Path("social-run"))
    asked = parser.parse_args()
    posts = [post for post in read() if not asked.small or post.time < TEST + DAY]
    known = [post for post in posts if post.time < TEST]
    often = [name for name, _ in Counter(post.author for post in known).most_common(20)]
    blocks = {post.author: often[len(post.author) % len(often)] for post in posts}
    views = [(post, *opening(posts, at, blocks[post.author])) for at, post in enumerate(posts)]
    judged = [view for view in views if view[0].answers in {each.id for each in view[2]}]
    tuned = [view for view in judged if TUNE <= view[0].time < TEST]
    tested = [view for view in judged if view[0].time >= TEST]

    def gains(views: list, slates: list) -> np.ndarray:
        return per_user(slates, [{view[0].answers} for view in views], K)[f"ndcg@{K}"]

    best = max(GRID, key=lambda each: gains(tuned, [habit(view, *each) for view in tuned]).sum())
    values = {"habit": gains(tested, [habit(view, *best) for view in tested])}
    print(f"{'habit':18}{values['habit'].mean():8.4f}  {best}")
    bundle = build(known, asked.out)
    clock = SimpleNamespace(now=0)  # an engine's clock shows no year before 2025
    clock.wall_ms = clock.mono_ms = lambda: (clock.now + 1304 * WEEK) * 1000
    for name, floor in (("feed", 0.0), ("floor", FLOOR), ("floor, exploring", FLOOR)):
        with Engine.open(bundle, asked.out / name, clock=clock) as engine:
            engine.exploring = name == "floor, exploring"
            slates = replay(engine, clock, views, blocks, floor)
        values[name] = gains(tested, [[each.id for each in slates[view[0]]] for view in tested])
        explored, new = Counter(), []
        for post, slate in slates.items():
            day = post.author, post.time // DAY
            assert explored[day] < DAILY or not any(each.explored for each in slate), day
            explored[day] += sum(each.explored for each in slate)
            new += [each.attributes["is_new_author"] for each in slate]
        print(f"{name:18}{values[name].mean():8.4f}{np.mean(new):8.1%}{max(explored.values()):4}")
    who = np.unique([view[0].author for view in tested], return_inverse=True)[1]
    pair = [(np.bincount(who, values[name]), np.bincount(who)) for name in ("feed", "habit")]
    apart = intervals.ratio_difference(*pair, np.random.default_rng(0))
    result = {"sanderling": values["feed"].mean(), "baseline": values["habit"].mean()}
    print(json.dumps(result | {"interval": [apart.low, apart.high]}))


if __name__ == "__main__":
    main()
