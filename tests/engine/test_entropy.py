"""Random bytes that are read ahead: each is given once, to one thread of one process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from sanderling.runtime import clock
from sanderling.runtime.clock import READ_AHEAD, SystemEntropy


def test_bytes_are_given_in_their_order_and_once(monkeypatch):
    """Whatever the sizes: what is left of a read that is too short for one is dropped, and a large
    request is a read of its own."""
    reads = []

    def counted(size):
        reads.append(bytes(i % 251 for i in range(size)))
        return reads[-1]

    monkeypatch.setattr(clock.os, "urandom", counted)
    entropy = SystemEntropy()
    assert [entropy(10), entropy(0), entropy(32)] == [reads[0][:10], b"", reads[0][10:42]]
    assert entropy(READ_AHEAD) == reads[1]
    assert entropy(16) == reads[2][:16]
    assert len(entropy(READ_AHEAD + 1)) == READ_AHEAD + 1
    assert entropy(16) == reads[2][16:32]


def test_threads_share_no_bytes():
    """Ids of many threads are all different."""
    entropy = SystemEntropy()
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: entropy(10), range(5000)))
    assert len(set(taken)) == len(taken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_draws_bytes_of_its_own():
    """Parent and child would otherwise draw the same ids and secrets."""
    entropy = SystemEntropy()
    entropy(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, entropy(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 16) != entropy(16)
