"""The nightly job: each event teaches once, what ships was judged, and a killed job runs again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sanderling_trainer import retrain
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.watermark import Watermark
from sanderling_trainer.jobs import night_candidate
from sanderling_trainer.jobs import retrain as job
from sanderling_trainer.jobs.lease import BusyError, exclusive_job
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.jobs.unfinished import unfinished
from sanderling_trainer.policy import checkpoint
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock
from tests.support.nights import ITEMS, SHIPS, Device, Shop, files, shop_rows

pytestmark = pytest.mark.lab

INSTALLS = [f"{number + 1:032x}" for number in range(6)]


@pytest.fixture(scope="module")
def first_night(tmp_path_factory) -> Path:
    """A shop whose six devices showed 30 slates each, and release 2, learned from them."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.day()
    shop.night()
    return shop.folder


@pytest.fixture
def shop(first_night, tmp_path) -> Shop:
    """A copy of that shop on the morning after."""
    shutil.copytree(first_night, tmp_path / "shop")
    return Shop.opened(tmp_path / "shop")


def likes(counts: PopularityHistory) -> int:
    return int(counts.users.sum())


def test_the_same_events_teach_once(shop):
    """Read again from the shipped release, a store has only the judges' events as new, and these
    are too few.
    """
    learned = checkpoint.load(shop.folder / "next")
    again = shop.night("after", active=shop.folder / "next")
    assert again.verdict == job.NOTHING_NEW
    assert again.metrics["lessons"]["new_decisions"] == 60
    assert not (shop.folder / "after").exists()
    assert sorted(learned.watermark.of(install) for install in INSTALLS) == [0, 0, *[120] * 4]


def test_what_was_held_out_teaches_the_next_night(shop):
    """After two nights the likes of all devices are counted once, but those of the new judges'
    second day.
    """
    before = likes(checkpoint.load(shop.active).popularity)
    counted = [likes(checkpoint.load(shop.folder / "next").popularity) - before]
    shop.day()
    done = shop.night("after", active=shop.folder / "next")
    second = checkpoint.load(shop.folder / "after")
    counted.append(likes(second.popularity) - before)

    each_day = distinct_likes(shop)
    old, new = (checkpoint.load(shop.folder / name).watermark for name in ("next", "after"))
    for watermark, found in ((old, counted[0]), (new, counted[1])):
        expected = sum(
            each_day[install, day]
            for install in INSTALLS
            for day in (1, 2)
            if watermark.of(install) >= 120 * day
        )
        assert found == expected
    assert done.metrics["lessons"]["judging_installs"] == 2
    assert sum(new.of(install) == 240 for install in INSTALLS) == 4
    assert all(new.of(install) >= old.of(install) for install in INSTALLS)


