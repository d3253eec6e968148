"""The parts of an engine: how they are opened, joined and closed."""

from __future__ import annotations

import os
import random

from sanderling.arguments import check_timeout
from sanderling.bundle.reader import Bundle
from sanderling.options import EngineOptions
from sanderling.outbox.state_folder import StateFolder
from sanderling.ranking.item_search import ItemSearch
from sanderling.releases.active_bundle import ActiveBundle
from sanderling.runtime.clock import SystemClock
from sanderling.upload.transport import Transport
from sanderling.upload.uploader import Uploader, UploadOptions
from sanderling.users.current_profiles import CurrentProfiles
from sanderling.users.profiles import UserProfiles
from sanderling.users.recommendation import Recommender
from sanderling.users.reward_receipts import RewardReceipts


class EngineParts:
    """What `Engine` is made of; its public methods are there."""

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
        self._recommender = Recommender(self._entropy)
        self._item_search = ItemSearch()
        self._receipts = RewardReceipts(self._state.outbox, self._entropy)
        self._uploader = self._open_uploader(transport)
        self._begin_call()

    @property
    def storage_fault(self) -> str | None:
        """Why nothing can be stored, or None."""
        return self._state.fault

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and stop the threads; unsent events stay stored. Idempotent."""
        timeout_s = check_timeout(timeout_s)
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
