"""Five times the load that a collector can take: refused in words that devices understand, and nothing lost (P25)."""

from __future__ import annotations

import asyncio
from itertools import islice

import pytest

from bench import overload
from bench.collecting import source
from bench.collecting.flood import flood
from sanderling.events import codec
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.event_log.object_store import LocalObjectStore
from tests.support.servers import Server, SlowStore

pytestmark = pytest.mark.lab

REQUESTS, COMMIT_S = 4, 0.05
CAPACITY = REQUESTS / COMMIT_S


class ForgetfulStore(LocalObjectStore):
    """Says that it has what it has not, the first time and every third."""

    count = 0

    def put(self, name: str, data: bytes) -> None:
        if self.count % 3:
            super().put(name, data)
        self.count += 1


def test_five_times_the_load_is_refused_or_stored(tmp_path):
    """For two seconds only 200, or 503 with Retry-After; what was answered is stored, and the rest may come again."""
    server = Server(tmp_path, SlowStore(tmp_path, COMMIT_S), limits=Limits(requests=REQUESTS))
    found = asyncio.run(flood(server.port, 5 * CAPACITY, 2.0, 64, 1))
    assert set(found.status) == {200, 503}
    assert found.status[503] > found.status[200] > 0
    assert (found.without_wait, found.broken) == (0, 0)
    assert overload._lost(tmp_path, [found]) == 0
    body = next(body for _, body in source.batches(2))
    assert server.post(body)[0] == 200
    server.stop()


def test_the_flood_finds_a_store_that_forgets(tmp_path):
    """With a store that leaves out segments, answered events are missed by the same count."""
    server = Server(tmp_path, ForgetfulStore(tmp_path))
    found = asyncio.run(flood(server.port, 50, 0.5, 16, 1))
    server.stop()
    assert overload._lost(tmp_path, [found])


def test_no_two_batches_of_the_source_share_an_id():
    """The load never repeats itself: each event has an id of its own, and those that its prefix tells."""
    rows = [
        (prefix, [codec.decode(line).id for line in codec.unpack(body)])
        for prefix, body in islice(source.batches(0), 130)
    ]
    found = [id for _, ids in rows for id in ids]
    assert len(set(found)) == len(found) == 130 * 50
    assert all(ids == source.ids(prefix) for prefix, ids in rows)


@pytest.mark.soak
def test_half_a_minute_of_five_times_the_load(capsys):
    """The real thing: only 200, 429 and 503 with Retry-After, none lost, memory bounded, normal again within 10 s."""
    found = overload.run([])
    with capsys.disabled():
        print(f"\n{found}")
    assert set(found["status"]) <= {"200", "429", "503"}
    assert (found["lost"], found["without Retry-After"], found["without an answer"]) == (0, 0, 0)
    assert found["offered batches/s"] >= 4 * found["batches/s"]
    assert found["normal_again_s"] <= 10
    assert found["rss_peak_MiB"] <= 512
