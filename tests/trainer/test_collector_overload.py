"""Five times the load that a collector can take: refused in ways that devices understand, and
nothing lost.
"""

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
    """Reports success without writing, the first time and every third."""

    count = 0

    def put(self, name: str, data: bytes) -> None:
        if self.count % 3:
            super().put(name, data)
        self.count += 1


def test_overload_is_refused_or_stored(tmp_path):
    """For two seconds all answers are 200, or 503 with Retry-After, and the answered events are
    stored.
    """
    server = Server(tmp_path, SlowStore(tmp_path, COMMIT_S), limits=Limits(requests=REQUESTS))
    result = asyncio.run(flood(server.port, 5 * CAPACITY, 2.0, 64, 1))
    assert set(result.status) == {200, 503}
    assert result.status[503] > result.status[200] > 0
    assert (result.without_retry_after, result.unanswered) == (0, 0)
    assert overload.count_lost(tmp_path, [result]) == 0
    body = next(body for _, body in source.batches(2))
    assert server.post(body)[0] == 200
    server.stop()


@pytest.mark.mutant
def test_the_flood_finds_a_store_that_forgets(tmp_path):
    """With a store that skips segments, the same count finds lost events."""
    server = Server(tmp_path, ForgetfulStore(tmp_path))
    result = asyncio.run(flood(server.port, 50, 0.5, 16, 1))
    server.stop()
    assert overload.count_lost(tmp_path, [result])


def test_no_two_batches_of_the_source_share_an_id():
    """Each event of the load has its own id, the one that follows from the prefix of its batch."""
    rows = [
        (prefix, [codec.decode(line).id for line in codec.unpack(body)])
        for prefix, body in islice(source.batches(0), 130)
    ]
    all_ids = [id for _, ids in rows for id in ids]
    assert len(set(all_ids)) == len(all_ids) == 130 * 50
    assert all(ids == source.ids(prefix) for prefix, ids in rows)


@pytest.mark.soak
def test_half_a_minute_of_five_times_the_load(capsys):
    """The benchmark: only 200, 429 and 503 with Retry-After, none lost, bounded memory, normal
    within 10 s.
    """
    result = overload.run([])
    with capsys.disabled():
        print(f"\n{result}")
    assert set(result["status"]) <= {"200", "429", "503"}
    assert (result["lost"], result["without Retry-After"], result["without an answer"]) == (0, 0, 0)
    assert result["offered batches/s"] >= 4 * result["batches/s"]
    assert result["normal_again_s"] <= 10
    assert result["rss_peak_MiB"] <= 512
