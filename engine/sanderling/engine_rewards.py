"""What an app calls about a slate after it was shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from sanderling.arguments import (
    check_flags,
    check_slate,
    check_text,
    check_timeout,
    items_on_slate,
    rewards_by_slot,
)
from sanderling.engine_parts import EngineParts
from sanderling.errors import StorageError
from sanderling.slate import Receipt, Slate, SlateItem

REWARD_TIMEOUT_S = 0.1
"""Seconds that `reward` waits for the disk unless its caller chooses."""


class RewardCalls(EngineParts):
    """The calls of `Engine` that tell what became of a slate."""

    def seen(self, slate: Slate, items: Iterable[SlateItem | str] | None = None) -> None:
        """Record which items of a slate the user saw, by default all.

        Those without a reward when the window of `window_s` ends count as -1. Nothing is recorded
        when the user was forgotten since. Raises `ValueError` for an item that is not on the slate,
        and where the engine was opened without `window_s`.
        """
        check_slate(slate)
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
        timeout_s: float | None = None,
    ) -> Receipt:
        """Record the reward of one shown item. See `reward_all`."""
        values = {item: value}
        return self.reward_all(slate, values, kind, observe=observe, timeout_s=timeout_s)

    def reward_all(
        self,
        slate: Slate,
        values: Mapping[SlateItem | str, float],
        kind: str | None = None,
        *,
        observe: bool | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Record the rewards of items that were seen; durable when the receipt says `stored`.

        Each value lies in [-1, 1]: 1 for a click, -1 for seen and not clicked. Items not named were
        not seen. `kind` is "click" for positive and "skip" for other values unless given. A
        positive reward also updates the user's state, as `observe` does; pass `observe=False` if
        the app observes it itself.

        It waits for the disk for at most `timeout_s` seconds, 0 to 3600, a tenth of one unless
        given; 0 only queues. Then the receipt says `pending` and why, the reward stays queued, and
        `receipt` tells later how that ended. Without `background` it writes, however long that
        takes.

        A storage error is reported by the receipt, never raised. Raises `ValueError` for a value
        out of range, an item that is not on the slate, or a `kind` that is not 1 to 512 characters
        of valid Unicode, `TypeError` for a wrong type.
        """
        timeout_s = check_timeout(timeout_s, REWARD_TIMEOUT_S)
        try:
            done = self._submit_rewards(slate, values, kind, observe)
        except StorageError as error:
            return Receipt(False, str(error))
        return self._receipts.wait(done, timeout_s)

    async def areward(
        self,
        slate: Slate,
        item: SlateItem | str,
        value: float,
        kind: str | None = None,
        *,
        observe: bool | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Do what `reward` does, without blocking the event loop."""
        values = {item: value}
        return await self.areward_all(slate, values, kind, observe=observe, timeout_s=timeout_s)

    async def areward_all(
        self,
        slate: Slate,
        values: Mapping[SlateItem | str, float],
        kind: str | None = None,
        *,
        observe: bool | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Do what `reward_all` does, without blocking the event loop.

        A task that is cancelled meanwhile no longer waits; the reward is stored all the same.
        """
        timeout_s = check_timeout(timeout_s, REWARD_TIMEOUT_S)
        import asyncio

        try:
            done = await asyncio.to_thread(self._submit_rewards, slate, values, kind, observe)
        except StorageError as error:
            return Receipt(False, str(error))
        return await self._receipts.wait_async(done, timeout_s)

    def receipt(self, id: str) -> Receipt:
        """Return how a reward ended whose receipt was `pending`, or that it still is.

        `id` is that of the receipt. Raises `KeyError` for any other than the last 10,000 pending
        ones of this engine.
        """
        self._check_process()
        check_text(id=id)
        return self._receipts.get(id)

    def _submit_rewards(
        self,
        slate: Slate,
        values: Mapping[SlateItem | str, float],
        kind: str | None,
        observe: bool | None,
    ) -> Future[None]:
        """Check and queue rewards; raise `StorageError` where nothing can be stored."""
        check_slate(slate)
        check_flags(observe=observe)
        if kind is not None:
            check_text(kind=kind)
        rewards = rewards_by_slot(slate, values)
        if self._state.outbox is None:
            raise StorageError(f"the reward was not stored: {self.storage_fault}")

        now_ms = self._begin_call()
        scorer = self._active_bundle.scorer
        done = self._profiles.record_rewards(slate, rewards, kind, observe, now_ms, scorer)
        done.add_done_callback(self._wake_uploader)
        return done

    def _wake_uploader(self, _: Future[None]) -> None:
        if self._uploader:
            self._uploader.wake()
