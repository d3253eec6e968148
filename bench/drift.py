"""How seldom a daily figure raises a false alarm, and how soon a change of it is found, simulated.

A click rate with a pattern of weekdays (standard deviation 15 %) and noise from day to day: normal,
Student's t with 3 degrees of freedom, or autocorrelated, which the promise does not cover. False
alarms are counted over quiet years; then the rate falls for good, after some days of history.

    python -m bench drift [--series 100] [--noise 0.04]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.change_detection import WEEK, changes

QUIET_DAYS = 100.0
"""Of the quiet years: so few that false alarms can be counted."""

ALARM_DAYS = 4 * 365.0
"""What `sanderling monitor` asks for."""

YEAR = 365
HISTORIES = (60, 180)
FALLS = (0.05, 0.1, 0.2, 0.5)
WAIT = 90
"""Days within which a fall may be found."""

NOISES = {
    "normal": 0.0,
    "Student's t, 3": 0.0,
    "autocorrelated, .3": 0.3,
    "autocorrelated, .6": 0.6,
}


def run(arguments: list[str]) -> dict[str, Any]:
    """Return days between false alarms by kind of noise, and delays by history and fall."""
    options = _parser().parse_args(arguments)
    result: dict[str, Any] = {"quiet": {}, "delay": {}}
    for kind in NOISES:
        alarms = sum(
            len(_alarms(_rates(seed, YEAR, options.noise, kind), QUIET_DAYS))
            for seed in range(options.series)
        )
        result["quiet"][kind] = options.series * YEAR / max(1, alarms)
        line = f"{kind:>20}: a false alarm in {result['quiet'][kind]:,.0f} days"
        print(f"{line} (promised: {QUIET_DAYS:.0f})", file=sys.stderr)
    for history in HISTORIES:
        for fall in FALLS:
            delays = [_delay(seed, history, fall, options.noise) for seed in range(options.series)]
            low, median, high = np.quantile(delays, [0.1, 0.5, 0.9])
            found = float(np.mean(np.array(delays) <= WAIT))
            name = f"{history} days, -{fall:.0%}"
            result["delay"][name] = {"median": median, "p10": low, "p90": high, "found": found}
            line = (
                f"{name:>20}: found {found:.0%}, after {median:.1f} days ({low:.1f} to {high:.1f})"
            )
            print(line, file=sys.stderr)
    return result


def _delay(seed: int, history: int, fall: float, noise: float) -> int:
    """Return the days from a fall to its alarm, `WAIT` + 1 where there is none in time."""
    rates = _rates(1000 + seed, history + WAIT, noise, "normal")
    rates[history:] *= 1.0 - fall
    late = [alarm for alarm in _alarms(rates, ALARM_DAYS) if alarm >= history]
    return late[0] - history + 1 if late else WAIT + 1


def _alarms(rates: NDArray[np.float64], quiet_days: float) -> tuple[int, ...]:
    return changes(range(len(rates)), rates, quiet_days, rises=False).alarms


def _rates(seed: int, days: int, noise: float, kind: str) -> NDArray[np.float64]:
    """Return a click rate of some days, float64 [days]."""
    rng = np.random.default_rng(seed)
    weekdays = 1.0 + 0.15 * rng.standard_normal(WEEK)
    drawn = rng.standard_t(3, days) / np.sqrt(3.0) if "t," in kind else rng.standard_normal(days)
    keep = NOISES[kind]
    for day in range(1, days):
        drawn[day] = keep * drawn[day - 1] + np.sqrt(1.0 - keep * keep) * drawn[day]
    return 0.1 * weekdays[np.arange(days) % WEEK] * (1.0 + noise * drawn)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench drift")
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.04)
    return parser
