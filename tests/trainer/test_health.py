"""Health, readiness and metrics of a collector."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sanderling_trainer.collector.store_probe import PROBE_AGE_S
from sanderling_trainer.event_log.object_store import LocalObjectStore
from tests.support.fakes import FakeClock
from tests.support.servers import BrokenStore, Server, events, packed

pytestmark = pytest.mark.lab


def metrics(server: Server) -> dict[str, float]:
    """Return the value of each sample; labels are added to the name."""
    status, text = server.get("/metrics")
    assert status == 200
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_the_metrics_count_what_happened(tmp_path):
    """Requests by status, events by verdict, bytes and commits are counted."""
    server = Server(tmp_path)
    body = packed(*events(3))
    server.post(body)
    server.post(body)
    server.post(b"garbage")
    server.post(body, authorization="Bearer wrong")
    values = metrics(server)
    server.stop()
    name = "sanderling_collector_"
    assert [values[f"{name}requests_total {status}"] for status in (200, 400, 401)] == [2, 1, 1]
    assert [values[f"{name}events_total {verdict}"] for verdict in ("ok", "duplicate")] == [3, 3]
    assert values[f"{name}received_bytes_total"] == 2 * len(body) + len(b"garbage")
    assert (values[f"{name}commit_seconds_count"], values[f"{name}request_seconds_count"]) == (1, 4)
    assert (values[f"{name}waiting_bytes"], values[f"{name}requests_in_progress"]) == (0, 0)


def test_health_and_readiness_differ_while_the_store_fails(tmp_path):
    """A collector whose store fails is healthy but not ready, and is ready once the store works."""
    store, clock = BrokenStore(tmp_path), FakeClock()
    server = Server(tmp_path, store, clock=clock)
    assert (server.get("/healthz")[0], server.get("/readyz")[0]) == (200, 503)
    server.post(packed(*events(1)))
    assert metrics(server)["sanderling_collector_failed_commits_total"] == 1
    store.broken = False
    clock.advance(PROBE_AGE_S)
    status, text = server.get("/readyz")
    assert (status, json.loads(text)) == (200, {"status": "ok"})
    server.stop()


def test_a_full_disk_is_not_ready(tmp_path):
    """A store that takes only empty files, as a full disk does, is not ready."""

    class FullStore(LocalObjectStore):
        def put(self, name: str, data: bytes) -> None:
            if data:
                raise OSError(28, "No space left on device")
            super().put(name, data)

    server = Server(tmp_path, FullStore(tmp_path))
    assert server.get("/readyz")[0] == 503
    server.stop()


def test_readiness_writes_at_most_once_in_some_seconds(tmp_path):
    """The store is probed once in some seconds, however often readiness is asked for."""
    store, clock = BrokenStore(tmp_path), FakeClock()
    server = Server(tmp_path, store, clock=clock)
    assert server.get("/readyz")[0] == 503
    store.broken = False
    assert server.get("/readyz")[0] == 503
    server.stop()
