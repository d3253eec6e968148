"""Financial news: topics and tone of headlines, learned from feedback, and alerts of bad news."""

# python examples/finance/finance.py [--small] [--out FOLDER] [--webhook URL]

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples import financial_baselines as baselines
from examples import financial_news as news
from examples.finance.head import Head
from examples.finance.surges import SurgeTest
from examples.finance.webhook import send
from sanderling import Engine
from sanderling_quantize import quantize
from sanderling_trainer import train

FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
HOURS = 1000.0 * len(news.KEYWORDS)  # of a stream, so that all together alert once in 1,000


def build(texts, topics, out):
    """Write a bundle; its policy learns which desk has filed which story."""
    ids = [f"story-{row}" for row in range(len(texts))]
    items = pa.table({"item_id": ids, "text": texts, "topic": topics})
    log = pa.table({"user_id": topics, "item_id": ids, "timestamp": range(len(ids))})
    train(log, out / "checkpoint", items, app="news", dim=32, epochs=10, device="cpu")
    return quantize(out / "checkpoint", out / "bundle", encoder="base").folder


def held_out(vectors, labels, feedback=None):
    """Return the scores of headlines, each by a head that has had feedback on others alone."""
    names = np.unique(labels)
    scores = np.zeros((len(labels), len(names)))
    for others, mine in FOLDS.split(vectors, labels):
        rows = np.random.default_rng(0).permutation(others)[:feedback]
        head = Head(names, vectors.shape[1])
        head.learn(vectors[rows], labels[rows])
        scores[mine] = head.scores(vectors[mine])
    return scores


def alert_hours(scores, rng, hour, sentence):
    """Return the hours of the alerts of a stream after its history."""
    batches = np.split(scores[sentence], np.searchsorted(hour, np.arange(1, hour[-1] + 1)))
    test = SurgeTest(np.concatenate(batches[: news.HISTORY]), HOURS, rng)
    return [at for at, batch in enumerate(batches) if at >= news.HISTORY and test.alerts(batch)]


def main(small, out, webhook):
    """Print what heads, words and keywords find, and when each rule alerts."""
    rng = np.random.default_rng(0)
    step, n_hours, n_surges = (16, 2000, 4) if small else (4, 20_000, 40)
    texts, tones = news.phrases()
    bad, good = news.keyword_counts(texts)
    past, past_topics = news.stories("train", step)
    today, topics = news.stories("test", step // 2)
    with Engine.open(build(past[:200], past_topics[:200], out)) as engine:
        vectors, past_vectors, today_vectors = map(engine.encode, (texts, past, today))

    # Feedback: an analyst's thumbs are the gold labels, of other headlines than those judged here.
    scores = {n: held_out(vectors, tones, n) for n in (None, 150, 50)}
    found = {n: np.unique(tones)[scores[n].argmax(axis=1)] for n in scores}
    methods = {"encoder, feedback": found[None]} | baselines.tones(texts, tones, FOLDS)
    methods |= {"after 50": found[50], "after 150": found[150]}
    (ours, _), (theirs, gain), *_ = baselines.compare("tone", tones, methods, rng)

    names = np.unique(past_topics)
    head = Head(names, past_vectors.shape[1])
    head.learn(past_vectors, past_topics)
    streams = names[head.scores(today_vectors).argmax(axis=1)]
    methods = {"encoder, feedback": streams} | baselines.topics(past, past_topics, today)
    baselines.compare("topic", topics, methods, rng)

    tuning, shown = news.newsrooms(topics, streams, tones == "negative", rng)
    rules = {
        "encoder, sequential": partial(alert_hours, scores[None][:, 0], rng),
        "keywords, window": baselines.tuned_rule([bad > 0, bad > good], tuning, n_hours),
        "encoder, window": baselines.tuned_rule([found[None] == "negative"], tuning, n_hours),
        "keywords, sequential": partial(alert_hours, bad - good, rng),
    }
    alerts = baselines.compare_rules(rules, shown, n_hours, n_surges)
    if webhook:
        hour, rows = shown.surges(1)[0]
        for at in rules["encoder, sequential"](hour, rows):
            alert = {"id": f"acq-{at}", "headlines": [texts[row] for row in rows[hour == at]]}
            print("webhook:", alert["id"], "taken" if send(webhook, alert) else "not taken")
    figures = {"sanderling": ours, "baseline": theirs, "interval": [gain.low, gain.high]}
    print(json.dumps(figures | {"metric": "macro-F1 of tone", "alerts": alerts}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--webhook")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.small, given.out or Path(folder), given.webhook)
