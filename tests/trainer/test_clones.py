"""Cloned and restored devices are detected, named, and never used in training."""

from __future__ import annotations

import shutil

import pytest

from sanderling import Engine
from sanderling.events import codec
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_partitions, read_segments
from sanderling_trainer.event_log.segment_format import SEGMENTS, encode_line, pack
from sanderling_trainer.event_log.tombstones import LOOKUP_CACHE_S, ROTATED
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.rotate_identities import RotationError, rotate_identities
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy
from tests.support.fleet.server import SimulatedServer
from tests.support.fleet.simulation import Simulation

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(50)]


class Shop:
    """Devices, named by their folders, and the lab that they upload to."""

    def __init__(self, folder) -> None:
        self.folder, self.simulation = folder, Simulation(0)
        write_bundle(folder / "bundle")
        self.server = SimulatedServer(self.simulation, folder / "lab")
        self.n_runs = 0

    def run(self, name: str, slates: int = 3, upload: bool = True) -> None:
        """Run a device that shows `slates`, with a reward for each, and stops in good order."""
        self.n_runs += 1
        self.simulation.advance(1.0)  # segments are named by their time
        options = {"transport": self.server, "background": False}
        engine = Engine.open(
            self.folder / "bundle",
            self.folder / name,
            **options,
            clock=FakeClock(),
            entropy=FakeEntropy(self.n_runs),
        )
        for _ in range(slates):
            slate = engine.recommend("anna", k=3)
            assert engine.reward(slate, slate[0], 1.0)
        while upload and engine.counters()["outbox"].pending:
            engine.step()
        if upload:
            engine.step()  # with nothing left to upload, a device rotates its identity
        engine.close()

    def copy(self, name: str, to: str) -> None:
        shutil.rmtree(self.folder / to, ignore_errors=True)
        shutil.copytree(self.folder / name, self.folder / to)

    def read(self):
        log = read_segments(str(self.folder / "lab"))
        return log, examples_of(log, IDS, KINDS, TEXT)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path)
    yield shop
    shop.server.close()


@pytest.mark.parametrize("pending", [True, False])
def test_two_devices_with_one_identity_are_detected(shop, pending):
    """If both copies of a device continue their install is named, and none of its decisions is
    used.
    """
    shop.run("other")
    shop.run("one", upload=not pending)
    shop.copy("one", "two")
    shop.run("one", 2)
    shop.run("two", 4)
    log, examples = shop.read()
    (cloned,) = log.cloned
    assert log.decisions() == 3 + 3 + 2 + 4
    assert log.conflicts == 4
    assert log.missing == 0
    assert examples.dropped["install cloned"] == 9
    assert len(examples.decisions) == 3
    assert sum(install == cloned for install, _ in log.events) == 1


def test_a_restored_device_is_detected(shop):
    """A device restored from a backup uses sequence numbers again, with other ids, and its install
    is named.
    """
    shop.run("one")
    shop.copy("one", "backup")
    shop.run("one", 2)
    shop.copy("backup", "one")
    shop.run("one", 2)
    log, examples = shop.read()
    assert len(log.cloned) == 1
    assert len(log.time) == 2 * (3 + 2 + 2)
    assert examples.dropped == {"install cloned": 7}


def test_unused_copies_are_harmless(shop):
    """A copy of a disk that sends nothing new does not make a clone."""
    shop.run("one", upload=False)
    shop.copy("one", "two")
    shop.run("one", 0)
    shop.run("two", 0)
    log, examples = shop.read()
    assert (log.cloned, log.conflicts, log.missing) == (frozenset(), 0, 0)
    assert len(examples.decisions) == 3


def test_clones_are_detected_after_compaction(shop):
    """Days later, in daily files, the same install is named."""
    shop.run("one")
    shop.copy("one", "two")
    shop.run("one")
    shop.run("two")
    before = shop.read()[0]
    shop.simulation.advance(2 * 86_400)
    assert compact(shop.server.store, shop.simulation).events == 18
    assert shop.read()[0] == before
    assert before.cloned


