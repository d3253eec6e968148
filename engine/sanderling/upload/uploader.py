"""Batches out, acknowledgements in: oldest first, at least once, with no limit on tries.

Only what the collector's answer names is deleted. Clock, transport and randomness are passed in.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import StoredEvent
from sanderling.runtime.clock import Clock
from sanderling.upload.backoff import Backoff
from sanderling.upload.batch_size import BatchSize
from sanderling.upload.transport import (
    HttpTransport,
    NoNetworkError,
    Response,
    Transport,
    retry_after_s,
)

__all__ = ["Backoff", "HttpTransport", "Response", "Transport", "UploadCounters", "Uploader"]

log = logging.getLogger("sanderling")

IDLE_S = 30.0
LAST_POST_S = 1.0
BUSY_S = 0.1
QUEUED_S = 0.01
POISON_STREAK = 3
VERDICTS = {"ok", "duplicate", "rejected"}


@dataclass
class UploadCounters:
    """Since start: posts tried, batches answered with verdicts, events by verdict, and how often this install was told
    that it had been erased, or is to take another name."""

    attempts: int = 0
    batches: int = 0
    acknowledged: int = 0
    duplicates: int = 0
    rejected: int = 0
    erasures: int = 0
    renewals: int = 0


class Uploader:
    """Sends what is in the outbox. `step` for those who keep time themselves; `start` for a thread that does.

    `may_upload` tells whether the network may be used now: idle, charging, unmetered, whatever the app cares for. It is
    asked before each batch; after a no, the thread sends again at most a minute after the first yes. `on_empty` is
    called when all that was stored has been acknowledged, `on_rotate` when the lab asks this install for another name.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        *,
        clock: Clock,
        rng: random.Random,
        max_events: int = 500,
        max_bytes: int = 1 << 20,
        may_upload: Callable[[], bool] = lambda: True,
        on_empty: Callable[[], None] = lambda: None,
        on_rotate: Callable[[], None] = lambda: None,
    ) -> None:
        self.counters = UploadCounters()
        self._outbox, self._transport, self._clock, self._max_bytes = (
            outbox,
            transport,
            clock,
            max_bytes,
        )
        self._may_upload, self._on_empty, self._on_rotate = may_upload, on_empty, on_rotate
        self._backoff, self._window = Backoff(rng), BatchSize(max_events)
        self._not_before_ms = clock.mono_ms()
        self._poisoned = 0
        self._empty = False
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._awake = threading.Event()
        self._ended = threading.Event()

    def step(self) -> float:
        """Send at most one batch; return the seconds to wait before the next step, 0 when there is more to send."""
        if not self._turn.acquire(timeout=BUSY_S):
            return BUSY_S
        self._empty = False
        try:
            wait_ms = self._not_before_ms - self._clock.mono_ms()
            if wait_ms > 0:
                return wait_ms / 1000
            return self._send_oldest() if self._allowed() else IDLE_S
        except NoNetworkError:
            return self._pause(self._backoff.offline())
        except (StorageError, OSError):
            return self._wait()
        finally:
            self._turn.release()

    def _allowed(self) -> bool:
        """Ask the app whether the network may be used; a hook that raises counts as a no."""
        try:
            return self._may_upload()
        except Exception as error:  # the app's own fault must neither reach its calls of `flush` nor end the uploading
            log.warning("may_upload raised %r: that counts as a no", error)
            return False

    def _send_oldest(self) -> float:
        batch = self._outbox.oldest(self._window.size(), self._max_bytes)
        self._empty = not batch
        if batch:
            return self._send(batch)
        self._on_empty()
        return IDLE_S

    def _send(self, batch: Sequence[StoredEvent]) -> float:
        self.counters.attempts += 1
        headers = {
            "content-type": "application/x-ndjson",
            "content-encoding": "zstd",
            "sent-at": str(self._clock.wall_ms()),
        }
        response = self._transport.post(codec.pack(pending.line for pending in batch), headers)
        if response.status == 200:
            return self._settle(batch, response)
        if response.status == 410 and self._outbox.install.encode() in response.body:
            return self._erased()
        if response.status == 413:
            return self._too_large(batch, response)
        if response.status in (400, 422) and _is_refusal(response.body):
            return self._refused(batch, response)
        return self._wait_as_told(response)

    def _settle(self, batch: Sequence[StoredEvent], response: Response) -> float:
        """Delete what the answer names as stored, set aside what it rejects, keep the rest."""
        waiting = {pending.id for pending in batch}
        answer = _answer(response.body)
        verdicts = {
            verdict.id: verdict
            for verdict in answer.verdicts
            if verdict.id in waiting and verdict.verdict in VERDICTS
        }
        if not verdicts:
            return self._wait_as_told(response)
        rejected = [verdict for verdict in verdicts.values() if verdict.verdict == "rejected"]
        done = verdicts.keys() - {verdict.id for verdict in rejected}
        self._outbox.acknowledge(done)
        for verdict in rejected:
            self._outbox.quarantine(verdict.id, verdict.reason)
        self.counters.batches += 1
        self.counters.acknowledged += len(done)
        self.counters.duplicates += sum(
            verdict.verdict == "duplicate" for verdict in verdicts.values()
        )
        self.counters.rejected += len(rejected)
        self._window.passed(len(verdicts))
        self._poisoned = 0
        self._backoff.reset()
        if self._outbox.install in answer.rotate:
            self.counters.renewals += 1
            self._on_rotate()
        return self._wait_as_told(response) if len(verdicts) < len(batch) else 0.0

    def _erased(self) -> float:
        """The lab has erased this install, and says its name, as no page of some proxy would: forget it here too."""
        self._outbox.reset_identity()
        self.counters.erasures += 1
        return self._wait()

    def _too_large(self, batch: Sequence[StoredEvent], response: Response) -> float:
        """Halve the batch, whoever says so; one event alone is set aside at the collector's own word only."""
        if len(batch) > 1:
            self._window.cap = len(batch) // 2
            return 0.0
        if _is_refusal(response.body):
            return self._set_aside(batch[0], "too_large")
        return self._wait_as_told(response)

    def _refused(self, batch: Sequence[StoredEvent], response: Response) -> float:
        """Search the event that the collector refuses by halving; after a streak of them suspect it, and go slowly."""
        if len(batch) == 1:
            return self._set_aside(batch[0], f"status_{response.status}")
        self._window.suspects = len(batch)
        return 0.0

    def _set_aside(self, pending: StoredEvent, reason: str) -> float:
        self._outbox.quarantine(pending.id, reason)
        self.counters.rejected += 1
        self._window.found()
        self._poisoned += 1
        return self._wait() if self._poisoned >= POISON_STREAK else 0.0

    def _wait_as_told(self, response: Response) -> float:
        return self._wait(retry_after_s(response.headers, self._clock))

    def _wait(self, at_least_s: float = 0.0) -> float:
        return self._pause(self._backoff.fail(at_least_s))

    def _pause(self, delay_s: float) -> float:
        self._not_before_ms = self._clock.mono_ms() + round(delay_s * 1000)
        return delay_s

    def drain(self, deadline_s: float) -> bool:
        """Step until the outbox is empty or `deadline_s` seconds have passed; return whether it is empty.

        Gives up at once when the next try is due only after the deadline, or the network may not be used.
        """
        end = time.monotonic() + deadline_s
        while not self._ended.is_set():
            queued = self._outbox.counters().queued
            delay = self.step()
            if self._empty and queued == 0:
                return True
            pause = QUEUED_S if self._empty else delay
            if time.monotonic() + pause >= end:
                return False
            self._ended.wait(pause)
        return False

    def start(self) -> None:
        """Send in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="sanderling-upload", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new to send; a wait after a failure goes on all the same."""
        self._awake.set()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop the background thread; a post that is under way gets a second at most: its events are sent again."""
        self._ended.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(min(timeout_s, LAST_POST_S))

    def _run(self) -> None:
        """Step until stopped; after a start, and after a time without network, wait for a random moment first."""
        away = True
        while not self._ended.is_set():
            try:
                if not self._allowed():
                    away, delay = True, IDLE_S
                elif away:
                    away, delay = False, 0.0
                    self._ended.wait(self._backoff.first())
                else:
                    delay = self.step()
            except Exception:  # a fault in a transport must not end uploading for ever
                log.exception("an upload failed in a way that nobody expected; trying again later")
                delay = self._wait()
            self._awake.wait(delay)
            self._awake.clear()


def _is_refusal(body: bytes) -> bool:
    """Tell the collector's own refusal from the page of a proxy, which knows nothing of events."""
    try:
        msgspec.json.decode(body, type=wire.Refusal)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _answer(body: bytes) -> wire.Answer:
    """Return an answer; one without verdicts when it is something else, such as the page of a captive portal."""
    try:
        return msgspec.json.decode(body, type=wire.Answer)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return wire.Answer([])
