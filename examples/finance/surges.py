"""When to alert that bad news surges in a stream: a sequential test."""

import bisect
from collections.abc import Iterable, Sequence

import numpy as np

SHARES = np.array([[0.2], [0.4], [0.6]])
WORST = np.array([0.07, 0.15])


class SurgeTest:
    """Alerts for one stream, in the mean at most once in `hours` hours while nothing changes."""

    # `quiet` are scores of the stream's past headlines; the higher, the more negative.
    #
    # A score's p-value is its rank among all scores so far, ties broken at random. As long as old
    # and new headlines are exchangeable, p-values are independent and uniform on (0, 1), however
    # many headlines are negative and however often the classifier errs (Vovk, Gammerman and Shafer
    # 2005, chapter 2): the quiet base rate is never estimated, only ranked against.
    #
    # A bet is a density on (0, 1): its mean is 1 while nothing changes. That of share s and worst w
    # is 1 - s + s 1[p <= w] / w: a share s of the headlines has become as bad as the worst w were.
    #
    # Each hour M <- (1 + M) times the bets of the hour's headlines, for each of the six bets, and
    # their mean is compared with `hours`. M_t - t is a martingale, so by optional stopping the mean
    # time to an alert is at least `hours`, and the probability of one within t hours is at most
    # t / hours (Shiryaev 1963, Roberts 1966; e-detectors: Shin, Ramdas and Rinaldo 2023). After an
    # alert M is 0 again, and the same holds for the next. All headlines stay in the ranking, those
    # of a surge too: what lasts becomes the new normal.
    def __init__(self, quiet: Iterable[float], hours: float, rng: np.random.Generator) -> None:
        self._past = sorted(quiet)
        self._hours, self._rng = hours, rng
        self.evidence = np.zeros((len(SHARES), len(WORST)))

    def alerts(self, scores: Sequence[float]) -> bool:
        """Take the scores of an hour's headlines, in their order; return whether to alert."""
        self.evidence += 1.0
        for score in scores:
            low = bisect.bisect_left(self._past, score)
            high = bisect.bisect_right(self._past, score)
            rank = len(self._past) - high + (1 + high - low) * (1.0 - self._rng.random())
            p = rank / (len(self._past) + 1)
            self.evidence *= 1.0 - SHARES + SHARES * (p <= WORST) / WORST
            self._past.insert(high, score)
        is_alert = bool(self.evidence.mean() >= self._hours)
        self.evidence *= not is_alert
        return is_alert
