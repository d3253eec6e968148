"""Which bundle serves: only the one that served is confirmed, and only the one that failed is left."""

from __future__ import annotations

import msgspec
import pytest

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, UpdateError
from sanderling.releases.active_bundle import ActiveBundle
from sanderling.releases.slots import SlotState
from sanderling.runtime import files
from tests.support.bundles import trying, write_bundle
from tests.support.engines import active_bundle_of, scorer_of
from tests.support.outboxes import database


@pytest.fixture
def serving(tmp_path):
    """A bundle that serves and has not proven itself."""
    write_bundle(tmp_path / "bundle")
    found = ActiveBundle(Bundle.open(tmp_path / "bundle"), tmp_path / "state", holds=True)
    found.unproven = True
    return found


def test_a_decision_of_the_bundle_before_confirms_nothing(serving, tmp_path):
    """A decision that was begun before a swap says nothing of the new bundle."""
    serving.confirm(Bundle.open(tmp_path / "bundle"))
    assert serving.unproven
    serving.confirm(serving.scorer.bundle)
    assert not serving.unproven
    serving.close(5.0)


def test_two_threads_that_fail_together_go_back_once(serving, tmp_path):
    """Who failed on a bundle that another thread has left already does not roll back what serves now."""
    before = serving.scorer
    serving.go_back("failed", Bundle.open(tmp_path / "bundle"))
    assert serving.scorer is before
    assert serving.unproven
    serving.go_back("failed", before.bundle)
    assert serving.scorer is not before
    assert not serving.unproven


def noted(state) -> SlotState:
    """Return what is on the disk of the installed releases."""
    return msgspec.json.decode((state / "bundles" / "slots.json").read_bytes(), type=SlotState)


def fail(*_, **__):
    """Fail as no bundle may."""
    raise RuntimeError("a bad release")


def full(path) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def test_a_release_that_fails_on_a_full_disk_stops_no_request(tmp_path, monkeypatch):
    """Where it cannot be noted that a release failed, the bundle before serves all the same."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        monkeypatch.setattr(scorer_of(engine), "rank", fail)
        monkeypatch.setattr(files, "flush_path", full)
        assert [len(engine.recommend("anna")) for _ in range(2)] == [10, 10]
        assert engine.release == 1
        with pytest.raises(StorageError, match="No space left"):
            engine.rollback()


def test_where_the_bundle_before_does_not_open_the_one_given_serves(tmp_path, monkeypatch):
    """A release that fails leads to the app's own bundle where the previous one was damaged meanwhile."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        engine.recommend("anna")
    write_bundle(tmp_path / "state" / "bundles" / "3", release=3)
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        active_bundle_of(engine).update(lambda slots, serving: slots.path(3))
        monkeypatch.setattr(scorer_of(engine), "rank", fail)
        (tmp_path / "state" / "bundles" / "2" / "manifest.json").write_bytes(b"")
        assert len(engine.recommend("anna")) == 10
        assert engine.release == 1
    assert list(noted(tmp_path / "state").blocked) == [3]


def test_who_finds_the_folder_in_use_changes_nothing_there(tmp_path):
    """An engine beside the one that tries a release serves a proven one, refuses every change in words, and neither
    blocks nor confirms anything (bad input 78)."""
    write_bundle(tmp_path / "bundle")
    state = tmp_path / "state"
    with trying(tmp_path / "bundle", state) as first:
        files = {path: path.stat().st_mtime_ns for path in state.rglob("*")}
        with Engine.open(
            tmp_path / "bundle", state, releases="http://127.0.0.1:1", root=b""
        ) as second:
            assert (first.release, second.release) == (2, 1)
            assert len(second.recommend("anna")) == 10
            for change in (
                lambda: second.upsert_items([{"id": "new", "text": "red shoe"}]),
                lambda: second.remove_items(["item-1"]),
                second.rollback,
            ):
                with pytest.raises(StorageError, match="found one beside it"):
                    change()
            with pytest.raises(UpdateError, match="found one beside it"):
                second.update()
        assert {path: path.stat().st_mtime_ns for path in state.rglob("*")} == files
        first.recommend("anna")
    assert noted(state).confirmed
    with pytest.raises(StorageError, match="a closed one"):
        first.remove_items(["item-1"])


def test_a_confirmed_release_serves_beside_too(tmp_path):
    """An engine that finds the folder in use serves the installed release that has proven itself."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as first:
        first.recommend("anna")
        active_bundle_of(first)._confirming.join()
        with Engine.open(tmp_path / "bundle", tmp_path / "state") as second:
            assert second.release == 2


def test_an_engine_without_an_outbox_holds_its_folder(tmp_path):
    """Where the outbox does not open but the folder is free, releases are tried and confirmed, by one engine alone."""
    write_bundle(tmp_path / "bundle")
    state = tmp_path / "state"
    with trying(tmp_path / "bundle", state):
        database(state).pragma("user_version", 99)
    with (
        Engine.open(tmp_path / "bundle", state) as first,
        Engine.open(tmp_path / "bundle", state) as second,
    ):
        assert "expected schema 1" in first.storage_fault
        assert "expected one engine per state folder" in second.storage_fault
        assert (first.release, second.release) == (2, 1)
        first.recommend("anna")
    assert noted(state).confirmed
