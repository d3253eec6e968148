"""The profiles of the install's current identity, replaced when that is erased or rotated."""

from __future__ import annotations

from functools import partial
from threading import Lock

from sanderling.outbox.outbox import Outbox
from sanderling.ranking.scorer import Scorer
from sanderling.runtime.clock import Clock, Entropy
from sanderling.users.event_factory import EventFactory
from sanderling.users.profiles import UserProfiles


class CurrentProfiles:
    """Holds one `UserProfiles` at a time; the keyword arguments are fields of `EngineOptions`."""

    def __init__(
        self,
        outbox: Outbox | None,
        clock: Clock,
        entropy: Entropy,
        *,
        adapt: bool,
        window_s: float | None,
        share_context: bool,
        privacy: float | None,
    ) -> None:
        make_events = partial(
            EventFactory, entropy=entropy, share_context=share_context, privacy=privacy
        )
        self._make = partial(
            UserProfiles,
            outbox,
            make_events,
            adapts=adapt,
            window_s=window_s,
            clock=clock,
            entropy=entropy,
        )
        self._outbox = outbox
        self._profiles = self._make()
        self._lock = Lock()

    def get(self) -> UserProfiles:
        """Return the profiles of the current identity."""
        profiles = self._profiles
        outbox = self._outbox
        if outbox is None or outbox.install == profiles.identity.install:
            return profiles
        with self._lock:
            if outbox.install != self._profiles.identity.install:
                self._profiles = self._make()
            return self._profiles

    def rotate_if_due(self, days: float | None, now_ms: int, scorer: Scorer) -> None:
        """Rotate the current identity where that is due and nothing is left to upload under it.

        What becomes due here, such as default outcomes, is uploaded under the old identity first;
        the rotation follows in a later call. Raises `StorageError` when the file cannot be used.
        """
        if self._outbox is not None and self.get().prepare_rotation(days, now_ms, scorer):
            self._outbox.rotate_identity()
