"""The active bundle: the newest that was installed and has not failed, else the app's own.

A swap is one assignment, between two requests. An engine that does not own the state folder reads
there and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from sanderling.bundle.reader import Bundle
from sanderling.errors import SanderlingError, StorageError, UpdateError
from sanderling.ranking import attribute_changes, catalog_overlay
from sanderling.ranking.attribute_changes import Batch, ChangeFile, Changes
from sanderling.ranking.scorer import Scorer
from sanderling.releases.slots import Slots

log = logging.getLogger("sanderling")

Fetch = Callable[[Slots, Bundle], Path | None]
"""Installs a bundle newer than the one given; returns its folder, or None when there is none."""


@dataclass
class UpdateCounters:
    """What became of updates, since the engine was opened."""

    attempts: int = 0
    """Calls of `Engine.update`."""

    installed: int = 0
    """Releases that were swapped in."""

    failed: int = 0
    """Calls that raised."""

    rolled_back: int = 0
    """Releases that were rolled back, by the app or because their first request failed."""

    last_fault: str | None = None
    """Why the last call that raised did, or the last release was rolled back."""


class ActiveBundle:
    """The active scorer, its catalog overlay, and the moves to a newer bundle and back.

    `app_bundle` is the one that the app ships; `folder` the engine's state folder, if it has one;
    `owns_folder` says that this engine holds the folder's lock.
    """

    def __init__(self, app_bundle: Bundle, folder: Path | None, *, owns_folder: bool) -> None:
        self._app_bundle = app_bundle
        self._folder = folder
        self._owns_folder = owns_folder
        self._confirming: Thread | None = None
        self.counters = UpdateCounters()

        self.slots = Slots(folder / "bundles") if folder else None
        self._change_file = ChangeFile(folder)
        self._swap_lock = Lock()  # held while the scorer is replaced
        self._scorer = self._make_scorer(self._newest_bundle())
        self._is_unconfirmed = (
            self.slots is not None
            and owns_folder
            and self._scorer.bundle is not app_bundle
            and not self.slots.state().confirmed
        )

    @property
    def scorer(self) -> Scorer:
        """The active scorer. Read it once a request: a swap replaces it."""
        return self._scorer

    @property
    def release(self) -> int:
        """The active release."""
        return self._scorer.bundle.manifest.release

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the active bundle is on trial: it was installed and has decided nothing yet."""
        return self._is_unconfirmed

    @property
    def owns_folder(self) -> bool:
        """Whether this engine holds the lock of the state folder, and may change it."""
        return self._owns_folder

    def update_overlay(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add or remove items, durably (`catalog_overlay`).

        Raises `TypeError` for a value of another type than its attribute's, `StorageError` when
        another engine owns the state folder.
        """
        with self._swap_lock:
            if self._folder and not self._owns_folder:
                raise StorageError(self._not_owned())

            records = list(records)
            self._scorer.check_added(records)
            # Attributes that were changed before are not those of the new record.
            after_ms = self._change_file.last_ms + 1
            records = catalog_overlay.dated_after(records, self._scorer.bundle, after_ms)
            scorer = self._scorer.with_overlay(records)
            # Records that this bundle has no use for may still matter to the one before it.
            merged = {
                record["id"]: record
                for record in (*catalog_overlay.read(self._folder), *scorer.overlay.records)
            }
            catalog_overlay.write(self._folder, merged.values())
            self._scorer = scorer

    def change_attributes(self, changes: Changes, now_ms: int) -> None:
        """Change attributes of items, durably (`attribute_changes`).

        Raises `TypeError` for a value of another type than its attribute's, `StorageError` when
        another engine owns the state folder or it cannot be written; then nothing was changed.
        """
        with self._swap_lock:
            if self._folder and not self._owns_folder:
                raise StorageError(self._not_owned())

            scorer = self._scorer
            scorer.check_changes(changes)
            # Newer than the active bundle and the added items, even where the clock is behind.
            added_ms = [record["added_ms"] for record in scorer.overlay.records]
            created_ms = scorer.bundle.manifest.created * 1000
            changed_ms = max(now_ms, created_ms, self._change_file.last_ms, *added_ms)
            changed = scorer.with_changes(changes)
            self._change_file.append(Batch(changed_ms, changes))
            self._scorer = changed

    def update(self, fetch: Fetch) -> int | None:
        """Swap in the bundle that `fetch` installs; return its release, or None when there is none.

        Raises `UpdateError` when this engine does not own the state folder, and whatever `fetch`
        raises; the active bundle stays.
        """
        self.counters.attempts += 1
        try:
            release = self._update(fetch)
        except Exception as error:
            self.counters.failed += 1
            self.counters.last_fault = str(error)
            raise
        if release is not None:
            self.counters.installed += 1
        return release

    def _update(self, fetch: Fetch) -> int | None:
        if self.slots is None:
            raise UpdateError(
                "expected an engine opened with `state`, `releases` and `root`, found no `state`"
            )
        if not self._owns_folder:
            raise UpdateError(self._not_owned())
        self.wait_for_confirmation()

        folder = fetch(self.slots, self._scorer.bundle)
        if folder is None:
            return None

        with self._swap_lock:
            if not self._owns_folder:  # closed while `fetch` ran
                raise UpdateError(self._not_owned())
            scorer = self._make_scorer(Bundle.open(folder))
            scorer.warm_up()
            self.slots.activate(scorer.bundle.manifest.release)
            self._is_unconfirmed = True
            self._scorer = scorer
        return self.release

    def confirm(self, decided_by: Bundle) -> None:
        """Mark the bundle that decided a slate as good.

        In the background: a request must not wait for the disk. Does nothing when that bundle is no
        longer active.
        """
        if not self._is_unconfirmed or decided_by is not self._scorer.bundle:
            return

        with self._swap_lock:
            # Checked again: another thread may have confirmed or swapped in the meantime.
            if not self._is_unconfirmed or decided_by is not self._scorer.bundle:
                return
            self._is_unconfirmed = False

        if self.slots is not None and self._owns_folder:
            self._confirming = Thread(
                target=self.slots.confirm, name="sanderling-confirm", daemon=True
            )
            self._confirming.start()

    def wait_for_confirmation(self, timeout_s: float | None = None) -> None:
        """Wait until a confirmation that was begun is on the disk."""
        if self._confirming is not None:
            self._confirming.join(timeout_s)

    def roll_back(self, reason: str, failed: Bundle | None = None) -> bool:
        """Activate the previous bundle, or the app's own, and block the failed release.

        Returns False, and does nothing, when `failed` is given and no longer active: another thread
        has replaced it already. Raises `StorageError` when the roll-back could not be stored; the
        previous bundle is active all the same.
        """
        with self._swap_lock:
            if failed is not None and failed is not self._scorer.bundle:
                return False

            self.counters.rolled_back += 1
            self.counters.last_fault = f"release {self.release}: {reason}"
            self._scorer = self._previous_scorer()
            self._is_unconfirmed = False
            if self.slots and not self._owns_folder:
                raise StorageError(self._not_owned())
            if self.slots:
                self.slots.roll_back(reason)
            return True

    def scorer_after(self, failed: Scorer, error: Exception) -> Scorer:
        """Return the scorer with which a request that failed is tried once more: the active one,
        after a roll-back where the failed one was on trial, or that of another thread's swap.

        Raises the error where neither is so: it is the caller's.
        """
        if self._is_unconfirmed:
            self.abandon_release(failed.bundle, error)
        elif failed is self._scorer:
            raise error
        return self._scorer

    def abandon_release(self, failed: Bundle, error: Exception) -> None:
        """Roll back a release whose first request failed, unless it was replaced since.

        When that cannot be stored, the next start finds a release that was tried and not confirmed,
        and rolls it back then.
        """
        release = failed.manifest.release
        try:
            was_active = self.roll_back(f"failed on its first request: {error!r:.200}", failed)
        except StorageError as fault:
            log.error(
                "release %d failed on its first request; it is no longer active, but that could"
                " not be stored: %s",
                release,
                fault,
                exc_info=error,
            )
            return

        if was_active:
            log.error(
                "release %d failed on its first request and was rolled back",
                release,
                exc_info=error,
            )

    def close(self, timeout_s: float) -> None:
        """Wait for a confirmation; let the next start try a release that decided nothing."""
        try:
            if self.slots and self._owns_folder and self._is_unconfirmed:
                self.slots.clear_trial()
        except StorageError as error:
            log.error(
                "release %d has decided nothing yet; the next start will roll it back,"
                " because the end of its trial could not be stored: %s",
                self.release,
                error,
            )

        # A process that ends before the confirmation is stored looks like one that crashed.
        self.wait_for_confirmation(timeout_s)
        self._owns_folder = False

    def _not_owned(self) -> str:
        return (
            f"{self._folder}: expected the engine that owns this state folder, found one that was"
            " opened beside it, or a closed one; nothing was changed: use the engine that owns it"
        )

    def _make_scorer(self, bundle: Bundle) -> Scorer:
        overlay = catalog_overlay.in_force(catalog_overlay.read(self._folder), bundle)
        scorer = Scorer(bundle).with_overlay(overlay)
        added_ms = {record["id"]: record["added_ms"] for record in scorer.overlay.added}
        changes = attribute_changes.in_force(self._change_file.read(), bundle, added_ms)
        return scorer.with_changes(changes) if changes else scorer

    def _newest_bundle(self) -> Bundle:
        try:
            installed = self._installed_folder()
            if installed is None:
                return self._app_bundle
            bundle = Bundle.open(installed)
        except SanderlingError as error:
            log.warning("the installed bundle does not open, using the app's own: %s", error)
            return self._app_bundle

        is_newer = bundle.manifest.release > self._app_bundle.manifest.release
        return bundle if is_newer else self._app_bundle

    def _installed_folder(self) -> Path | None:
        if self.slots is None:
            return None
        # `current` counts a trial, which is a change: only the owner may do that.
        return self.slots.current() if self._owns_folder else self.slots.last_confirmed()

    def _previous_scorer(self) -> Scorer:
        try:
            previous = self.slots.previous(self.release) if self.slots else None
            if previous:
                return self._make_scorer(Bundle.open(previous))
        except Exception as error:  # whatever is wrong with it, requests must be answered
            log.warning("the previous bundle does not open, using the app's own: %s", error)

        return self._make_scorer(self._app_bundle)
