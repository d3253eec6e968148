"""A disk that is really full: recommendations continue, rewards are refused with the reason, and
the outbox recovers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sanderling import Engine, Receipt
from sanderling.errors import StorageError
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from tests.support.bundles import write_bundle
from tests.support.fakes import EventFactory


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 300 kB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs root to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(outbox: Outbox, make: EventFactory) -> list[str]:
    """Put rewards until three are refused in a row; return the ids that were confirmed."""
    confirmed: list[str] = []
    refused = 0
    while refused < 3:
        event = make.observation()
        try:
            outbox.put_durable([event], timeout_s=0.3)
            confirmed.append(event.id)
            refused = 0
        except StorageError:
            refused += 1
    return confirmed


def drain(outbox: Outbox) -> set[str]:
    """Acknowledge all, as the uploader does; return the ids."""
    seen: set[str] = set()
    for _ in range(500):
        with suppress(StorageError):
            batch = [stored.id for stored in outbox.oldest(50, 10**6)]
            if not batch:
                return seen
            seen |= set(batch)
            outbox.acknowledge(batch)
    pytest.fail("the full disk could not be drained")


def test_a_full_disk_refuses_rewards_and_recovers(small_disk):
    """On 300 kB what was confirmed is delivered, draining frees the disk, and new rewards are
    stored."""
    outbox = Outbox(small_disk / "state", clock=SystemClock())
    make = EventFactory(outbox.install)
    for least in (100, 1):
        confirmed = fill(outbox, make)
        assert len(confirmed) >= least
        assert set(confirmed) <= drain(outbox)
    assert outbox.counters().lost == {}
    outbox.close()


def test_a_user_is_forgotten_on_a_full_disk(small_disk):
    """A user's events are deleted with the ballast's help. Where rewriting the file needs more
    room, forgetting raises, and the next opening that has the room leaves no byte."""
    outbox = Outbox(small_disk / "state", clock=SystemClock())
    make = EventFactory(outbox.install)
    outbox.put_durable([make.observation(user="e" * 32) for _ in range(50)])
    confirmed = fill(outbox, make)
    with pytest.raises(StorageError, match="full"):
        outbox.forget(["e" * 32], [])
    assert drain(outbox) >= set(confirmed)
    outbox.close()
    assert traces(small_disk)
    Outbox(small_disk / "state", clock=SystemClock()).close()
    assert not traces(small_disk)


def test_a_small_file_is_rewritten_on_a_full_disk(small_disk):
    """With nothing free but the ballast, a file that is no larger is rewritten without the user."""
    outbox = Outbox(small_disk / "state", clock=SystemClock())
    make = EventFactory(outbox.install)
    outbox.put_durable([make.observation(user="e" * 32)])
    with suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while other.write(bytes(1024)):
            pass
    assert traces(small_disk)
    outbox.forget(["e" * 32], [])
    assert not traces(small_disk)
    outbox.close()


def traces(disk: Path) -> list[str]:
    """Return the files of a state folder that contain the pseudonym."""
    return [path.name for path in (disk / "state").iterdir() if b"e" * 32 in path.read_bytes()]


def test_recommendations_continue_on_a_full_disk(small_disk, tmp_path):
    """With no byte left every recommendation succeeds; a reward is pending, and stored as soon as
    there is room."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", small_disk / "state") as engine:
        with suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
            while other.write(bytes(1024)):
                pass
        slates = [engine.recommend(f"user {number}") for number in range(60)]
        assert all(len(slate) for slate in slates)
        receipt = engine.reward(slates[-1], slates[-1][0], 1.0, timeout_s=3.0)
        assert (receipt.stored, receipt.pending) == (False, True)
        assert "full" in receipt.reason
        (small_disk / "other").unlink()
        assert engine.reward(slates[-1], slates[-1][1], 1.0)
        assert engine.receipt(receipt.id) == Receipt(True)
