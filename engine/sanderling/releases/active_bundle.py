"""Which bundle serves: the one that the app came with, or the newest that was installed and has not failed.

A swap is one assignment, between two requests. Who does not hold the state folder reads there and changes nothing.
Refuses to know users and decisions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from sanderling.bundle.reader import Bundle
from sanderling.errors import SanderlingError, StorageError, UpdateError
from sanderling.ranking import catalog_overlay
from sanderling.ranking.scorer import Scorer
from sanderling.releases.slots import Slots

log = logging.getLogger("sanderling")

Fetch = Callable[[Slots, Bundle], Path | None]
"""Brings a newer bundle into the slots and returns its folder, or None when there is none."""


class ActiveBundle:
    """The scorer that serves now, and whoever replaces it. `folder` is the engine's state folder, or None; `holds`
    tells that this engine has its lock."""

    def __init__(self, given: Bundle, folder: Path | None, *, holds: bool) -> None:
        self._given, self._folder, self._holds = given, folder, holds
        self.slots = Slots(folder / "bundles") if folder else None
        self.swapping = Lock()  # held by whoever replaces the scorer
        self._confirming: Thread | None = None
        self.scorer = self._prepare(self._newest())
        installed = self.scorer.bundle is not given
        self.unproven = (
            installed and holds and self.slots is not None and not self.slots.state().confirmed
        )

    @property
    def release(self) -> int:
        """The release that serves now."""
        return self.scorer.bundle.manifest.release

    def change(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add or remove items, durably (`overlay`). Raises `StorageError` where another engine holds the folder."""
        with self.swapping:
            if self._folder and not self._holds:
                raise StorageError(self._refusal())
            records = catalog_overlay.dated_after(records, self.scorer.bundle)
            scorer = self.scorer.with_changes(records)
            kept = {
                record["id"]: record
                for record in (*catalog_overlay.read(self._folder), *scorer.changes.records)
            }
            catalog_overlay.write(self._folder, kept.values())
            self.scorer = scorer

    def update(self, fetch: Fetch) -> int | None:
        """Swap in what `fetch` brings; return its release, or None. Raises `UpdateError` as it does."""
        if self.slots is None:
            raise UpdateError("expected an engine opened with `state`, `releases` and `root`")
        if not self._holds:
            raise UpdateError(self._refusal())
        if self._confirming is not None:
            self._confirming.join()
        folder = fetch(self.slots, self.scorer.bundle)
        if folder is None:
            return None
        with self.swapping:
            if not self._holds:
                raise UpdateError(self._refusal())
            scorer = self._prepare(Bundle.open(folder))
            scorer.warm_up()
            self.slots.activate(scorer.bundle.manifest.release)
            self.unproven = True
            self.scorer = scorer
        return self.release

    def confirm(self, served: Bundle) -> None:
        """Mark the release that served good, in the background: a request must not wait for the disk."""
        if not self.unproven or served is not self.scorer.bundle:
            return
        with self.swapping:
            if not self.unproven or served is not self.scorer.bundle:
                return
            self.unproven = False
        if self.slots is not None and self._holds:
            self._confirming = Thread(
                target=self.slots.confirm, name="sanderling-confirm", daemon=True
            )
            self._confirming.start()

    def go_back(self, reason: str, failed: Bundle | None = None) -> None:
        """Serve the bundle before, or where that does not open the one given; the present release is never tried again.

        Nothing happens where `failed` is given and no longer serves: another thread went back. Raises `StorageError`
        where it could not be noted; the bundle before serves all the same.
        """
        with self.swapping:
            if failed is not None and failed is not self.scorer.bundle:
                return
            self.scorer = self._before()
            self.unproven = False
            if self.slots and not self._holds:
                raise StorageError(self._refusal())
            if self.slots:
                self.slots.roll_back(reason)

    def abandon_release(self, failed: Bundle, error: Exception) -> None:
        """Go back from a release whose first decision failed. Where that cannot be noted the next start finds a release
        that was not confirmed, and tries it once at most."""
        log.exception(
            "release %d failed on its first decision; going back", failed.manifest.release
        )
        try:
            self.go_back(f"failed on its first decision: {error!r:.200}", failed)
        except StorageError as fault:
            log.error(
                "that release %d failed could not be noted: %s", failed.manifest.release, fault
            )

    def close(self, timeout_s: float) -> None:
        """Leave a release that never served for the next start; let its confirmation be written."""
        try:
            if self.slots and self._holds and self.unproven:
                self.slots.clear_trial()
        except StorageError as error:
            log.error(
                "a release that has not served yet will be taken for one that failed: %s", error
            )
        if self._confirming:
            self._confirming.join(
                timeout_s
            )  # a process that ends before this is written looks like a crash
        self._holds = False

    def _refusal(self) -> str:
        return (
            f"{self._folder}: expected the engine that holds this folder, found one beside it, or a closed one:"
            f" nothing there was changed; ask the engine that holds it"
        )

    def _before(self) -> Scorer:
        try:
            previous = self.slots.before(self.release) if self.slots else None
            if previous:
                return self._prepare(Bundle.open(previous))
        except Exception as error:  # whatever is wrong with it, requests go on
            log.warning("the bundle before does not open, serving the one given: %s", error)
        return self._prepare(self._given)

    def _prepare(self, bundle: Bundle) -> Scorer:
        return Scorer(bundle).with_changes(
            catalog_overlay.in_force(catalog_overlay.read(self._folder), bundle)
        )

    def _installed(self) -> Path | None:
        if self.slots is None:
            return None
        return self.slots.current() if self._holds else self.slots.proven()

    def _newest(self) -> Bundle:
        try:
            installed = self._installed()
            if installed is None:
                return self._given
            bundle = Bundle.open(installed)
        except SanderlingError as error:
            log.warning("the installed bundle does not open, serving the one given: %s", error)
            return self._given
        return bundle if bundle.manifest.release > self._given.manifest.release else self._given
