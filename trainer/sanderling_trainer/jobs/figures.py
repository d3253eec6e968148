"""Figures of jobs, pushed to a Prometheus Pushgateway: a job ends before anybody scrapes it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
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
    "held": "1 when the release gate held the candidate.",
    "online_expires_timestamp_seconds": "When the first online signature expires.",
    "root_expires_timestamp_seconds": "When the root expires.",
}
"""Every figure; a job pushes those that it has."""

log = logging.getLogger(__name__)


@contextmanager
def pushed_figures(job: str, clock: Clock | None = None) -> Iterator[dict[str, float]]:
    """Push what the body puts into the dictionary, its duration, and how it ended.

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
            _push(gateway, job, figures)


def _push(gateway: str, job: str, figures: dict[str, float]) -> None:
    registry = CollectorRegistry()
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
