"""Two devices under one name, and one put back to an older state: noticed, named, never learned from (86, 87)."""

from __future__ import annotations

import shutil

import pytest

from sanderling import Engine
from sanderling.events import codec
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_parts, read_segments
from sanderling_trainer.event_log.segment_format import SEGMENTS, line, pack
from sanderling_trainer.event_log.tombstones import MAX_AGE_S, ROTATED
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.rotate_identities import RotationError, rotate_identities
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy
from tests.support.fleet.lab import Lab
from tests.support.fleet.world import World

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(50)]


class Shop:
    """Devices by the names of their folders, and the lab that they report to."""

    def __init__(self, folder) -> None:
        self.folder, self.world = folder, World(0)
        write_bundle(folder / "bundle")
        self.lab = Lab(self.world, folder / "lab")
        self.lives = 0

    def live(self, name: str, slates: int = 3, upload: bool = True) -> None:
        """Let a device show so many slates and take a reward for each, then stop in good order."""
        self.lives += 1
        self.world.take(1.0)  # segments are named by their time
        state, ways = self.folder / name, {"transport": self.lab, "background": False}
        engine = Engine.open(
            self.folder / "bundle",
            state,
            **ways,
            clock=FakeClock(),
            entropy=FakeEntropy(self.lives),
        )
        for _ in range(slates):
            slate = engine.recommend("anna", k=3)
            assert engine.reward(slate, slate[0], 1.0)
        while upload and engine.counters()["outbox"].pending:
            engine.step()
        if upload:
            engine.step()  # with nothing left, a device does what may wait
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
    shop.lab.close()


@pytest.mark.parametrize("pending", [True, False])
def test_two_devices_under_one_name_are_noticed(shop, pending):
    """When both copies of a device go on, its install is named, and none of its decisions is learned from."""
    shop.live("other")
    shop.live("one", upload=not pending)
    shop.copy("one", "two")
    shop.live("one", 2)
    shop.live("two", 4)
    log, examples = shop.read()
    (doubled,) = log.doubled
    assert log.decisions() == 3 + 3 + 2 + 4
    assert log.conflicts == 4
    assert log.missing == 0
    assert examples.dropped["install doubled"] == 9
    assert len(examples.decisions) == 3
    assert sum(install == doubled for install, _ in log.events) == 1


def test_a_device_that_was_put_back_is_noticed(shop):
    """A device restored from a backup numbers its events anew: the ids are others, and the install is named."""
    shop.live("one")
    shop.copy("one", "backup")
    shop.live("one", 2)
    shop.copy("backup", "one")
    shop.live("one", 2)
    log, examples = shop.read()
    assert len(log.doubled) == 1
    assert len(log.time) == 2 * (3 + 2 + 2)
    assert examples.dropped == {"install doubled": 7}


def test_copies_that_were_not_used_are_no_matter(shop):
    """A copy of a disk that nobody started, or whose device sent nothing new, doubles nobody."""
    shop.live("one", upload=False)
    shop.copy("one", "two")
    shop.live("one", 0)
    shop.live("two", 0)
    log, examples = shop.read()
    assert (log.doubled, log.conflicts, log.missing) == (frozenset(), 0, 0)
    assert len(examples.decisions) == 3


def test_doubles_are_noticed_after_compaction(shop):
    """Days later, in Parquet, the same install is named."""
    shop.live("one")
    shop.copy("one", "two")
    shop.live("one")
    shop.live("two")
    before = shop.read()[0]
    shop.world.take(2 * 86_400)
    assert compact(shop.lab.store, shop.world).events == 18
    assert shop.read()[0] == before
    assert before.doubled


def test_a_renewal_heals_both_devices_and_loses_nothing(shop):
    """Asked by the lab, both devices take names of their own when all is told; what they tell then is learned from."""
    shop.live("one")
    shop.copy("one", "two")
    shop.live("one")
    shop.live("two")
    (doubled,) = shop.read()[0].doubled
    assert rotate_identities(str(shop.folder / "lab")) == [doubled]
    assert rotate_identities(str(shop.folder / "lab")) == []
    shop.world.take(MAX_AGE_S)
    for name in ("one", "two", "one", "two"):
        shop.live(name)
    log, examples = shop.read()
    assert log.decisions() == log.outcomes() == 3 * 7
    assert (log.doubled, log.missing, len({install for install, _ in log.events})) == (
        {doubled},
        0,
        3,
    )
    assert len(examples.decisions) == 2 * 3


def test_a_renewal_heals_a_gap(shop):
    """A device of which a segment was lost in the lab takes another name, and is learned from again."""
    for _ in range(3):
        shop.live("one")
    shop.lab.store.delete(sorted(shop.lab.store.names(SEGMENTS))[1])
    (incomplete,) = shop.read()[0].incomplete
    assert rotate_identities(str(shop.folder / "lab")) == [incomplete]
    shop.world.take(MAX_AGE_S)
    shop.live("one")
    shop.live("one")
    log, examples = shop.read()
    assert log.incomplete == {incomplete}
    assert len(examples.decisions) == 3


@pytest.mark.parametrize(
    ("whole", "at_most", "marked"), [(3000, 0.05, 120), (1000, 0.05, None), (1000, 0.2, 120)]
)
def test_a_lost_segment_does_not_renew_a_fleet(tmp_path, whole, at_most, marked):
    """A hundred and twenty gaps among many installs are renewed; among few, nobody is, unless somebody says so."""
    store, make = LocalObjectStore(tmp_path), EventFactory()
    rows = [make.observation(install=f"{at:032x}", seq=1) for at in range(whole)]
    rows += [make.observation(install=f"{at:032x}", seq=3) for at in range(120)]
    store.put(
        "segments/2025-01-01/one.jsonl.zst", pack([line(codec.encode(row), 1, 1) for row in rows])
    )
    if marked is None:
        with pytest.raises(RotationError, match="found 120"):
            rotate_identities(str(tmp_path), at_most)
    else:
        assert len(rotate_identities(str(tmp_path), at_most)) == marked
    assert len(store.names(ROTATED)) == (marked or 0)


def test_a_gap_that_was_only_not_yet_listed_renews_nobody(shop, monkeypatch):
    """A segment that is there when the log is read again, as where batches come while files are listed, is no gap."""
    for _ in range(3):
        shop.live("one")
    name = sorted(shop.lab.store.names(SEGMENTS))[1]
    late = shop.lab.store.get(name)
    shop.lab.store.delete(name)

    def read(store):
        yield from read_parts(store)
        shop.lab.store.put(name, late)

    monkeypatch.setattr("sanderling_trainer.jobs.rotate_identities.read_parts", read)
    assert rotate_identities(str(shop.folder / "lab")) == []


def test_erasing_a_doubled_install_heals_both_devices(shop):
    """After an erasure the two devices begin anew under two names, and what they tell then is learned from."""
    shop.live("one")
    shop.copy("one", "two")
    shop.live("one")
    shop.live("two")
    (doubled,) = shop.read()[0].doubled
    erase(shop.lab.store, doubled, shop.world, pause=shop.world.take)
    for name in ("one", "two", "one", "two"):
        shop.live(name)
    log, examples = shop.read()
    installs = {install for install, _ in log.events}
    assert (len(installs), doubled in installs, log.doubled, log.missing) == (
        2,
        False,
        frozenset(),
        0,
    )
    assert len(examples.decisions) == 2 * 3
