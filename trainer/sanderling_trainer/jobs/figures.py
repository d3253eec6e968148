"""Figures of jobs and of the fleet, pushed to a Prometheus Pushgateway: a job ends before anybody
scrapes it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException

from prometheus_client import CollectorRegistry, Gauge, pushadd_to_gateway

from sanderling.runtime.clock import Clock, SystemClock

VARIABLE = "SANDERLING_PUSHGATEWAY"
"""The environment variable with the gateway's URL; without it nothing is pushed."""

NAME = "sanderling_job_"
TIMEOUT_S = 10.0

FIGURES = {
    "last_success_timestamp_seconds": "When the job last succeeded, in seconds since 1970.",
    "last_failure_timestamp_seconds": "When the job last failed, in seconds since 1970.",
    "duration_seconds": "How long the job took.",
    "peak_memory_bytes": "The most memory that the job's process had.",
    "events": "Events or interactions that the job wrote.",
    "installs": "Installs that the job marked or left out.",
    "release": "The number of the release that the job made or published.",
    "new_decisions": "Decisions that no release before had learned from.",
    "texts_outside_share": "Share of the catalog's texts out of the domain of its encoder.",
    "held": "1 when the release gate held the candidate.",
    "online_expires_timestamp_seconds": "When the first online signature expires.",
    "root_expires_timestamp_seconds": "When the root expires.",
}
"""Every figure; a job pushes those that it has."""

FLEET_NAME = "sanderling_fleet_"

FLEET = {
    "day_timestamp_seconds": ("When the day (UTC) began that the other figures are of.", ""),
    "decisions": ("Slates.", "release"),
    "installs": ("Installs with a slate.", "release"),
    "explored_share": ("Share of the slots that exploration chose, newcomers included.", ""),
    "newcomers_share": ("Share of the slots that the quota for newcomers chose.", ""),
    "judged_slots": ("Slots with an exact outcome, of installs that miss no event.", ""),
    "click_rate": ("Share of the judged slots with a reward above 0.", ""),
    "lost_events": ("Events that devices declared as lost, by reason and of any.", "reason"),
    "texts": ("Texts that devices encoded: items that apps added, and queries.", "kind"),
    "texts_outside_share": ("Share of these texts that are out of the domain.", "kind"),
    "missing_events": ("Events of the log that neither arrived nor were declared lost.", ""),
    "incomplete_installs": ("Installs of the log with missing events.", ""),
    "cloned_installs": ("Installs of the log whose identity two devices have used.", ""),
    "known_installs": ("Installs of the log.", ""),
    "change_evidence": ("Evidence that a figure has changed, in days.", "figure"),
    "change_limit": ("The evidence that raises an alarm.", ""),
    "changed_timestamp_seconds": ("The last day with an alarm, 0 without one.", "figure"),
}
"""What `monitor` pushes of the fleet's last whole day: meaning and label, "" without one."""

Labelled = Mapping[str, float]
"""Values of a figure by its label."""

log = logging.getLogger(__name__)


@contextmanager
def pushed_figures(
    job: str, clock: Clock | None = None, fleet: Mapping[str, float | Labelled] | None = None
) -> Iterator[dict[str, float]]:
    """Push what the body puts into the dictionary, its duration, and how it ended.

    fleet: figures of `FLEET`, which the body may fill.

    The figures of a job stay until the next push of the same names, so that a failure does not hide
    when it last succeeded. A gateway that cannot be reached is a warning.
    """
    clock = clock or SystemClock()
    figures: dict[str, float] = {}
    start = time.monotonic()
    outcome = "last_failure_timestamp_seconds"
    try:
        yield figures
        outcome = "last_success_timestamp_seconds"
    finally:
        figures["duration_seconds"] = time.monotonic() - start
        figures[outcome] = clock.wall_ms() / 1000
        if gateway := os.environ.get(VARIABLE):
            _push(gateway, job, figures, fleet or {})


def _push(
    gateway: str,
    job: str,
    figures: Mapping[str, float],
    fleet: Mapping[str, float | Labelled],
) -> None:
    registry = CollectorRegistry()
    for name, of_fleet in fleet.items():
        meaning, label = FLEET[name]
        gauge = Gauge(FLEET_NAME + name, meaning, [label] if label else [], registry=registry)
        if isinstance(of_fleet, Mapping):
            for key, value in of_fleet.items():
                gauge.labels(key).set(value)
        else:
            gauge.set(of_fleet)
    for name, value in {**figures, **_peak_memory()}.items():
        Gauge(NAME + name, FIGURES[name], registry=registry).set(value)
    try:
        pushadd_to_gateway(gateway, f"sanderling-{job}", registry, timeout=TIMEOUT_S)
    except (OSError, ValueError, HTTPException) as error:
        log.warning("%s: the figures of %s were not pushed: %s", gateway, job, error)


def _peak_memory() -> dict[str, float]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}
