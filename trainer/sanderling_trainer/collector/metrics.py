"""The collector's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

NAME = "sanderling_collector_"
# Seconds, up to the time-out of a device.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, all named `sanderling_collector_...`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Batches by status of the answer.", "status")
        self.events = self._counter("events", "Events by verdict.", "verdict")
        self.received_bytes = self._counter("received_bytes", "Bytes of bodies, compressed.")
        self.failed_commits = self._counter("failed_commits", "Groups that were not stored.")
        self.commit_seconds = self._histogram("commit_seconds", "Time to store a group of batches.")
        self.request_seconds = self._histogram("request_seconds", "Time from head to answer.")
        self.waiting_bytes = self._gauge("waiting_bytes", "Bytes that wait to be stored.")
        self.requests_in_progress = self._gauge("requests_in_progress", "Unanswered batches.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(NAME + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(NAME + name, text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(NAME + name, text, registry=self.registry, buckets=BUCKETS_S)