def distinct_likes(shop: Shop) -> dict[tuple[str, int], int]:
    """Return how many items each install liked on each of the two days."""
    rows = history_files.read(shop.store).to_pylist()
    start = FakeClock().wall_ms() // 1000 // DAY
    liked = {
        (row["install"], row["time"] // 1000 // DAY - start + 1, row["item"])
        for row in rows
        if row["item"]
    }
    return {
        (install, day): sum(one[:2] == (install, day) for one in liked)
        for install in INSTALLS
        for day in (1, 2)
    }


def test_what_ships_is_what_was_judged(shop, monkeypatch):
    """The network that is judged has every tensor of the shipped one, popularity included."""
    shop.day()
    judged = {}

    def evaluate(active, candidate, decisions, metadata):
        tensors = candidate.network.state_dict()
        judged.update({name: tensor.clone() for name, tensor in tensors.items()})
        judged["rows"] = decisions.group
        return {"sentence": "", "gate": {"verdict": "ship", "reasons": []}}

    monkeypatch.setattr(night_candidate, "judge_candidate", evaluate)
    done = shop.night("after", RetrainOptions(), shop.folder / "next")
    assert (done.verdict, done.metrics["popularity"]) == ("ship", "continued")
    shipped = checkpoint.load(shop.folder / "after").network.state_dict()
    assert len(judged.pop("rows")) == done.metrics["lessons"]["judging_decisions"]
    assert "popularity" in shipped
    for name, tensor in shipped.items():
        # The file has the decay itself, and its logit loses a few bits on the way.
        np.testing.assert_allclose(judged[name], tensor, rtol=1e-5, atol=1e-7, err_msg=name)


def test_old_segments_may_be_deleted(shop):
    """With the segments of the first day gone, states, popularity and decisions of the second are
    the same, and nothing counts as missing.
    """
    segments = shop.store.names("segments")
    shop.day()
    whole = shop.night("whole", active=shop.folder / "next")
    for name in segments:
        shop.store.delete(name)
    purged = shop.night("purged", active=shop.folder / "next")
    assert purged.metrics["log"]["missing"] == 0
    assert purged.metrics["log"]["dropped"] == {}
    # The decisions of the judges' first day are gone with their segments.
    lessons = [done.metrics["lessons"] for done in (whole, purged)]
    assert lessons[0]["new_events"] == lessons[1]["new_events"]
    found = [checkpoint.load(shop.folder / name) for name in ("whole", "purged")]
    for name in ("day", "row", "users"):
        np.testing.assert_array_equal(*(getattr(one.popularity, name) for one in found))
    assert found[0].watermark == found[1].watermark


def test_a_killed_night_runs_again_to_the_same_checkpoint(shop):
    """Killed at any of its steps the job leaves no folder, or a whole one, and its rerun writes the
    same files.
    """
    shop.day()
    active = shop.folder / "next"
    before = files(active)
    shop.night("expected", active=active)
    for step in ("_finished", "renewed_candidate", "teach", "judge", "_write", "appear"):
        kill_at(shop, step)
        assert not (shop.folder / "after").exists()
        done = shop.night("after", active=active)
        assert done.written
        assert files(shop.folder / "after") == files(shop.folder / "expected")
        shutil.rmtree(shop.folder / "after")
    assert files(active) == before
    assert not list(shop.folder.glob(".*"))


def kill_at(shop: Shop, step: str) -> None:
    """Run the second night in a process that kills itself after a step."""
    child = os.fork()
    if child == 0:
        act = getattr(job, step)

        def dies(*arguments):
            if step != "appear":
                act(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(job, step, dies)
        shop.night("after", active=shop.folder / "next")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_finished_night_is_not_repeated(shop):
    """The same call again returns the same metrics; other options do not overwrite the folder."""
    before = files(shop.folder / "next")
    shop.devices = []
    again = shop.night()
    assert again.written
    assert again.metrics == json.loads(before["metrics.json"])
    with pytest.raises(FileExistsError, match="found one of other events or options"):
        shop.night(options=replace(SHIPS, seed=1))
    assert files(shop.folder / "next") == before


def test_a_night_does_not_wait_for_another_job(shop):
    """While the store is compacted or erased from the job goes on, says so, and the next one
    extends the history.
    """
    shop.day()
    before = shop.store.names("history")
    with exclusive_job(shop.store, shop.clock, "erase"):
        done = shop.night("after", active=shop.folder / "next")
    assert done.written
    assert any("the store's history was not extended" in note for note in done.notes)
    assert shop.store.names("history") == before
    shop.night("again", active=shop.folder / "after")
    assert history_files.accounted(shop.store) == dict.fromkeys(INSTALLS, 240)


def test_foreign_folders_and_other_jobs_are_left_alone(shop):
    """A folder that the job did not write, or that another job writes, ends it in one line."""
    with pytest.raises(FileExistsError, match="choose another --out"):
        shop.night("active")
    with pytest.raises(FileNotFoundError, match="none: expected a policy checkpoint"):
        shop.night("after", active=shop.folder / "none")
    assert not list(shop.folder.glob(".*"))
    with (
        unfinished(shop.folder / "after"),
        pytest.raises(BusyError, match="expected no other job that writes this folder"),
    ):
        shop.night("after", active=shop.folder / "next")


def test_the_exit_status_says_what_came_of_it(shop, shell):
    """0 for a next release, 3 for a held one, 4 for nothing new, 1 for an error, in one line."""
    shop.day()
    folder = shop.folder
    common = ["retrain", "--events", folder / "events", "--checkpoint", folder / "next"]
    held = shell.json(*common, "--out", folder / "after", status=3)
    assert held["verdict"] == "hold"
    assert [path.name for path in (folder / "after").iterdir()] == ["metrics.json"]
    shipped = shell.json(*common, "--out", folder / "after", "--ship-anyway")
    assert shipped["release"] == 3
    common[-1] = folder / "after"
    nothing = shell.json(*common, "--out", folder / "last", status=4)
    assert (nothing["verdict"], nothing["written"]) == ("nothing new", False)
    status, _, err = shell.run(*common[:2], folder / "none", *common[3:], "--out", folder / "last")
    assert status == 1
    assert "none: expected the folder that `sanderling collect` writes to" in err.splitlines()[-1]
    assert not (folder / "last").exists()


def test_an_install_with_a_gap_waits(shop):
    """Of an install that misses an event nothing new teaches until the event arrives; then all
    does.
    """
    late = shop.devices[0].slates(1, shop.clock)
    shop.day()
    done = shop.night("after", active=shop.folder / "next")
    assert done.metrics["lessons"]["waiting_installs"] == 1
    mark = checkpoint.load(shop.folder / "after").watermark
    assert mark.of(INSTALLS[0]) <= 120
    shop.upload(late)
    again = shop.night("again", active=shop.folder / "after")
    assert again.metrics["lessons"]["waiting_installs"] == 0
    new = again.metrics["lessons"]["new_decisions"]
    assert new >= 31


def test_interactions_teach_up_to_the_first_device(shop, tmp_path):
    """Of a log that the app exports itself what devices report too is left out, as is what the
    catalog lacks; both are counted, and the warm start goes on.
    """
    day_s = FakeClock().wall_ms() // 1000
    lines = ["user_id,item_id,timestamp"]
    lines += [f"u{at},i{item},{day_s - DAY * at}" for at in range(2, 12) for item in range(ITEMS)]
    lines += [f"u{at},i1,{day_s + 3600 * at}" for at in range(5)]
    lines += [f"u1,gone,{day_s - DAY}"]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines))
    shop.day()
    options = replace(SHIPS, interactions=path)
    done = shop.night("after", options, shop.folder / "next")
    assert done.metrics["interactions"] == {
        "events": 120,
        "reported_by_devices": 5,
        "unknown_items": 1,
    }
    assert "supervision" not in done.metrics["learning"]


