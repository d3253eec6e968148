"""Which of the installed bundles serves: current, previous, and what is never tried again.

Each change is durable when the call returns, and each call reads the file anew. Refuses to open bundles and to fetch
them; one process at a time may change them, and call `current`, which counts the tries.
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
    """The content of slots.json.

    `current` serves and `previous` is kept for a roll-back. `tried` says that a process has started with a current
    bundle that is not `confirmed` yet. `highest` is the highest release ever confirmed. `blocked` has the reason of
    each release above it, or equal to it, that failed.
    """

    current: Positive | None = None
    previous: Positive | None = None
    confirmed: bool = False
    tried: bool = False
    highest: Natural = 0
    blocked: dict[Positive, Reason] = {}


class Slots:
    """The bundles under one folder, each in a folder named by its release. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trying: int | None = None
        self._lock = RLock()  # `current` calls `roll_back`

    def state(self) -> SlotState:
        """Return what is on the disk; raise `StorageError` when it cannot be read or makes no sense."""
        path = self.folder / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=SlotState)
        except FileNotFoundError:
            return SlotState()
        except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{path}: expected the state of the installed bundles, found: {error}. Serve the bundle that came with"
                f" the app; deleting {self.folder} starts anew, without protection against older releases"
            ) from error

    def path(self, release: int) -> Path:
        """Return the folder in which a release is, or would be, installed."""
        return self.folder / str(release)

    def installed(self) -> Iterator[Path]:
        """Yield the folders of all installed bundles, in no order."""
        if self.folder.is_dir():
            yield from (
                path for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir()
            )

    def current(self) -> Path | None:
        """Return the bundle to open, or None when there is none and the app's own must serve.

        The first call after a start counts as a try of an unconfirmed bundle. If an earlier process has tried it
        already and never confirmed it, that process crashed: the bundle is rolled back and blocked.
        """
        with self._lock:
            state = self.state()
            if state.current is None:
                return None
            if not self.path(state.current).is_dir():
                return self.roll_back("its folder is missing")
            if not state.confirmed and self._trying != state.current:
                if state.tried:
                    return self.roll_back("the process ended before the bundle was confirmed")
                self._write(replace(state, tried=True))
                self._trying = state.current
            return self.path(state.current)

    def proven(self) -> Path | None:
        """Return the bundle that was confirmed last, or None, for whoever may change nothing."""
        state = self.state()
        return self._there(state.current if state.confirmed else state.previous)

    def before(self, release: int) -> Path | None:
        """Return the bundle to which a release that serves goes back, or None when it is the app's own."""
        state = self.state()
        return self._there(state.previous if state.current == release else None)

    def _there(self, release: int | None) -> Path | None:
        return self.path(release) if release is not None and self.path(release).is_dir() else None

    def activate(self, release: int) -> None:
        """Make an installed release current, unconfirmed.

        Raises `UpdateError` when it is blocked, not above the highest confirmed one, or not installed.
        """
        with self._lock:
            state = self.state()
            fault = refusal(state, release)
            if fault is None and not self.path(release).is_dir():
                fault = f"release {release}: expected a bundle in {self.path(release)}, found none"
            if fault:
                raise UpdateError(fault)
            previous = state.current if state.confirmed else state.previous
            self._write(
                replace(state, current=release, previous=previous, confirmed=False, tried=False)
            )
            self._trying = None

    def confirm(self) -> None:
        """Say that the current bundle has served; only now does `highest` rise. Deletes what is no longer needed."""
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
        """Take back the try of an unconfirmed bundle: the process ends in good order, without having served."""
        with self._lock:
            state = self.state()
            if state.tried and self._trying == state.current:
                self._write(replace(state, tried=False))

    def roll_back(self, reason: str) -> Path | None:
        """Block the current bundle and return the previous one, or None when the app's own must serve.

        `highest` stays: no release up to it will be installed again.
        """
        with self._lock:
            state = self.state()
            if state.current is None:
                return None
            blocked = {**state.blocked, state.current: reason[:MAX_REASON]}
            back, confirmed = state.previous, state.previous is not None
            self._write(
                replace(
                    state,
                    current=back,
                    previous=None,
                    confirmed=confirmed,
                    tried=False,
                    blocked=blocked,
                )
            )
            return self.current()

    def block(self, release: int, reason: str) -> None:
        """Never try this release, which is not installed."""
        with self._lock:
            state = self.state()
            self._write(replace(state, blocked={**state.blocked, release: reason[:MAX_REASON]}))

    def _write(self, state: SlotState) -> None:
        """Replace the file: flush the new one, rename it, flush the folder."""
        path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_durably(path, msgspec.json.encode(state))
            files.flush_path(self.folder.parent)
        except OSError as error:
            raise StorageError(
                f"{path}: could not be written: {error}; free space or fix access"
            ) from error


def refusal(state: SlotState, release: int) -> str | None:
    """Return why a release may not become the current one, or None."""
    if release in state.blocked:
        return f"release {release} is blocked on this device: {state.blocked[release]}"
    if release <= state.highest:
        return f"release {release}: expected one above {state.highest}, the highest that was confirmed here"
    return None
