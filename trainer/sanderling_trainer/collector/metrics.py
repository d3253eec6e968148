"""What the collector counts, in Prometheus' words. Refuses to know what the figures are good for."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "requests", "Batches by the status of their answer.", "status"
        )
        self.events = self._counter("events", "Events by verdict.", "verdict")
        self.received_bytes = self._counter(
            "received_bytes", "Bytes of the bodies of batches, as sent."
        )
        self.failed_commits = self._counter(
            "failed_commits", "Groups of batches that could not be stored."
        )
        self.commit_seconds = self._histogram(
            "commit_seconds", "Time of making a group of batches durable."
        )
        self.request_seconds = self._histogram(
            "request_seconds", "Time from a batch's head to its answer."
        )
        self.waiting_bytes = Gauge(
            "sanderling_collector_waiting_bytes",
            "Bytes that wait to be stored.",
            registry=self.registry,
        )
        self.under_way = Gauge(
            "sanderling_collector_requests_under_way",
            "Batches that are being received.",
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sanderling_collector_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"sanderling_collector_{name}", text, buckets=SECONDS, registry=self.registry
        )