def test_a_policy_trained_anew_counts_no_event_twice(shop):
    """What devices did before the end of the log that `train` was given may be in that log: it
    counts for no popularity, while its decisions teach.
    """
    made = checkpoint.load(shop.active)
    later = replace(made.metadata, log_to=shop.clock.wall_ms() // 1000 - 1)
    checkpoint.save(shop.active, replace(made, metadata=later), {})
    shop.devices = [Device(number) for number in range(6, 12)]
    shop.day()
    done = shop.night("after")
    lessons = done.metrics["lessons"]
    assert lessons["events_in_the_first_log"] + lessons["new_events"] == 8 * 30
    assert lessons["events_in_the_first_log"] > 0
    assert done.metrics["learning"]["decisions"] == 8 * 30
    counted = checkpoint.load(shop.folder / "after").popularity
    assert counted.day[-1] == shop.clock.wall_ms() // 1000 // DAY - 1
    assert likes(counted) - likes(made.popularity) <= lessons["new_events"]


def test_wrong_clocks_decide_nothing(shop):
    """Events decades ahead or years behind count as of their receipt, and are told."""
    shop.day()
    now = shop.clock.wall_ms()
    for device, years in zip(shop.devices, (-3, 40), strict=False):
        wrong = FakeClock(now + years * 365 * DAY * 1000)
        shop.upload([device.observed("i1", wrong)])
    done = shop.night("after", active=shop.folder / "next")
    assert done.metrics["log"]["misdated"] == 2
    assert any(note.startswith("2 events have times years off") for note in done.notes)
    after = checkpoint.load(shop.folder / "after")
    assert after.metadata.log_to <= now // 1000
    assert after.popularity.day.max() <= now // 1000 // DAY
    assert after.popularity.day.min() >= FakeClock().wall_ms() // 1000 // DAY - 1


def test_a_watermark_names_no_install(tmp_path):
    """It is kept by a hash, and an absent file is the watermark of nothing."""
    mark = Watermark().raised({INSTALLS[0]: 7, INSTALLS[1]: 0}).raised({INSTALLS[0]: 5})
    mark.save(tmp_path / "watermark.parquet")
    assert INSTALLS[0].encode() not in (tmp_path / "watermark.parquet").read_bytes()
    assert Watermark.load(tmp_path / "watermark.parquet") == mark
    assert [mark.of(install) for install in INSTALLS[:3]] == [7, 0, 0]
    assert Watermark.load(tmp_path / "none") == Watermark()


def test_a_rerun_builds_a_missing_bundle_and_keeps_a_finished_one(shop, shell, monkeypatch):
    """After a kill between checkpoint and bundle, or after both, the same command succeeds."""
    from sanderling_quantize import build_bundle

    built = []
    monkeypatch.setattr(build_bundle, "build", lambda out, bundle, **_: built.append(bundle))
    monkeypatch.setattr(build_bundle, "texts_outside", lambda bundle: None)
    folder = shop.folder
    command = ["retrain", "--events", folder / "events", "--checkpoint", folder / "active"]
    command += ["--out", folder / "next", "--ship-anyway", "--bundle", folder / "bundle"]
    shell.json(*command)
    assert built == [folder / "bundle"]

    settings = json.loads((folder / "next" / "config.json").read_text())
    write_bundle(folder / "bundle", release=2)
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    status, _, err = shell.run(*command)
    assert status == 1
    assert "expected nothing there yet" in err
    manifest["lineage"]["data_sha256"] = settings["data_sha256"]
    (folder / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    shell.json(*command)
    assert built == [folder / "bundle"]


def test_a_release_may_explore_otherwise_than_the_one_before(shop):
    """Decisions teach where the checkpoint says that their release explored so, and not otherwise;
    the next checkpoint goes on with both releases' settings.
    """
    path = shop.active / "config.json"
    settings = json.loads(path.read_text())
    was = checkpoint.load(shop.active).config.exploration()
    changed = {"config": {**settings["config"], "epsilon": 0.4, "newcomers": 0.0}, "release": 2}

    def new_decisions(out: str, changes: dict) -> int:
        path.write_text(json.dumps({**settings, **changes}))
        return shop.night(out).metrics["lessons"]["new_decisions"]

    assert new_decisions("unchanged", {}) == 180
    assert new_decisions("changed", changed) == 0
    assert new_decisions("known", {**changed, "explorations": {"1": was}}) == 180
    known = checkpoint.load(shop.folder / "known")
    assert known.metadata.explorations == {"1": was, "2": {**was, "epsilon": 0.4, "newcomers": 0.0}}
    assert known.explorations() == known.metadata.explorations


def test_a_retraining_from_python_is_known_again_by_its_tables(shop, tmp_path):
    """The same rows in another table, or in a file, are the same inputs: nothing is learned again;
    other rows are refused.
    """
    rows = shop_rows()

    def night(items: object) -> job.RetrainResult:
        given = {"ship_anyway": True, "items": items}
        return retrain(shop.store.root, shop.active, tmp_path / "python", **given)

    done = night(pa.Table.from_pylist(rows))
    before = files(tmp_path / "python")
    assert (done.release, done.written, done.bundle) == (2, True, None)
    for again in (pa.Table.from_pylist(rows), shop.table(rows)):
        assert night(again).written
        assert files(tmp_path / "python") == before
    with pytest.raises(FileExistsError, match="found one of other events or options"):
        night(pa.Table.from_pylist(rows[:-1]))
    with pytest.raises(ValueError, match="days: expected a number of at least 0, found -1"):
        retrain(shop.store.root, shop.active, tmp_path / "other", days=-1)
