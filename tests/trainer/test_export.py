"""The export of what devices report as a table of interactions, against the events themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from sanderling_trainer.cli import operations
from sanderling_trainer.data.tables import read_catalog, read_interactions
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.export import export
from tests.support.nights import DAY, Device, Shop, shop_rows

pytestmark = pytest.mark.lab


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop whose devices showed three slates each on two days, and saw a purchase each."""
    shop = Shop(tmp_path)
    for _ in range(2):
        for device in shop.devices:
            upload(shop, device, device.slates(3, shop.clock))
        shop.clock.advance(DAY)
    for device in shop.devices:
        upload(shop, device, [device.observed("i3", shop.clock)])
    return shop


def pseudonym(device: Device) -> str:
    return device.install[::-1]


def upload(shop: Shop, device: Device, events: list) -> None:
    """Store events of a device, under a pseudonym of its own."""
    shop.upload([msgspec.structs.replace(event, user=pseudonym(device)) for event in events])


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_steps_of_states_become_interactions(shop: Shop) -> None:
    """Each click and purchase is one row with its pseudonym, time, reward and kind; skips, which
    changed no state, are none.
    """
    done = export(str(shop.store.root), shop.folder / "log.parquet", shop.clock)
    found = rows(shop.folder / "log.parquet")
    assert (done.rows, len(done.users), done.cloned) == (len(found), 6, set())
    assert sorted(row["kind"] for row in found) == ["click"] * 36 + ["purchase"] * 6
    assert {row["reward"] for row in found} == {1.0}
    first = shop.clock.wall_ms() // 1000 - 2 * DAY
    assert {row["timestamp"] for row in found} == {first, first + DAY, first + 2 * DAY}
    assert {row["user_id"] for row in found} == set(map(pseudonym, shop.devices))

    catalog = read_catalog(shop.table(shop_rows()))
    assert len(read_interactions(shop.folder / "log.parquet", catalog)) == 42


def test_compacted_and_remembered_events_are_exported_too(shop: Shop) -> None:
    """After a compaction the table is the same; when a night has remembered the events and their
    files are gone, too.
    """
    before = shop.folder / "before.parquet"
    export(str(shop.store.root), before, shop.clock)
    compact(shop.store, shop.clock)
    shop.night()
    for keep in (True, False):
        if not keep:
            shutil.rmtree(shop.store.root / "daily")
            for name in shop.store.names(segment_format.SEGMENTS):
                shop.store.delete(name)
        after = shop.folder / "after.parquet"
        export(str(shop.store.root), after, shop.clock)
        key = lambda row: tuple(map(str, row.values()))  # noqa: E731
        assert sorted(rows(after), key=key) == sorted(rows(before), key=key)


def test_cloned_installs_are_left_out(shop: Shop) -> None:
    """Of devices that share an identity nothing is exported, and their number is told."""
    copied = shop.devices[0]
    twin = copied.observed("i5", shop.clock)
    copied.seq -= 1
    upload(shop, copied, [twin, copied.observed("i6", shop.clock)])
    done = export(str(shop.store.root), shop.folder / "log.parquet", shop.clock)
    assert done.cloned == {copied.install}
    assert pseudonym(copied) not in {row["user_id"] for row in rows(shop.folder / "log.parquet")}


def test_a_failed_export_leaves_the_earlier_file(shop: Shop) -> None:
    """A damaged segment ends in an error; the file of the export before stays, and nothing else."""
    out = shop.folder / "out" / "log.parquet"
    out.parent.mkdir()
    export(str(shop.store.root), out, shop.clock)
    before = out.read_bytes()
    [segment, *_] = shop.store.names(segment_format.SEGMENTS)
    shop.store.put(segment, b"damaged")
    with pytest.raises(Exception, match=segment):
        export(str(shop.store.root), out, shop.clock)
    assert [path.read_bytes() for path in out.parent.iterdir()] == [before]


def test_the_command(shop: Shop) -> None:
    """`export` writes Parquet only, names a folder that is missing, and counts what it wrote."""
    app = typer.Typer()
    app.command()(operations.export)

    def run(*arguments: object):
        return CliRunner().invoke(app, [*map(str, arguments)])

    store = shop.store.root
    assert run("--events", store, "--out", shop.folder / "log.csv").exit_code == 2
    missing = run("--events", shop.folder / "none", "--out", shop.folder / "log.parquet")
    assert "expected the folder that `sanderling collect` writes to" in str(missing.exception)
    done = run("--events", store, "--out", shop.folder / "log.parquet")
    assert done.output.startswith("42 interactions of 6 users -> ")
