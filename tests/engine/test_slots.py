"""The state of the installed bundles: what is current after a crash, and what is blocked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import StorageError, UpdateError
from sanderling.releases.slots import FILE, Slots
from sanderling.runtime import files


class Crash(BaseException):
    """Ends the process."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bundles"


def install(folder: Path, *releases: int) -> Slots:
    for release in releases:
        (folder / str(release)).mkdir(parents=True)
    return Slots(folder)


def serve(folder: Path, release: int) -> Slots:
    """Install, activate and confirm a release."""
    slots = install(folder, release)
    slots.activate(release)
    slots.confirm()
    return slots


def test_nothing_installed(folder: Path) -> None:
    """Without an update the app's own bundle is current, and reading that writes nothing."""
    assert Slots(folder).current() is None
    assert Slots(folder).roll_back("?") is None
    assert not folder.exists()


def test_a_confirmed_bundle_stays_current(folder: Path) -> None:
    """A confirmed bundle stays current over any number of starts."""
    serve(folder, 1)
    assert [Slots(folder).current() for _ in range(5)] == [folder / "1"] * 5
    assert Slots(folder).state().highest == 1


def test_an_unconfirmed_bundle_is_tried_once(folder: Path) -> None:
    """An unconfirmed bundle gets one start; after a crash the previous one is current, the new one
    blocked.
    """
    serve(folder, 1)
    install(folder, 2).activate(2)
    first = Slots(folder)
    assert [first.current(), first.current()] == [folder / "2"] * 2
    assert Slots(folder).current() == folder / "1"
    assert "before the bundle was confirmed" in Slots(folder).state().blocked[2]
    assert Slots(folder).current() == folder / "1"


def test_confirmation_ends_the_trial(folder: Path) -> None:
    """A bundle that is confirmed in its first start stays current."""
    serve(folder, 1)
    install(folder, 2).activate(2)
    slots = Slots(folder)
    slots.current()
    slots.confirm()
    assert Slots(folder).current() == folder / "2"


def test_a_start_without_requests_does_not_count(folder: Path) -> None:
    """A process that ends without a crash before it decided anything does not cost the bundle its
    trial.
    """
    serve(folder, 1)
    install(folder, 2).activate(2)
    for _ in range(3):
        slots = Slots(folder)
        assert slots.current() == folder / "2"
        slots.clear_trial()


def test_no_alternation(folder: Path) -> None:
    """A release that was rolled back is blocked, so that update and roll-back cannot alternate."""
    serve(folder, 1)
    slots = install(folder, 2)
    slots.activate(2)
    assert slots.roll_back("scores are NaN") == folder / "1"
    with pytest.raises(UpdateError, match="release 2 is blocked on this device: scores are NaN"):
        Slots(folder).activate(2)


def test_anti_rollback(folder: Path) -> None:
    """No release up to the highest confirmed one is activated, not even after a roll-back."""
    serve(folder, 3)
    slots = serve(folder, 5)
    assert slots.roll_back("requested by the app") == folder / "3"
    for release in (1, 3, 4, 5):
        (folder / str(release)).mkdir(exist_ok=True)
        with pytest.raises(UpdateError, match=r"expected one above 5|is blocked"):
            Slots(folder).activate(release)
    assert Slots(folder).state().highest == 5


def test_highest_rises_with_confirm_only(folder: Path) -> None:
    """Activation alone does not raise `highest`: a bad release must not lock out the next one."""
    serve(folder, 1)
    slots = install(folder, 9)
    slots.activate(9)
    assert slots.state().highest == 1
    slots.roll_back("bad")
    assert slots.state().highest == 1
    install(folder, 2).activate(2)


def test_previous_is_the_last_confirmed(folder: Path) -> None:
    """When an unconfirmed bundle is replaced by the next, a roll-back skips it."""
    serve(folder, 1)
    slots = install(folder, 2, 3)
    slots.activate(2)
    slots.activate(3)
    assert slots.roll_back("bad") == folder / "1"


def test_a_second_roll_back_leads_to_the_apps_own_bundle(folder: Path) -> None:
    """When the previous bundle fails too, the app's own is current."""
    serve(folder, 1)
    slots = serve(folder, 2)
    assert slots.roll_back("bad") == folder / "1"
    assert slots.roll_back("bad too") is None
    assert Slots(folder).current() is None


def test_a_missing_folder_is_a_roll_back(folder: Path) -> None:
    """A current bundle whose folder is missing gives way to the previous one."""
    serve(folder, 1)
    serve(folder, 2)
    (folder / "2").rmdir()
    assert Slots(folder).current() == folder / "1"


