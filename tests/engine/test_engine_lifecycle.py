"""Opening, configuring, sharing between threads and closing an engine."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import get_type_hints

import pytest

from sanderling import BundleError, Engine
from sanderling.events.schema import Decision, Observation, Outcome
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.options import EngineOptions, OptionTypes
from sanderling.runtime.clock import SystemClock
from tests.support.engines import active_bundle_of, stored
from tests.support.fakes import FakeClock, FakeEntropy, FakeTransport


@pytest.mark.parametrize("setting", ["privacy", "window_s", "pseudonym_days", "outbox_bytes"])
def test_a_setting_of_any_size_is_named_in_its_error(bundle, tmp_path, setting):
    """A setting of hundreds or thousands of digits is a ValueError that names it."""
    for number in (10**400, 10**5000):
        with pytest.raises(ValueError, match=f"{setting}: expected"):
            Engine.open(bundle, tmp_path / "state", transport=FakeTransport(), **{setting: number})


def test_no_user_name_or_context_reaches_the_disk_or_the_wire(bundle, tmp_path):
    """User names and context texts are in no byte of the state folder; pseudonyms differ between
    installs."""
    with Engine.open(bundle, tmp_path / "a") as one, Engine.open(bundle, tmp_path / "b") as two:
        for engine in (one, two):
            engine.observe("canary-user-7f3a", "item-1")
            slate = engine.recommend("canary-user-7f3a", context="canary-context-91bc")
            engine.reward(slate, slate[0], 1.0)
        users = {event.user for engine in (one, two) for event in stored(engine)}
        assert len(users) == 2
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_threads_share_an_engine(engine):
    """With many threads every event has its own number and every state its right checksum."""

    def work(name):
        for step in range(5):
            slate = engine.recommend(name, k=4)
            engine.observe(name, f"item-{step}", "click")
            engine.reward(slate, slate[0], 1.0)

    threads = [threading.Thread(target=work, args=(f"user-{i % 2}",)) for i in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = stored(engine)
    assert [event.seq for event in events] == list(range(1, 64 * 5 * 3 + 1))
    for user in {event.user for event in events}:
        checks, check = [NO_EVENTS], NO_EVENTS
        mine = [event for event in events if event.user == user]
        for event in mine:
            if isinstance(event, Observation) or (
                isinstance(event, Outcome) and event.updates_state
            ):
                check = next_checksum(check, event.item, event.kind)
                checks.append(check)
        assert all(
            checks[e.state_events] == e.state_checksum for e in mine if isinstance(e, Decision)
        )


def test_closing_twice_is_harmless_and_rewards_then_fail_clearly(bundle, tmp_path):
    """After `close`, `recommend` still answers and the receipt of a reward says why it is not
    stored."""
    engine = Engine.open(bundle, tmp_path)
    slate = engine.recommend("anna")
    engine.close()
    engine.close()
    receipt = engine.reward(slate, slate[0], 1.0)
    assert (receipt.stored, "closed" in receipt.reason) == (False, True)
    assert engine.recommend("anna")


def test_a_missing_bundle_says_what_was_expected(tmp_path):
    """Opening a folder without a bundle raises BundleError that names the manifest and the
    folder."""
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Engine.open(tmp_path)


def test_nothing_is_uploaded_while_the_app_forbids_it(bundle, tmp_path):
    """While `may_upload` returns False events stay stored and no connection is tried."""
    asked = []
    url = "http://127.0.0.1:9/v1"
    with Engine.open(
        bundle, tmp_path, collector=url, may_upload=lambda: bool(asked.append(1))
    ) as engine:
        engine.recommend("anna")
        assert not engine.flush(0.5)
        assert engine.counters()["upload"].attempts == 0
        assert len(stored(engine)) == 1
    assert asked


def test_the_engine_works_with_an_unset_clock(bundle, tmp_path):
    """An engine opens, recommends, closes reward windows and reopens with a clock that starts in
    1970."""
    clock = FakeClock(wall_ms=0)
    for _ in range(2):
        with Engine.open(
            bundle, tmp_path / "state", clock=clock, entropy=FakeEntropy(), window_s=60.0
        ) as engine:
            slate = engine.recommend("anna", k=3)
            engine.seen(slate)
            assert engine.reward(slate, slate[0], 1.0)
            clock.advance(61)
            assert len(slate) == 3


def test_a_system_clock_before_1970_shows_0(monkeypatch):
    """Ids and events never hold a negative time."""
    monkeypatch.setattr("time.time_ns", lambda: -1)
    assert SystemClock().wall_ms() == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"outbox_bytes": 0}, "outbox_bytes"),
        ({"outbox_bytes": 2**51}, "outbox_bytes"),
        ({"collector": "http://127.0.0.1:9", "transport": FakeTransport()}, "transport"),
    ],
)
def test_impossible_settings_are_named(bundle, tmp_path, settings, name):
    """A wrong outbox size, or two destinations, raise ValueError before anything is opened."""
    with pytest.raises(ValueError, match=name):
        Engine.open(bundle, tmp_path / "state", **settings)
    assert not (tmp_path / "state").exists()


def test_open_types_every_option():
    """The keyword arguments of `Engine.open` are the fields of `EngineOptions`, with the same
    types."""
    fields = get_type_hints(EngineOptions)
    positional = {"state", "collector", "token"}
    assert get_type_hints(OptionTypes) == {
        name: kind for name, kind in fields.items() if name not in positional
    }


def test_an_unknown_option_is_named(bundle):
    """An unknown option raises TypeError in the caller's words, with the nearest known one."""
    with pytest.raises(
        TypeError, match=r"^windows_s: expected an option of `Engine.open`.*`window_s`"
    ):
        Engine.open(bundle, windows_s=60.0)
    with pytest.raises(TypeError, match=r"^colour: expected an option .* see `EngineOptions`"):
        Engine.open(bundle, colour="red")


def test_state_files_are_private(bundle, tmp_path):
    """Whatever the umask, every file of the state folder is 0600 and every new folder 0700; an
    outbox of before is restricted when it is opened."""
    before = os.umask(0o022)
    try:
        with Engine.open(bundle, tmp_path / "state") as engine:
            slate = engine.recommend("anna")
            assert engine.reward(slate, slate[0], 1.0)
            engine.upsert_items([{"id": "new", "text": "new"}])
            slots = active_bundle_of(engine).slots
            assert slots is not None
            slots.block(7, "a test")
            files = modes(tmp_path / "state")
            assert {"outbox.db", "outbox.db-wal", "outbox.lock", "ballast"} < files.keys()
            assert {"slots.json", "added-items.jsonl"} < files.keys()
            assert set(files.values()) == {0o600}
            assert {stat.S_IMODE(slots.folder.stat().st_mode)} == {0o700}
        (tmp_path / "state" / "outbox.db").chmod(0o644)
        Engine.open(bundle, tmp_path / "state").close()
        assert set(modes(tmp_path / "state").values()) == {0o600}
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def modes(folder: Path) -> dict[str, int]:
    """Return the mode of each file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
