"""The state of the installed bundles: which one is current, which was before, which never again.

Each change is durable when the call returns, and each call reads the file anew. One process at a
time may change the state, and call `current`, which counts the starts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Annotated

import msgspec
from msgspec.structs import replace

from sanderling.bundle.manifest import Natural, Positive
from sanderling.errors import StorageError, UpdateError
from sanderling.runtime import files

FILE = "slots.json"
MAX_REASON = 500

Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]


class SlotState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of slots.json. Bundles are named by their release."""

    current: Positive | None = None
    """The active bundle; None: the one that the app ships."""

    previous: Positive | None = None
    """The bundle to go back to; None: the one that the app ships."""

    confirmed: bool = False
    """Whether `current` has decided a slate."""

    tried: bool = False
    """Whether a process has started with `current` while it was not confirmed."""

    highest: Natural = 0
    """The highest release that was ever confirmed."""

    blocked: dict[Positive, Reason] = {}
    """The releases from `highest` upwards that failed, and why."""


class Slots:
    """The bundles under one folder, each in a folder named by its release. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trial: int | None = None  # the unconfirmed release that this process has started with
        self._lock = RLock()  # reentrant: `current` calls `roll_back`, which calls `current`

    def state(self) -> SlotState:
        """Return what is on the disk; raise `StorageError` when it cannot be read."""
        path = self.folder / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=SlotState)
        except FileNotFoundError:
            return SlotState()
        except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{path}: expected the state of the installed bundles, found: {error}."
                f" The app's own bundle can be used without it; deleting {self.folder} repairs it,"
                " but also removes the protection against older releases"
            ) from error

    def path(self, release: int) -> Path:
        """Return the folder in which a release is, or would be, installed."""
        return self.folder / str(release)

    def installed(self) -> Iterator[Path]:
        """Yield the folders of all installed bundles, in no order."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name.isdecimal() and path.is_dir():
                    yield path

    def current(self) -> Path | None:
        """Return the bundle to open, or None when it is the app's own.

        The first call after a start counts as the trial of an unconfirmed bundle. If an earlier
        process has tried it already and never confirmed it, that process crashed: the bundle is
        rolled back and blocked.
        """
        with self._lock:
            state = self.state()
            if state.current is None:
                return None
            if not self.path(state.current).is_dir():
                return self.roll_back("its folder is missing")

            if not state.confirmed and self._trial != state.current:
                if state.tried:
                    return self.roll_back("the process ended before the bundle was confirmed")
                self._write(replace(state, tried=True))
                self._trial = state.current

            return self.path(state.current)

    def last_confirmed(self) -> Path | None:
        """Return the newest confirmed bundle, or None; for engines that do not own the folder."""
        state = self.state()
        return self._if_installed(state.current if state.confirmed else state.previous)

    def previous(self, release: int) -> Path | None:
        """Return the bundle that a roll-back from `release` leads to, or None: the app's own."""
        state = self.state()
        return self._if_installed(state.previous if state.current == release else None)

    def activate(self, release: int) -> None:
        """Make an installed release current, unconfirmed.

        Raises `UpdateError` when it is blocked, not above the highest confirmed one, or not
        installed.
        """
        with self._lock:
            state = self.state()
            fault = refusal(state, release)
            if fault is None and not self.path(release).is_dir():
                fault = f"release {release}: expected a bundle in {self.path(release)}, found none"
            if fault:
                raise UpdateError(fault)

            # An unconfirmed bundle that is replaced is nothing to go back to.
            previous = state.current if state.confirmed else state.previous
            self._write(
                replace(state, current=release, previous=previous, confirmed=False, tried=False)
            )
            self._trial = None

    def confirm(self) -> None:
        """Mark the current bundle as good; only now does `highest` rise.

        All bundles but the current and the previous one are deleted.
        """
        with self._lock:
            state = self.state()
            if state.current is None or state.confirmed:
                return

            highest = max(state.highest, state.current)
            blocked = {
                release: reason for release, reason in state.blocked.items() if release > highest
            }
            self._write(
                replace(state, confirmed=True, tried=False, highest=highest, blocked=blocked)
            )

            for path in self.installed():
                if int(path.name) not in (state.current, state.previous):
                    shutil.rmtree(path, ignore_errors=True)

    def clear_trial(self) -> None:
        """Take back this process's trial: it ends without a crash, and without a decision."""
        with self._lock:
            state = self.state()
            if state.tried and self._trial == state.current:
                self._write(replace(state, tried=False))

    def roll_back(self, reason: str) -> Path | None:
        """Block the current bundle; return the previous one, or None when it is the app's own.

        `highest` stays: no release up to it will be installed again.
        """
        with self._lock:
            state = self.state()
            if state.current is None:
                return None

            self._write(
                replace(
                    state,
                    current=state.previous,
                    previous=None,
                    confirmed=state.previous is not None,
                    tried=False,
                    blocked={**state.blocked, state.current: reason[:MAX_REASON]},
                )
            )
            return self.current()

    def block(self, release: int, reason: str) -> None:
        """Never install this release, which is not installed now."""
        with self._lock:
            state = self.state()
            self._write(replace(state, blocked={**state.blocked, release: reason[:MAX_REASON]}))

    def _if_installed(self, release: int | None) -> Path | None:
        return self.path(release) if release is not None and self.path(release).is_dir() else None

    def _write(self, state: SlotState) -> None:
        path = self.folder / FILE
        try:
            files.make_private_folder(self.folder)
            files.write_durably(path, msgspec.json.encode(state))
            files.flush_path(self.folder.parent)  # the folder may be new
        except OSError as error:
            raise StorageError(
                f"{path}: could not be written: {error}; free space or fix access"
            ) from error


def refusal(state: SlotState, release: int) -> str | None:
    """Return why a release may not become the current one, or None when it may."""
    if release in state.blocked:
        return f"release {release} is blocked on this device: {state.blocked[release]}"

    if release <= state.highest:
        return (
            f"release {release}: expected one above {state.highest},"
            " the highest that was confirmed on this device"
        )
    return None
