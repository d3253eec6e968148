"""The test of daily figures: its false alarms are as seldom as promised, and it finds changes."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling_trainer.evaluation.change_detection import FIRST_BET, bet, changes

pytestmark = pytest.mark.lab

DAYS = 300
QUIET = 50.0


def series(seed: int, days: int = DAYS, *, heavy: bool = False) -> np.ndarray:
    """Return a click rate with a pattern of weekdays and noise of 5 %."""
    rng = np.random.default_rng(seed)
    weekdays = 1.0 + 0.3 * rng.standard_normal(7)
    noise = rng.standard_t(3, days) if heavy else rng.standard_normal(days)
    return 0.1 * weekdays[np.arange(days) % 7] * (1.0 + 0.05 * noise)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("rises", [False, True])
def test_false_alarms_are_as_seldom_as_promised(heavy: bool, rises: bool) -> None:
    """Over 6,000 quiet days with a pattern of weekdays there is at most one alarm in 50 days, also
    where noise has heavy tails; and the test does bet.
    """
    found = [
        changes(range(DAYS), series(seed, heavy=heavy), QUIET, rises=rises) for seed in range(20)
    ]
    assert sum(len(each.alarms) for each in found) <= 20 * DAYS / QUIET
    assert np.std([each.evidence[-1] for each in found]) > 0.0


@pytest.mark.parametrize("kind", ["cauchy", "rare", "noisy weekend"])
def test_no_distribution_is_assumed(kind: str) -> None:
    """Over 6,000 quiet days there is at most one alarm in 50 also where the figure has no mean, is
    0 but on one day in ten, or is far noisier on weekends.
    """
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noisy = rng.standard_normal(DAYS) * np.where(np.arange(DAYS) % 7 >= 5, 5.0, 1.0)
        rare = (rng.random(DAYS) < 0.1).astype(float)
        values = {"cauchy": rng.standard_cauchy(DAYS), "rare": rare, "noisy weekend": noisy}[kind]
        alarms += len(changes(range(DAYS), values, QUIET, rises=True).alarms)
    assert alarms <= 20 * DAYS / QUIET


def test_bets_are_fair() -> None:
    """The mean of a bet over uniform p-values is 1: below x it is (x - 1) / ln x, the mean of x^ε
    over ε; and small p-values win.
    """
    p_values = np.geomspace(1e-6, 1.0, 20_001)
    bets = np.array([bet(p_value) for p_value in p_values])
    above = (0.5 * (bets[1:] + bets[:-1]) * np.diff(p_values)).sum()
    below = (1e-6 - 1.0) / np.log(1e-6)
    assert above + below == pytest.approx(1.0, abs=1e-4)
    assert bet(0.01) > 3.0 > bet(0.5)
    assert bet(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("fall", "within"), [(0.2, 10), (0.5, 8)])
def test_a_fall_is_found(fall: float, within: int) -> None:
    """After sixty days a fall by a fifth is found within ten days in most series, by half within
    eight in nearly all; the day that raises the alarm is the first of a new history.
    """
    delays = []
    for seed in range(20):
        values = series(seed, 90)
        values[60:] *= 1.0 - fall
        found = changes(range(90), values, 1460.0, rises=False)
        late = [alarm for alarm in found.alarms if alarm >= 60]
        delays.append(late[0] - 59 if late else 99)
        assert not changes(range(90), values, 1460.0, rises=True).alarms
        if late:
            assert (found.evidence[late[0] + 1 : late[0] + FIRST_BET] == 0.0).all()
    assert np.mean(np.array(delays) <= within) >= 0.8


def test_too_few_days_say_nothing() -> None:
    """For two weeks there is no evidence, and none without days."""
    values = np.linspace(1.0, 0.0, FIRST_BET)
    assert (changes(range(FIRST_BET), values, 10.0, rises=False).evidence == 0.0).all()
    assert changes([], np.empty(0), 10.0, rises=False).alarms == ()


def test_the_same_days_give_the_same_evidence() -> None:
    """Ties, as of a figure that is mostly 0, are drawn by the day: a repeated run says the same,
    and quiet zeros raise no alarm.
    """
    zeros = np.zeros(200)
    first = changes(range(200), zeros, QUIET, rises=True)
    assert (first.evidence == changes(range(200), zeros, QUIET, rises=True).evidence).all()
    assert len(first.alarms) <= 200 / QUIET
