"""What examples/finance is compared with: a classifier on words, keywords, the usual rule."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from examples.financial_news import (
    HISTORY,
    LONGEST,
    ONSET,
    Hours,
    Newsroom,
    keyword_counts,
    keyword_topics,
)
from sanderling_trainer.evaluation.intervals import Interval, percentile_interval

Rule = Callable[[NDArray[np.int64], NDArray[np.int64]], list[int]]
"""Gives the hours of the alerts of a stream: of the hour and the sentence of each story."""

WINDOWS = (1, 4, 16, 32, 64, 128, 256)
LIMITS = np.arange(1.0, 30.0, 0.05)


RESAMPLES = 1000
TUNING_SURGES = 20


def words_model() -> GridSearchCV:
    """Return logistic regression on TF-IDF, tuned by cross-validation when it is fitted: words or
    pairs of them too, and the penalty.
    """
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    grid = {
        "tfidfvectorizer__ngram_range": [(1, 1), (1, 2)],
        "logisticregression__C": [1.0, 10.0, 100.0],
    }
    return GridSearchCV(model, grid, scoring="f1_macro", cv=3)


def tones(
    texts: Sequence[str], labels: NDArray[np.str_], folds: StratifiedKFold
) -> dict[str, NDArray[np.str_]]:
    """Return the tone of each text by words, learned from the other folds, and by the lexicon."""
    negative, positive = keyword_counts(texts)
    sides = [negative > positive, positive > negative]
    return {
        "TF-IDF, logistic": cross_val_predict(words_model(), texts, labels, cv=folds),
        "keywords": np.select(sides, ["negative", "positive"], "neutral"),
    }


def topics(
    past: Sequence[str], labels: NDArray[np.str_], today: Sequence[str]
) -> dict[str, NDArray[np.str_]]:
    """Return the topic of each headline of today by words, learned from the past, and by
    keywords."""
    learned = words_model().fit(past, labels)
    return {"TF-IDF, logistic": learned.predict(today), "keywords": keyword_topics(today)}


def compare(
    task: str,
    true: NDArray[np.str_],
    found: Mapping[str, NDArray[np.str_]],
    rng: np.random.Generator,
) -> list[tuple[float, Interval]]:
    """Print precision and recall by class; return macro-F1 of each method, and by how much that of
    the first is higher, with a paired bootstrap interval over headlines."""
    names = np.unique(np.concatenate([true, *found.values()]))
    rows = rng.integers(len(true), size=(RESAMPLES, len(true)))
    print(f"\n{task}: macro-F1, how much higher the first one's is; precision and recall by class")
    results = []
    first: NDArray[np.float64] | None = None
    for method, labels in found.items():
        value = f1_score(true, labels, average="macro")
        resampled = _macro_f1(names, true, labels, rows)
        first = np.append(resampled, value) if first is None else first
        gain = percentile_interval(first[-1] - value, first[:-1] - resampled)
        results.append((float(value), gain))

        each = precision_recall_fscore_support(true, labels, labels=names, zero_division=0)[:2]
        classes = ", ".join(f"{n} {p:.2f} {r:.2f}" for n, p, r in zip(names, *each, strict=True))
        change = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        print(f"  {method:22} {value:.3f}  {change:24}  {classes}")
    return results


def _macro_f1(
    names: NDArray[np.str_],
    true: NDArray[np.str_],
    found: NDArray[np.str_],
    rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return macro-F1 of each resample, rows int64 [r, n]: as of scikit-learn, but faster."""
    cell = np.searchsorted(names, true) * len(names) + np.searchsorted(names, found)
    tables = np.stack([np.bincount(cell[at], minlength=len(names) ** 2) for at in rows])
    tables = tables.reshape(len(rows), len(names), len(names))
    margins = tables.sum(axis=1) + tables.sum(axis=2)
    hits = tables.diagonal(axis1=1, axis2=2)
    return np.asarray((2 * hits / np.maximum(margins, 1)).sum(1) / (margins > 0).sum(1))


def delays(rule: Rule, surges: Sequence[Hours]) -> NDArray[np.int64]:
    """Return after how many hours of each surge the first alert came, at most `LONGEST`."""
    alerts = [[at - ONSET + 1 for at in rule(*stream) if at >= ONSET] for stream in surges]
    return np.array([min([*each, LONGEST]) for each in alerts])


