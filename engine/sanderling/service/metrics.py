"""The metrics of a service in Prometheus' text format: its requests, and the engine's counters."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

NAME = "sanderling_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

GAUGES = {"release", "storage_fault", "outbox_queued", "outbox_pending", "upload_last_status"}
"""Counters of the engine that may fall; all others only rise."""


class RequestMetrics:
    """How many requests there were, by call and status, and how long they took. Not thread-safe."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._by_bucket: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()

    def count(self, call: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests[call, status] += 1
        buckets = self._by_bucket.get(call)
        if buckets is None:
            buckets = self._by_bucket[call] = [0] * (len(BUCKETS_S) + 1)
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds[call] += seconds  # type: ignore[assignment]

    def lines(self) -> Iterator[str]:
        """Yield the lines of these metrics."""
        name = f"{NAME}service_requests_total"
        yield f"# TYPE {name} counter"
        for (call, status), count in sorted(self._requests.items()):
            yield f'{name}{{call="{call}",status="{status}"}} {count}'

        name = f"{NAME}service_request_seconds"
        yield f"# TYPE {name} histogram"
        for call, buckets in sorted(self._by_bucket.items()):
            total = 0
            for limit, count in zip((*BUCKETS_S, "+Inf"), buckets, strict=True):
                total += count
                yield f'{name}_bucket{{call="{call}",le="{limit}"}} {total}'
            yield f'{name}_sum{{call="{call}"}} {self._seconds[call]}'
            yield f'{name}_count{{call="{call}"}} {total}'


def engine_lines(counters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of `Engine.counters`, as built-in values: numbers, and faults as 0 or 1.

    Other texts are left out: they may be long, and say what only the log should.
    """
    for name, value in _flat(counters):
        if isinstance(value, Mapping):
            yield f"# TYPE {NAME}{name}_total counter"
            for reason, count in sorted(value.items()):
                yield f'{NAME}{name}_total{{reason="{reason}"}} {count}'
        elif name == "storage_fault":
            yield from _metric(name, int(value is not None))
        elif isinstance(value, int | float):
            yield from _metric(name, value)


def _flat(counters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield counters by name, those of a section with its name before theirs."""
    for section, value in counters.items():
        if isinstance(value, Mapping):
            yield from ((f"{section}_{name}", field) for name, field in value.items())
        else:
            yield section, value


def _metric(name: str, value: float) -> Iterator[str]:
    kind, suffix = ("gauge", "") if name in GAUGES else ("counter", "_total")
    yield f"# TYPE {NAME}{name}{suffix} {kind}"
    yield f"{NAME}{name}{suffix} {value}"