def test_confirm_deletes_older_bundles(folder: Path) -> None:
    """After a confirmation only the current and the previous bundle stay on the disk."""
    for release in (1, 2, 3):
        serve(folder, release)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", FILE]


def test_only_an_installed_release_can_be_activated(folder: Path) -> None:
    """A release that is not installed cannot become current."""
    with pytest.raises(UpdateError, match="found none"):
        Slots(folder).activate(4)


def test_durability_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change flushes the new file, renames it, then flushes the folder and its parent."""
    calls: list[tuple[str, str]] = []
    rename = Path.replace

    def record_rename(self: Path, target: Path) -> Path:
        calls.append(("rename", self.name))
        return rename(self, target)

    monkeypatch.setattr(files, "flush_path", lambda path: calls.append(("flush", path.name)))
    monkeypatch.setattr(Path, "replace", record_rename)
    install(folder, 1).activate(1)
    partial = f"{FILE}.partial"
    assert calls == [
        ("flush", partial),
        ("rename", partial),
        ("flush", folder.name),
        ("flush", folder.parent.name),
    ]


def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crash at the n-th of: write, flush, rename, flush, flush; a write is cut in half."""
    count = 0

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == step and function is write:
                path, content = arguments
                write(path, content[: len(content) // 2])  # type: ignore[arg-type, index]
            if count == step:
                raise Crash
            return function(*arguments)

        return call

    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", wrap(write))
    monkeypatch.setattr(Path, "replace", wrap(Path.replace))
    monkeypatch.setattr(files, "flush_path", wrap(files.flush_path))


OPERATIONS: dict[str, Callable[[Slots], object]] = {
    "activate": lambda slots: slots.activate(3),
    "try": lambda slots: slots.current(),
    "confirm": lambda slots: slots.confirm(),
    "roll_back": lambda slots: slots.roll_back("bad"),
    "block": lambda slots: slots.block(7, "bad"),
}


@pytest.mark.parametrize("step", range(1, 6))
@pytest.mark.parametrize("name", OPERATIONS)
def test_crash_points(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: int) -> None:
    """A crash at any step of any change leaves the state before it or the one after it."""
    serve(folder, 1)
    slots = install(folder, 2, 3)
    slots.activate(2)
    before = slots.state()
    with monkeypatch.context() as patch:
        crash_at(step, patch)
        with pytest.raises(Crash):
            OPERATIONS[name](slots)
    after = Slots(folder).state()
    if step <= 3:
        assert after == before
    else:
        assert after != before
    assert Slots(folder).current() in (folder / "1", folder / "2", folder / "3")


@given(
    st.lists(
        st.sampled_from(["update", "confirm", "roll_back", "start", "clear_trial"]), max_size=30
    )
)
@settings(max_examples=60, deadline=None)
def test_invariants(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """In any history `highest` never falls, and no blocked release becomes current again."""
    folder = tmp_path_factory.mktemp("slots") / "bundles"
    slots, release, highest = Slots(folder), 0, 0
    rolled_back: set[int] = set()
    for step in steps:
        before = slots.state().current
        if step == "update":
            release += 1
            install(folder, release)
            slots.activate(release)
        elif step == "start":
            slots = Slots(folder)
            slots.current()
        else:
            getattr(slots, step)(*(["bad"] if step == "roll_back" else []))
        state = slots.state()
        if step in ("roll_back", "start") and before is not None and state.current != before:
            rolled_back.add(before)
        assert state.highest >= highest
        assert state.current not in rolled_back
        assert state.current not in state.blocked
        highest = state.highest


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"extra": 1}'),
        *(
            b'{"current": 0}',
            b'{"current": "1"}',
            b'{"current": true}',
            b'{"highest": -1}',
            b'{"highest": 1e999}',
        ),
        *(b'{"blocked": {"x": "y"}}', b'{"blocked": [1]}'),
    ],
)
def test_a_damaged_state_is_refused(folder: Path, content: bytes) -> None:
    """A damaged state file is an error that says what to do, and is never replaced by an empty
    state.
    """
    folder.mkdir()
    (folder / FILE).write_bytes(content)
    slots = Slots(folder)
    for call in (
        slots.current,
        slots.confirm,
        slots.clear_trial,
        lambda: slots.activate(1),
        lambda: slots.roll_back("?"),
    ):
        with pytest.raises(StorageError, match="but also removes the protection"):
            call()
    assert (folder / FILE).read_bytes() == content


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails is a `StorageError`, and the state stays as it was."""
    serve(folder, 1)
    slots = install(folder, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush_path", full)
    with pytest.raises(StorageError, match="No space left"):
        slots.activate(2)
    assert Slots(folder).state().current == 1