def test_a_rotation_separates_both_devices_and_loses_nothing(shop):
    """Asked to rotate, both devices take new identities after their upload; later decisions are
    used.
    """
    shop.run("one")
    shop.copy("one", "two")
    shop.run("one")
    shop.run("two")
    (cloned,) = shop.read()[0].cloned
    assert rotate_identities(str(shop.folder / "lab")) == [cloned]
    assert rotate_identities(str(shop.folder / "lab")) == []
    shop.simulation.advance(LOOKUP_CACHE_S)
    for name in ("one", "two", "one", "two"):
        shop.run(name)
    log, examples = shop.read()
    assert log.decisions() == log.outcomes() == 3 * 7
    assert (log.cloned, log.missing, len({install for install, _ in log.events})) == (
        {cloned},
        0,
        3,
    )
    assert len(examples.decisions) == 2 * 3


def test_a_rotation_repairs_a_gap(shop):
    """A device with a lost segment takes a new identity, and its decisions are used again."""
    for _ in range(3):
        shop.run("one")
    shop.server.store.delete(sorted(shop.server.store.names(SEGMENTS))[1])
    (incomplete,) = shop.read()[0].incomplete
    assert rotate_identities(str(shop.folder / "lab")) == [incomplete]
    shop.simulation.advance(LOOKUP_CACHE_S)
    shop.run("one")
    shop.run("one")
    log, examples = shop.read()
    assert log.incomplete == {incomplete}
    assert len(examples.decisions) == 3


@pytest.mark.parametrize(
    ("n_installs", "at_most", "marked"), [(3000, 0.05, 120), (1000, 0.05, None), (1000, 0.2, 120)]
)
def test_a_lost_segment_does_not_rotate_a_fleet(tmp_path, n_installs, at_most, marked):
    """120 gaps among many installs are marked; among few installs none is, unless --at-most allows
    it.
    """
    store, make = LocalObjectStore(tmp_path), EventFactory()
    rows = [make.observation(install=f"{i:032x}", seq=1) for i in range(n_installs)]
    rows += [make.observation(install=f"{i:032x}", seq=3) for i in range(120)]
    store.put(
        "segments/2025-01-01/one.jsonl.zst",
        pack([encode_line(codec.encode(row), 1, 1) for row in rows]),
    )
    if marked is None:
        with pytest.raises(RotationError, match="found 120"):
            rotate_identities(str(tmp_path), at_most)
    else:
        assert len(rotate_identities(str(tmp_path), at_most)) == marked
    assert len(store.names(ROTATED)) == (marked or 0)


def test_a_gap_that_closes_is_not_marked(shop, monkeypatch):
    """A gap that is closed when the log is read again, because a batch came during the listing, is
    not marked.
    """
    for _ in range(3):
        shop.run("one")
    name = sorted(shop.server.store.names(SEGMENTS))[1]
    late = shop.server.store.get(name)
    shop.server.store.delete(name)

    def read(store):
        yield from read_partitions(store)
        shop.server.store.put(name, late)

    monkeypatch.setattr("sanderling_trainer.jobs.rotate_identities.read_partitions", read)
    assert rotate_identities(str(shop.folder / "lab")) == []


def test_an_erasure_separates_both_devices(shop):
    """After an erasure the two devices take two identities, and their later decisions are used."""
    shop.run("one")
    shop.copy("one", "two")
    shop.run("one")
    shop.run("two")
    (cloned,) = shop.read()[0].cloned
    erase(shop.server.store, cloned, shop.simulation, pause=shop.simulation.advance)
    for name in ("one", "two", "one", "two"):
        shop.run(name)
    log, examples = shop.read()
    installs = {install for install, _ in log.events}
    assert (len(installs), cloned in installs, log.cloned, log.missing) == (
        2,
        False,
        frozenset(),
        0,
    )
    assert len(examples.decisions) == 2 * 3
