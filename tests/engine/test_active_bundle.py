"""Which bundle is active: only the one that decided is confirmed, and only the one that failed is
blocked.
"""

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
def active(tmp_path):
    """An active bundle that is not confirmed."""
    write_bundle(tmp_path / "bundle")
    write_bundle(tmp_path / "state" / "bundles" / "2", release=2)
    active = ActiveBundle(Bundle.open(tmp_path / "bundle"), tmp_path / "state", owns_folder=True)
    active.update(lambda slots, _: slots.path(2))
    return active


def test_a_decision_by_the_previous_bundle_confirms_nothing(active, tmp_path):
    """A decision that began before a swap does not confirm the new bundle."""
    active.confirm(Bundle.open(tmp_path / "bundle"))
    assert active.is_unconfirmed
    active.confirm(active.scorer.bundle)
    assert not active.is_unconfirmed
    active.close(5.0)


def test_two_threads_that_fail_together_roll_back_once(active, tmp_path):
    """A failure on a bundle that another thread has rolled back already changes nothing."""
    before = active.scorer
    assert not active.roll_back("failed", Bundle.open(tmp_path / "bundle"))
    assert active.scorer is before
    assert active.is_unconfirmed
    assert active.roll_back("failed", before.bundle)
    assert active.scorer is not before
    assert not active.is_unconfirmed


def test_a_confirmed_release_is_not_rolled_back_where_its_catalog_changed_meanwhile(active):
    """A request whose scorer was replaced meanwhile is tried again with the new one of the same
    bundle; one that fails with that, too, gets its error."""
    active.confirm(active.scorer.bundle)
    active.wait_for_confirmation()
    failed = active.scorer
    active.change_attributes({"item-1": {"price": 3}}, 0)
    error = RuntimeError("a failed request")
    assert active.scorer_after(failed, error) is active.scorer
    assert active.release == 2
    with pytest.raises(RuntimeError, match="a failed request"):
        active.scorer_after(active.scorer, error)
    active.close(5.0)


def test_a_failure_is_logged_as_a_roll_back_only_if_it_caused_one(active, tmp_path, caplog):
    """A release that failed after it was replaced is not reported as rolled back."""
    failed = active.scorer.bundle
    active.abandon_release(Bundle.open(tmp_path / "bundle"), RuntimeError("replaced already"))
    assert not caplog.records
    active.abandon_release(failed, RuntimeError("a bad release"))
    (record,) = caplog.records
    assert record.getMessage() == "release 2 failed on its first request and was rolled back"
    assert "a bad release" in caplog.text


def stored(state) -> SlotState:
    """Return the stored state of the installed bundles."""
    return msgspec.json.decode((state / "bundles" / "slots.json").read_bytes(), type=SlotState)


def fail(*_, **__):
    """Fail as a bad release would."""
    raise RuntimeError("a bad release")


def full(path) -> None:
    """Fail as a full disk would."""
    raise OSError(28, "No space left on device")


def test_a_release_that_fails_on_a_full_disk_fails_no_request(tmp_path, monkeypatch):
    """When a roll-back cannot be stored, the previous bundle is active all the same."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        monkeypatch.setattr(scorer_of(engine), "rank", fail)
        monkeypatch.setattr(files, "flush_path", full)
        assert [len(engine.recommend("anna")) for _ in range(2)] == [10, 10]
        assert engine.release == 1
        with pytest.raises(StorageError, match="No space left"):
            engine.rollback()


@pytest.mark.parametrize("call", ["search", "similar"])
def test_a_release_on_trial_that_cannot_be_searched_is_rolled_back(tmp_path, monkeypatch, call):
    """The search is answered by the bundle before, and the failed one is blocked: else the first
    decision would confirm a release whose searches fail. What is wrong with a search itself rolls
    nothing back, and one that succeeds confirms nothing: it decides nothing."""
    write_bundle(tmp_path / "bundle")
    argument = "coffee" if call == "search" else "item-1"
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        search = getattr(engine, call)
        with pytest.raises(ValueError, match="prise"):
            search(argument, where={"prise": 3})
        with pytest.raises(ValueError, match="no-item"):
            engine.similar("no-item")
        assert len(search(argument)) > 0
        assert active_bundle_of(engine).is_unconfirmed

        monkeypatch.setattr(scorer_of(engine), "item", fail)
        found = search(argument)
        assert (found.release, engine.release) == (1, 1)
        assert len(found) > 0
        assert "a bad release" in engine.counters()["updates"].last_fault
    assert list(stored(tmp_path / "state").blocked) == [2]

    with Engine.open(tmp_path / "bundle") as engine:
        monkeypatch.setattr(scorer_of(engine), "item", fail)
        with pytest.raises(RuntimeError, match="a bad release"):
            getattr(engine, call)(argument)


def test_the_apps_own_bundle_is_active_when_the_previous_one_does_not_open(tmp_path, monkeypatch):
    """A failed release gives way to the app's own bundle when the previous one was damaged."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as engine:
        engine.recommend("anna")
    write_bundle(tmp_path / "state" / "bundles" / "3", release=3)
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        active_bundle_of(engine).update(lambda slots, active: slots.path(3))
        monkeypatch.setattr(scorer_of(engine), "rank", fail)
        (tmp_path / "state" / "bundles" / "2" / "manifest.json").write_bytes(b"")
        assert len(engine.recommend("anna")) == 10
        assert engine.release == 1
    assert list(stored(tmp_path / "state").blocked) == [3]


def test_an_engine_beside_the_owner_of_the_folder_changes_nothing(tmp_path):
    """An engine beside the one that tries a release uses a confirmed one, refuses every change, and
    neither blocks nor confirms anything.
    """
    write_bundle(tmp_path / "bundle")
    state = tmp_path / "state"
    # Without a thread of its own, the owner writes nothing meanwhile either.
    with trying(tmp_path / "bundle", state, background=False) as first:
        modified_ns = {path: path.stat().st_mtime_ns for path in state.rglob("*")}
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
                with pytest.raises(StorageError, match="found one that was opened beside it"):
                    change()
            with pytest.raises(UpdateError, match="found one that was opened beside it"):
                second.update()
        assert {path: path.stat().st_mtime_ns for path in state.rglob("*")} == modified_ns
        first.recommend("anna")
    assert stored(state).confirmed
    with pytest.raises(StorageError, match="a closed one"):
        first.remove_items(["item-1"])


def test_an_engine_beside_the_owner_uses_the_confirmed_release(tmp_path):
    """An engine that does not own the folder uses the installed release once it is confirmed."""
    write_bundle(tmp_path / "bundle")
    with trying(tmp_path / "bundle", tmp_path / "state") as first:
        first.recommend("anna")
        active_bundle_of(first).wait_for_confirmation()
        with Engine.open(tmp_path / "bundle", tmp_path / "state") as second:
            assert second.release == 2


def test_an_engine_without_an_outbox_owns_its_folder(tmp_path):
    """When the outbox does not open, releases are tried and confirmed all the same, by one engine
    only.
    """
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
    assert stored(state).confirmed
