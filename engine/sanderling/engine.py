"""The engine, which an app embeds: recommendations, rewards, uploads and updates behind one class.

`recommend` never waits for disk or network; `reward` returns when the reward is durable.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from sanderling.arguments import (
    check_caps,
    check_request,
    check_several,
    check_text,
    ids_of,
    items_on_slate,
    rewards_by_slot,
)
from sanderling.bundle.reader import Bundle
from sanderling.errors import StorageError, UpdateError
from sanderling.options import EngineOptions, OptionTypes, check_names
from sanderling.outbox.state_folder import StateFolder
from sanderling.ranking import catalog_overlay
from sanderling.ranking import decision as decisions
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.scorer import NO_CAPS, Scorer
from sanderling.releases.active_bundle import ActiveBundle
from sanderling.releases.slots import Slots
from sanderling.releases.updater import UpdateRequest, fetch
from sanderling.runtime.clock import SystemClock
from sanderling.slate import Explanation, Receipt, Slate, SlateItem
from sanderling.upload.transport import Transport
from sanderling.upload.uploader import IDLE_S, Uploader, UploadOptions
from sanderling.users.current_profiles import CurrentProfiles
from sanderling.users.profiles import UserProfiles
from sanderling.users.recommendation import recommend

REWARD_TIMEOUT_S = 10.0
"""Seconds that `reward` waits for the disk before its receipt says not stored."""


class Engine:
    """A recommender in the app's own process. Thread-safe. Made by `Engine.open`.

    Signal handlers: set a flag there and call the engine from your own code, never from a handler.

    Forks: only the process that opened the engine may use it. In a forked child `close` does
    nothing and all else raises `RuntimeError`; open another engine there, with its own folder.
    """

    exploring: bool
    """Set it to False to stop exploring from the next slate on. (For a whole fleet, publish a
    release with epsilon 0.)"""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._options = options
        self._clock = options.clock or SystemClock()
        self._entropy = options.entropy
        self._root = options.read_root()
        self._process = os.getpid()
        self._closed = False
        self.exploring = True

        # Public methods reach the two `_unchecked` objects only through the properties
        # `_active_bundle` and `_profiles`, which raise in a forked child.
        transport = options.make_transport()
        self._state = StateFolder(
            options.folder,
            limit_bytes=options.outbox_bytes,
            clock=self._clock,
            entropy=self._entropy,
            threaded=options.background,
        )
        try:
            self._unchecked_bundle = ActiveBundle(
                bundle, options.folder, owns_folder=self._state.owns_folder
            )
        except BaseException:
            self._state.close(0.0)
            raise

        self._unchecked_profiles = CurrentProfiles(
            self._state.outbox,
            self._clock,
            self._entropy,
            adapt=options.adapt,
            window_s=options.window_s,
            share_context=options.share_context,
            privacy=options.privacy,
        )
        self._uploader = self._open_uploader(transport)
        self._begin_call()

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        state: str | Path | None = None,
        collector: str | None = None,
        token: str | None = None,
        **settings: Unpack[OptionTypes],
    ) -> Engine:
        """Open the bundle that the app ships, or a newer one that was installed since.

        `EngineOptions` documents `state`, `collector`, `token` and all other settings.

        Raises `BundleError` when the bundle does not open, `ValueError` for a setting out of range,
        `TypeError` for an unknown one.
        """
        check_names(settings)
        options = EngineOptions(state=state, collector=collector, token=token, **settings)
        return cls(Bundle.open(bundle, verify=options.verify), options)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def release(self) -> int:
        """The active release."""
        return self._active_bundle.release

    @property
    def storage_fault(self) -> str | None:
        """Why nothing can be stored, or None."""
        return self._state.fault

    def recommend(
        self,
        user: str,
        k: int = 10,
        context: str | None = None,
        exclude: Iterable[SlateItem | str] = (),
        *,
        at_most: Mapping[str, int] = NO_CAPS,
        greedy: bool = False,
    ) -> Slate:
        """Return a slate of at most k items for a user, known or not.

        `context` is any text about the user's situation. `exclude` holds ids not to show, or items
        of a slate; unknown ids are ignored. `at_most` caps how many items may share a value of an
        attribute, each value of a list counting: `{"author": 2}`. Caps apply to the whole pool from
        which exploration draws; the first use of an attribute reads the whole catalog (see
        `warm_up`).
        `greedy` turns exploration off for this slate.

        The slate is shorter than k where fewer items are eligible, or where ids of more than 66
        bytes leave no room for 1000 of them in one event.

        Raises `TypeError` for an argument of a wrong type, `ValueError` unless 1 <= k <= 1000 and
        caps are at least 1; never for the contents of `user` and `context`.
        """
        check_request(user, k, context)
        check_caps(at_most)
        request = RecommendRequest(user, k, context, ids_of(exclude, "exclude"), dict(at_most))
        now_ms = self._begin_call()
        scorer = self._active_bundle.scorer
        try:
            return self._decide(scorer, request, greedy, now_ms)
        except Exception as error:
            # Try once more on the active release if this one is on trial (it is rolled back), or if
            # another thread replaced it while it decided. Any other error is the caller's.
            if scorer is self._active_bundle.scorer and not self._active_bundle.is_unconfirmed:
                raise
            self._active_bundle.abandon_release(scorer.bundle, error)
            return self._decide(self._active_bundle.scorer, request, greedy, now_ms)

    def _decide(
        self, scorer: Scorer, request: RecommendRequest, greedy: bool, now_ms: int
    ) -> Slate:
        greedy = greedy or not self.exploring
        slate = recommend(self._profiles, scorer, request, greedy, now_ms, self._entropy)
        self._active_bundle.confirm(scorer.bundle)
        return slate

    def observe(self, user: str, item: str, kind: str = "view") -> None:
        """Record organic behaviour: it updates the user's state at once and is uploaded later.

        Raises `ValueError` unless `item` and `kind` have 1 to 512 characters of valid Unicode.
        """
        check_text(user=user, item=item, kind=kind)
        self._begin_call()
        self._profiles.observe(user, item, kind, self._active_bundle.scorer)

    def seen(self, slate: Slate, items: Iterable[SlateItem | str] | None = None) -> None:
        """Record which items of a slate the user saw, by default all.

        Those without a reward when the window of `window_s` ends count as -1. Nothing is recorded
        when the user was forgotten since. Raises `ValueError` for an item that is not on the slate,
        and where the engine was opened without `window_s`.
        """
        if self._options.window_s is None:
            raise ValueError("seen: expected an engine opened with `window_s`, found one without")
        seen = slate.items if items is None else items_on_slate(slate, items)
        now_ms = self._begin_call()
        self._profiles.open_window(slate, seen, now_ms, self._active_bundle.scorer)

    def reward(
        self,
        slate: Slate,
        item: SlateItem | str,
        value: float,
        kind: str | None = None,
        *,
        observe: bool | None = None,
    ) -> Receipt:
        """Record the reward of one shown item. See `reward_all`."""
        return self.reward_all(slate, {item: value}, kind, observe=observe)

    def reward_all(
        self,
        slate: Slate,
        values: Mapping[SlateItem | str, float],
        kind: str | None = None,
        *,
        observe: bool | None = None,
    ) -> Receipt:
        """Record the rewards of items that were seen; durable when the receipt says `stored`.

        Each value lies in [-1, 1]: 1 for a click, -1 for seen and not clicked. Items not named were
        not seen. `kind` is "click" for positive and "skip" for other values unless given. A
        positive reward also updates the user's state, as `observe` does; pass `observe=False` if
        the app observes it itself.

        A storage error is reported by the receipt, never raised. Raises `ValueError` for a value
        out of range, an item that is not on the slate, or a `kind` that is not 1 to 512 characters
        of valid Unicode.
        """
        if kind is not None:
            check_text(kind=kind)
        rewards = rewards_by_slot(slate, values)
        if self._state.outbox is None:
            return Receipt(False, f"the reward was not stored: {self.storage_fault}")

        now_ms = self._begin_call()
        scorer = self._active_bundle.scorer
        try:
            wait = self._profiles.record_rewards(slate, rewards, kind, observe, now_ms, scorer)
            wait(REWARD_TIMEOUT_S)
        except StorageError as error:
            return Receipt(False, str(error))
        if self._uploader:
            self._uploader.wake()
        return Receipt(True)

    def upsert_items(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Add or replace items, each with `id`, `text` and any attributes to show at once.

        Values that JSON changes become what JSON makes of them: a date its ISO text, a tuple a
        list, NaN None.

        Raises `TypeError` for a single item, `ValueError` naming the field that is wrong,
        `StorageError` where another engine holds the state folder; then nothing was added.
        """
        check_several(items=items)
        now_ms = self._begin_call()
        self._active_bundle.update_overlay(
            [catalog_overlay.addition(item, now_ms) for item in items]
        )

    def remove_items(self, ids: Iterable[SlateItem | str]) -> None:
        """Never show these items again, under any bundle, until `upsert_items` brings them back.

        Unknown ids are remembered too. Raises `TypeError` for a single id, `ValueError` for what
        cannot be an id, `StorageError` where another engine holds the state folder; then nothing
        was removed.
        """
        removed = ids_of(ids, "ids")
        now_ms = self._begin_call()
        self._active_bundle.update_overlay([catalog_overlay.removal(id, now_ms) for id in removed])

    def explain(self, decision: str) -> Explanation:
        """Replay one of the last 256 decisions bit for bit. Raises `KeyError` for any other id."""
        return decisions.explain(self._profiles.decision_record(decision))

    def forget_user(self, user: str) -> None:
        """Erase every trace of a user on this device, events that are not sent yet included.

        What was uploaded is erased on the collector's side, by install. A user who comes back is a
        new one. Raises `StorageError` when the file could not be changed: something may remain.
        """
        check_text(user=user)
        self._profiles.forget(user)
        if self._state.outbox is None and self._state.folder is not None:
            raise StorageError(f"forgotten in memory but not on disk: {self.storage_fault}")

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Upload what is stored; return whether all of it was acknowledged within the time.

        Honours the current backoff: after a failed attempt it returns False at once and sends
        nothing until the wait is over.
        """
        self._begin_call()
        self._state.write_queued()
        return self._uploader.drain(timeout_s) if self._uploader else False

    def step(self) -> float:
        """Without `background`, write what is queued and send at most one batch.

        Return the seconds to wait before the next step.
        """
        self._begin_call()
        self._state.write_queued()
        return self._uploader.step() if self._uploader else IDLE_S

    def update(self, timeout_s: float = 900.0) -> int | None:
        """Fetch, verify and swap in the newest release; return its number, or None without a newer.

        The swap happens between two requests. If the first decision of the new release fails, the
        engine rolls back. Raises `UpdateError` when fetching or verifying failed, or another engine
        holds the state folder; the previous release stays active.
        """
        releases = self._options.releases
        root = self._root
        if releases is None or root is None:
            raise UpdateError("expected an engine opened with `state`, `releases` and `root`")

        def install_newest(slots: Slots, active: Bundle) -> Path | None:
            request = UpdateRequest(
                releases,
                root,
                str(slots.folder),
                app=active.manifest.app,
                current_release=active.manifest.release,
                install=self._profiles.identity.install,
                active_folder=str(active.folder),
            )
            return fetch(request, timeout_s)

        return self._active_bundle.update(install_newest)

    def rollback(self) -> int:
        """Block the active release for good and activate the previous one; return its number.

        Raises `StorageError` where that cannot be stored: the previous release is then active only
        until this engine is closed.
        """
        self._active_bundle.roll_back("requested by the app")
        return self.release

    def warm_up(self, attributes: Iterable[str] = ()) -> None:
        """Load what the first recommendation would wait for, including groups by `attributes`."""
        check_several(attributes=attributes)
        self._active_bundle.scorer.warm_up(attributes)

    def counters(self) -> dict[str, Any]:
        """Return what is stored, acknowledged and lost, for the app's own monitoring."""
        outbox = self._state.outbox
        return {
            "release": self.release,
            "storage_fault": self.storage_fault,
            "outbox": outbox.counters() if outbox else None,
            "upload": self._uploader.counters if self._uploader else None,
        }

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and stop the threads; unsent events stay stored. Idempotent."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        if self._uploader:
            self._uploader.stop(timeout_s)
        self._unchecked_bundle.close(timeout_s)
        self._state.close(timeout_s)

    def _begin_call(self) -> int:
        """Close reward windows that have ended; return the wall clock in ms, read once a call."""
        now_ms = self._clock.wall_ms()
        self._profiles.close_ended_windows(now_ms, self._active_bundle.scorer)
        return now_ms

    def _open_uploader(self, transport: Transport | None) -> Uploader | None:
        options = self._options
        if transport is None or self._state.outbox is None:
            return None

        uploader = Uploader(
            self._state.outbox,
            transport,
            UploadOptions(
                may_upload=options.may_upload,
                on_empty=self._on_empty,
                on_rotate=lambda: self._profiles.rotation.request(),
            ),
            clock=self._clock,
            rng=random.Random(self._entropy(8)),
        )
        if options.background:
            uploader.start()
        return uploader

    def _on_empty(self) -> None:
        """Do what waits until all is uploaded: overwrite deleted bytes, rotate the identity."""
        if self._state.outbox is None:
            return
        self._state.outbox.scrub_pending()
        days = self._options.pseudonym_days
        now_ms = self._clock.wall_ms()
        self._unchecked_profiles.rotate_if_due(days, now_ms, self._active_bundle.scorer)

    @property
    def _active_bundle(self) -> ActiveBundle:
        """The active bundle, for the process that opened the engine."""
        self._check_process()
        return self._unchecked_bundle

    @property
    def _profiles(self) -> UserProfiles:
        """The users under this install's current identity, for the same process."""
        self._check_process()
        return self._unchecked_profiles.get()

    def _check_process(self) -> None:
        """Raise `RuntimeError` in a forked child: its locks may never be released."""
        if os.getpid() != self._process:
            raise RuntimeError(
                "expected the process that opened this engine, found a fork of it:"
                " open another engine here, with another state folder"
            )
