"""The data sets on which `sanderling train` is measured as it is without a flag.

online_retail at 60, 70, 80, 90 %   cut at a share of the time; the next tenth reports
ml-100k by time                     cut at 90 % of the events; 72 warm users have little power
ml-100k, beauty                     leave one out, as in `protocols`
jester                              every user's jokes rated above 0, in a drawn order; leave
                                    one out among 100 jokes
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.ranking import data
from bench.ranking.candidates import BASELINES, Candidate
from bench.ranking.data import Log
from bench.ranking.ours_by_default import SanderlingByDefault
from bench.ranking.protocols import BENCHMARKS, Benchmark, leave_one_out, temporal

OURS = SanderlingByDefault.name

CANDIDATES: dict[str, Candidate] = {
    OURS: Candidate(SanderlingByDefault, seeded=True),
    **{
        name: BASELINES[name]
        for name in ("recent popular", "ItemKNN", "iALS", "EASE", "EASE + recent popular")
    },
}


def _online_retail(share: float, root: Path) -> Benchmark:
    log = data.online_retail(root)
    start, span = log.time[0], log.time[-1] - log.time[0]
    known = log.select(log.time < start + (share + 0.1) * span)
    name = f"online_retail at {share:.0%}"
    return temporal(name, known, start + (share - 0.1) * span, start + share * span)


def _movielens_by_time(root: Path) -> Benchmark:
    log = data.movielens(root)
    tune, report = np.quantile(log.time, [0.8, 0.9])
    return temporal("ml-100k by time", log, tune, report)


def _jester(root: Path) -> Benchmark:
    return leave_one_out("jester", jester_likes(root), clocked=False)


def jester_likes(root: Path) -> Log:
    """Return the ratings above 0 of each user in a drawn order, whose places are the times."""
    ratings = np.load(root / "jester" / "ratings_1000x100.npy")
    rng = np.random.default_rng(0)
    user, item, time = (
        np.concatenate(column)
        for column in zip(
            *(
                (np.full(len(liked), code), rng.permutation(liked), np.arange(len(liked)))
                for code, liked in enumerate(map(np.flatnonzero, ratings > 0))
            ),
            strict=True,
        )
    )
    order = np.argsort(time, kind="stable")
    jokes = (root / "jester" / "jokes.csv").read_text(encoding="utf-8")
    return Log(user[order], item[order], time[order], data.texts(jokes, ratings.shape[1]))


SETS: dict[str, Callable[[Path], Benchmark]] = {
    **{
        f"online_retail at {share:.0%}": partial(_online_retail, share)
        for share in (0.6, 0.7, 0.8, 0.9)
    },
    "ml-100k by time": _movielens_by_time,
    "ml-100k": BENCHMARKS["ml-100k"],
    "beauty": BENCHMARKS["beauty"],
    "jester": _jester,
}
