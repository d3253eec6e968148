"""The calls of a service: each passes its arguments to the method of `Engine` that has its name.

They run on one event loop. What may take long (a text to encode, a disk, the whole catalog) runs in
a thread; a plain recommendation is faster than the way to one. The threads are not asyncio's, for
which it waits before the engine can be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import msgspec

from sanderling.engine import Engine
from sanderling.reasons import Reasons
from sanderling.service import messages
from sanderling.service.limits import Limits, RefusalError
from sanderling.service.recent_slates import RecentSlates
from sanderling.slate import Explanation, FoundItems, Receipt, Slate

T = TypeVar("T")

THREADS = 8
"""Calls that run in threads at once; further ones wait."""

CHEAP = {"user", "k", "exclude", "after", "pin", "diversity", "greedy"}
"""Arguments with which `recommend` waits for nothing: neither an encoder, nor the catalog."""


class Endpoints:
    """The calls on one engine. Each is a coroutine of the name of a method of `Engine`.

    They raise what the engine raises, and `RefusalError`.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._slates = RecentSlates(limits)
        self._threads = ThreadPoolExecutor(THREADS, "sanderling-call")
        self._n_long_calls = 0

    async def recommend(self, sent: messages.Recommend) -> Slate:
        """Decide a slate, and keep it for the calls that refer to it."""
        arguments = sent.given()
        if sent.after:
            arguments["after"] = self._slates.get(sent.after)
        if CHEAP.issuperset(arguments):
            slate = self._engine.recommend(**arguments)
        else:
            slate = await self._in_thread(self._engine.recommend, **arguments)
        self._slates.put(slate)
        return slate

    async def observe(self, sent: messages.Observe) -> None:
        """Record organic behaviour."""
        self._engine.observe(**sent.given())

    async def seen(self, sent: messages.Seen) -> None:
        """Record which items of a slate were seen."""
        self._engine.seen(**self._with_slate(sent))

    async def reward(self, sent: messages.Reward) -> Receipt:
        """Store the reward of one item."""
        return _accepted(await self._engine.areward(**self._with_slate(sent)))

    async def reward_all(self, sent: messages.RewardAll) -> Receipt:
        """Store the rewards of several items."""
        return _accepted(await self._engine.areward_all(**self._with_slate(sent)))

    async def receipt(self, sent: messages.ReceiptId) -> Receipt:
        """Return how a reward ended that was pending."""
        try:
            return _accepted(self._engine.receipt(sent.id))
        except KeyError:
            raise RefusalError(
                404, f"id: expected one of the last pending receipts, found {sent.id!r:.80}"
            ) from None

    async def search(self, sent: messages.Search) -> FoundItems:
        """Find items by words."""
        return await self._in_thread(self._engine.search, **sent.given())

    async def similar(self, sent: messages.Similar) -> FoundItems:
        """Find items like an item."""
        return await self._in_thread(self._engine.similar, **sent.given())

    async def encode(self, sent: messages.Encode) -> messages.Encoded:
        """Return the vectors of texts."""
        vectors = await self._in_thread(self._engine.encode, sent.texts)
        return messages.Encoded(vectors.tolist())

    async def explain(self, sent: messages.Explain) -> Explanation:
        """Replay a decision."""
        try:
            return await self._in_thread(self._engine.explain, sent.decision)
        except KeyError:
            raise RefusalError(
                404, f"decision: expected one of the last, found {sent.decision!r:.80}"
            ) from None

    async def why(self, sent: messages.Why) -> Reasons:
        """Return why a slate shows an item."""
        arguments = self._with_slate(sent)
        try:
            return await self._in_thread(self._engine.why, **arguments)
        except KeyError as error:
            raise RefusalError(404, str(error.args[0])) from None

    async def upsert_items(self, sent: messages.UpsertItems) -> None:
        """Add or replace items."""
        await self._in_thread(self._engine.upsert_items, sent.items)

    async def set_attributes(self, sent: messages.SetAttributes) -> None:
        """Change attributes of items."""
        await self._in_thread(self._engine.set_attributes, sent.changes)

    async def remove_items(self, sent: messages.RemoveItems) -> None:
        """Never show items again."""
        await self._in_thread(self._engine.remove_items, sent.ids)

    async def forget_user(self, sent: messages.ForgetUser) -> None:
        """Erase every trace of a user, slates that are kept for rewards included."""
        self._slates.forget(sent.user)
        await self._in_thread(self._engine.forget_user, sent.user)

    async def flush(self, sent: messages.Timeout) -> messages.Flushed:
        """Upload what is stored."""
        return messages.Flushed(await self._in_own_thread(self._engine.flush, **sent.given()))

    async def update(self, sent: messages.Timeout) -> messages.Updated:
        """Swap in the newest release, and load what its first recommendation would wait for."""

        def update(**timeout: float) -> int | None:
            release = self._engine.update(**timeout)
            self._engine.warm_up()
            return release

        updated_to = await self._in_own_thread(update, **sent.given())
        return messages.Updated(updated_to, self._engine.release)

    async def rollback(self, _: messages.Nothing) -> messages.Updated:
        """Block the active release for good."""
        return messages.Updated(None, await self._in_thread(self._engine.rollback))

    async def warm_up(self, sent: messages.WarmUp) -> None:
        """Load what first calls would wait for."""
        await self._in_thread(self._engine.warm_up, **sent.given())

    async def exploring(self, sent: messages.Exploring) -> messages.Exploring:
        """Explore, or stop exploring, from the next slate on."""
        self._engine.exploring = sent.exploring
        return sent

    async def counters(self) -> dict[str, Any]:
        """Return what became of events, uploads, contexts and updates."""
        counters: dict[str, Any] = msgspec.to_builtins(self._engine.counters())
        return counters

    def _with_slate(self, sent: messages.Arguments) -> dict[str, Any]:
        arguments = sent.given()
        arguments["slate"] = self._slates.get(arguments.pop("decision"))
        return arguments

    async def _in_thread(self, call: Callable[..., T], *values: Any, **arguments: Any) -> T:
        """Return what a call returns, without holding up the others."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(call, *values, **arguments))

    async def _in_own_thread(self, call: Callable[..., T], **arguments: Any) -> T:
        """Return what a call returns that may take minutes: in a thread for which nobody waits
        when the process ends."""
        if self._n_long_calls >= self._limits.long_calls:
            raise RefusalError(
                503, f"expected at most {self._limits.long_calls} calls of flush and update at once"
            )
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(call(**arguments))
            except BaseException as error:
                done.set_exception(error)

        self._n_long_calls += 1
        try:
            Thread(target=run, name="sanderling-long-call", daemon=True).start()
            return await asyncio.shield(asyncio.wrap_future(done))
        finally:
            self._n_long_calls -= 1


def _accepted(receipt: Receipt) -> Receipt:
    """Return a receipt that is stored or pending; raise `RefusalError` for any other."""
    if not receipt.stored and not receipt.pending:
        raise RefusalError(503, receipt.reason)
    return receipt