def count_alerts(rule: Rule, quiet: Sequence[Hours]) -> int:
    """Return how many false alarms a rule gives in quiet streams, after their history."""
    return sum(len(rule(*stream)) for stream in quiet)


def window_rule(flags: NDArray[np.bool_], window: int, limit: float) -> Rule:
    """Return the rule of thumb, which knows sentences by their flags alone, bool [sentences].

    It alerts where the last `window` hours have more flagged stories than the base rate of all
    stories before them explains, and is then silent for a window. `limit` is of -log10 of the
    binomial p-value, so that one suits busy and slow streams. As the rule looks every hour, its
    false alarms have no bound: `tuned_rule` finds the limit by simulation.
    """

    def rule(hour: NDArray[np.int64], sentence: NDArray[np.int64]) -> list[int]:
        seen = np.bincount(hour)
        flagged = np.bincount(hour, flags[sentence])
        before = np.maximum(np.arange(len(seen)) - window, 0)
        base = (np.cumsum(flagged)[before] + 1) / (np.cumsum(seen)[before] + 2)

        k, n = (np.convolve(each, np.ones(window))[: len(seen)] for each in (flagged, seen))
        evidence = -binom.logsf(k - 1, n, base) / np.log(10)
        alerts: list[int] = []
        for at in HISTORY + np.flatnonzero(evidence[HISTORY:] >= limit):
            if not alerts or at > alerts[-1] + window:
                alerts.append(int(at))
        return alerts

    return rule


def tuned_rule(variants: Sequence[NDArray[np.bool_]], room: Newsroom, n_hours: int) -> Rule:
    """Return the window rule that finds surges soonest in the mean, by flags and window, each with
    the smallest limit that gives at most one false alarm in 1,000 quiet hours.
    """
    quiet = room.quiet(n_hours)
    surges = room.surges(TUNING_SURGES)

    def candidate(flags: NDArray[np.bool_], window: int) -> Rule:
        def is_calm(limit: float) -> bool:
            return count_alerts(window_rule(flags, window, limit), quiet) * 1000 <= n_hours

        limit = LIMITS[bisect.bisect_left(LIMITS, True, key=is_calm)]
        return window_rule(flags, window, limit)

    candidates = (candidate(*each) for each in product(variants, WINDOWS))
    return min(candidates, key=lambda rule: delays(rule, surges).mean())


def compare_rules(
    rules: Mapping[str, Rule], room: Newsroom, n_hours: int, n_surges: int
) -> dict[str, Any]:
    """Print false alarms and delays; return those of the first two rules, as figures by name.

    `saved` is the first rule's share of the second's median delay, subtracted from 1, with a
    paired bootstrap interval over surges.
    """
    quiet = room.quiet(n_hours)
    surges = room.surges(n_surges)
    rows = room.rng.integers(len(surges), size=(RESAMPLES, len(surges)))
    print(f"\nalerts: {n_hours:,} quiet hours, {len(surges)} surges")
    found: list[tuple[int, float, NDArray[np.float64]]] = []
    for name, rule in rules.items():
        delay = delays(rule, surges)
        false = count_alerts(rule, quiet)
        low, high = chi2.ppf(0.025, 2 * false), chi2.ppf(0.975, 2 * false + 2)
        bounds = [1000 * np.nan_to_num(bound) / 2 / n_hours for bound in (low, high)]
        quartiles = np.quantile(delay, [0.25, 0.5, 0.75])
        found.append((false, quartiles[1], np.median(delay[rows], axis=1)))
        print(
            f"  {name:22} {1000 * false / n_hours:.2f} false alarms in 1,000 hours"
            f" [{bounds[0]:.2f}, {bounds[1]:.2f}], delay {quartiles[1]:.0f} h"
            f" (quartiles {quartiles[0]:.0f}, {quartiles[2]:.0f}),"
            f" not found in {LONGEST} h {np.mean(delay == LONGEST):.0%}"
        )
    (ours, delay, resampled), (theirs, other, other_resampled) = found[:2]
    saved = percentile_interval(1 - delay / other, 1 - resampled / other_resampled)
    return {
        "false_alarms": [1000 * count / n_hours for count in (ours, theirs)],
        "delay_hours": [float(delay), float(other)],
        "saved": [saved.value, saved.low, saved.high],
    }
