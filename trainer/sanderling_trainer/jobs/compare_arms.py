"""Compares the arms of an experiment by what the installs of each have clicked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from sanderling.bundle.manifest import REST, Experiment
from sanderling.events.schema import Decision
from sanderling.exploration.arms import assigned_arm
from sanderling_trainer.evaluation.intervals import Interval
from sanderling_trainer.evaluation.ope.canary import click_rate
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.jobs.fleet_clicks import arms_of, judged_decisions, start_and_look
from sanderling_trainer.jobs.night_log import check_events

ERROR = 0.05
"""The probability that any interval at any look misses its rate is at most this."""

MIN_P = 0.001
"""Below it the numbers of installs do not fit the shares."""


@dataclass(frozen=True)
class ArmReport:
    """What the installs of one arm did."""

    name: str

    installs: int
    """With a decision of the experiment."""

    expected: float
    """How many of all those installs the arm should have by its share."""

    judged: int
    """Installs with a judged slot."""

    rate: Interval
    """Clicks per judged slot."""

    change: tuple[float, float] | None
    """Between which bounds its rate lies above the control's, relative to that; None for the
    control itself."""

    verdict: str
    """`control`, `better`, `worse` or `not known yet`."""


@dataclass(frozen=True)
class ExperimentReport:
    """The arms, and whether they can be compared."""

    name: str

    look: int
    """The days since the first decision, counted from 1: each may be looked at once."""

    arms: list[ArmReport]

    ratio_p: float
    """The probability of shares of installs at least this far from what was asked."""

    misassigned: int
    """Decisions whose arm is not that of their install; they count for nothing."""

    @property
    def is_fair(self) -> bool:
        """Whether the numbers of installs fit the shares."""
        return self.ratio_p >= MIN_P


def compare_arms(
    events: str, experiment: Experiment, control: str | None = None
) -> ExperimentReport:
    """Return what the devices' events say of the arms of an experiment.

    events: the folder or URL of the collector's store.
    control: the arm that the others are compared with; by default the rest of the installs, or the
        first arm where there is no rest.

    Intervals are betting ones (Waudby-Smith and Ramdas 2023) of the rates of all arms at once, and
    of all days' looks: 6 / (π t)² of the error is for look t. An install counts for no more slots
    than nine in ten have. Cloned and incomplete installs count for nothing, nor do rewards under
    randomized response.

    Raises `ValueError` for an unknown control, `FileNotFoundError` where the store is missing,
    `EventError` where a file of it is damaged.
    """
    shares = _shares(experiment)
    names = list(shares)
    control = control or (REST if REST in shares else names[0])
    if control not in shares:
        raise ValueError(f"control: expected one of {', '.join(names)}, found {control!r:.80}")
    check_events(events)

    assignment = _Assignment(experiment)
    found = judged_decisions(read_partitions(events), assignment.counts)
    arm_of = np.array([name or REST for name in found.arm], np.str_)
    _, look = start_and_look(np.array(found.time, np.int64), np.ones(len(arm_of), np.bool_))
    confidence = 1.0 - ERROR * 6.0 / (np.pi * look) ** 2 / len(names)
    rates = {}
    judged = {}
    for name, arm in zip(names, arms_of(found, [arm_of == name for name in names]), strict=True):
        # Installs need a random order, and every call the same one.
        rates[name] = click_rate(arm, confidence, np.random.default_rng(0))
        judged[name] = len(arm.slots)

    seen = assignment.seen
    total = sum(map(len, seen.values()))
    reports = [
        ArmReport(
            name,
            len(seen[name]),
            share * total,
            judged[name],
            rates[name],
            None if name == control else _change(rates[name], rates[control]),
            "control" if name == control else _verdict(rates[name], rates[control]),
        )
        for name, share in shares.items()
    ]
    ratio_p = _ratio_p(reports)
    return ExperimentReport(experiment.name, look, reports, ratio_p, assignment.misassigned)


class _Assignment:
    """Sorts decisions by the arms of their installs."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self.seen: dict[str, set[str]] = {name: set() for name in _shares(experiment)}
        self.misassigned = 0

    def counts(self, event: Decision) -> bool:
        """Return whether a decision is of the experiment, and of its install's own arm."""
        if event.experiment != self._experiment.name:
            return False
        arm = assigned_arm(self._experiment, event.install)
        name = arm.name if arm else REST
        if (event.arm or REST) != name:
            self.misassigned += 1
            return False
        self.seen.setdefault(name, set()).add(event.install)
        return True


def _shares(experiment: Experiment) -> dict[str, float]:
    """Return the share of each arm, the rest first if there is one."""
    rest = 1.0 - sum(experiment.shares)
    shares = {REST: rest} if rest > 1e-9 else {}
    return shares | {arm.name: arm.share for arm in experiment.arms}


def _change(rate: Interval, control: Interval) -> tuple[float, float]:
    low = rate.low / control.high - 1.0 if control.high > 0.0 else float("inf")
    high = rate.high / control.low - 1.0 if control.low > 0.0 else float("inf")
    return low, high


def _verdict(rate: Interval, control: Interval) -> str:
    if rate.low > control.high:
        return "better"
    return "worse" if rate.high < control.low else "not known yet"


def _ratio_p(reports: list[ArmReport]) -> float:
    """Return the p-value of Pearson's test that installs fall to the arms by their shares."""
    if len(reports) < 2 or not any(report.installs for report in reports):
        return 1.0
    statistic = sum((each.installs - each.expected) ** 2 / each.expected for each in reports)
    return float(chi2.sf(statistic, len(reports) - 1))
