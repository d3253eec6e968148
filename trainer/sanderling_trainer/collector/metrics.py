"""The collector's Prometheus metrics."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, all named `sanderling_collector_...`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = {"namespace": "sanderling", "subsystem": "collector", "registry": self.registry}
        counter = partial(Counter, **name)
        gauge = partial(Gauge, **name)
        histogram = partial(Histogram, **name, buckets=BUCKETS_S)

        self.requests = counter("requests", "Batches by status of the answer.", ["status"])
        self.events = counter("events", "Events by verdict.", ["verdict"])
        self.received_bytes = counter("received_bytes", "Bytes of bodies, compressed.")
        self.failed_commits = counter("failed_commits", "Groups of batches that were not stored.")
        self.commit_seconds = histogram("commit_seconds", "Time to store a group of batches.")
        self.request_seconds = histogram("request_seconds", "Time from the head to the answer.")
        self.waiting_bytes = gauge("waiting_bytes", "Bytes that wait to be stored.")
        self.requests_in_progress = gauge("requests_in_progress", "Batches not answered yet.")
