"""Sends stored events to the collector: oldest first, at least once, retried without limit.

Only events that the collector's response names are deleted from the outbox.
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
from sanderling.upload.status import meaning, needs_action
from sanderling.upload.transport import NoNetworkError, Response, Transport, retry_after_s

log = logging.getLogger("sanderling")

IDLE_S = 30.0
"""The poll interval of an empty outbox, and of `may_upload`."""

BUSY_S = 0.1
"""How long a step waits for another thread's step to end."""

DRAIN_POLL_S = 0.01
"""The poll interval of `drain` while events are in the write queue, on their way to the disk."""

STOP_WAIT_S = 1.0
"""How long `stop` waits for a post under way, at most: `Engine.close` has two seconds by default,
and the outbox needs the rest."""

VERDICTS = {"ok", "duplicate", "rejected"}
"""The verdicts that this version handles; an event with any other is sent again."""


def always() -> bool:
    """Return True, the default of `may_upload`."""
    return True


@dataclass(frozen=True)
class UploadOptions:
    """The size of batches, and the hooks of the app and the engine."""

    max_events: int = 500
    """Events in a batch, at most."""

    max_bytes: int = 1 << 20
    """Bytes of a batch before compression, at most; a single event may be larger. A small outbox
    sends smaller ones (`Outbox.max_batch_bytes`)."""

    may_upload: Callable[[], bool] = always
    """See `EngineOptions.may_upload`."""

    on_empty: Callable[[], None] = lambda: None
    """Called when everything that was stored has been acknowledged."""

    on_rotate: Callable[[], None] = lambda: None
    """Called when the collector asks this install to take a new identity."""


@dataclass
class UploadCounters:
    """What has happened since the start of the process."""

    attempts: int = 0
    """Batches that were posted, with or without success."""

    duplicates: int = 0
    """Events that the collector had stored before."""

    rejected: int = 0
    """Events that the collector will never store; they are deleted and declared lost."""

    erasures: int = 0
    """How often the collector responded that this install was erased."""

    rotations: int = 0
    """How often the collector asked this install to take a new identity."""

    last_status: int | None = None
    """The HTTP status of the last attempt; None before the first, and where nothing answered."""

    last_problem: str = ""
    """Why the last attempt stored nothing, and what to do about it; empty where it did."""


class Uploader:
    """Sends what is in the outbox.

    Call `step` to keep time yourself, or `start` for a background thread.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        options: UploadOptions | None = None,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.counters = UploadCounters()
        self._outbox = outbox
        self._transport = transport
        self._options = options or UploadOptions()
        self._clock = clock

        self._backoff = Backoff(rng)
        self._max_events = self._options.max_events  # less after a batch that was too large
        self._not_before_ms = clock.mono_ms()
        self._found_empty = False  # whether the last step found nothing to send
        self._warned: set[int] = set()  # statuses that were logged since the last success

        self._thread: threading.Thread | None = None
        self._step_lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether the background thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def step(self) -> float:
        """Send at most one batch.

        Returns the seconds to wait before the next step, 0 when there is more to send. A step that
        comes too early sends nothing and returns what is left to wait.
        """
        if not self._step_lock.acquire(timeout=BUSY_S):
            return BUSY_S

        self._found_empty = False
        try:
            wait_ms = self._not_before_ms - self._clock.mono_ms()
            if wait_ms > 0:
                return wait_ms / 1000
            return self._send_oldest() if self._may_upload() else IDLE_S
        except NoNetworkError as error:
            self._note_problem(None, str(error))
            return self._pause(self._backoff.offline_delay_s())
        except StorageError:
            return self._back_off()  # `storage_fault` tells about it
        except OSError as error:
            self._note_problem(None, str(error))
            return self._back_off()
        finally:
            self._step_lock.release()

    def drain(self, deadline_s: float) -> bool:
        """Step until the outbox is empty or `deadline_s` seconds have passed.

        Returns whether the outbox is empty. Gives up at once when the next attempt is due only
        after the deadline, or the network may not be used.
        """
        end_s = time.monotonic() + deadline_s
        while not self._stopped.is_set():
            queued = self._outbox.counters().queued
            delay_s = self.step()
            if self._found_empty and queued == 0:
                return True

            pause_s = DRAIN_POLL_S if self._found_empty else delay_s
            if time.monotonic() + pause_s >= end_s:
                return False
            self._stopped.wait(pause_s)
        return False

    def start(self) -> None:
        """Send in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="sanderling-upload", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let the background thread look for new events now; a backoff is still honoured."""
        self._wake.set()

    def stop(self, timeout_s: float = STOP_WAIT_S) -> None:
        """Stop the background thread, and wait for it at most `timeout_s`, and `STOP_WAIT_S`.

        A post under way is not interrupted; events without a verdict are sent again after the next
        start.
        """
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(min(timeout_s, STOP_WAIT_S))

    def _run(self) -> None:
        """Step until stopped.

        The first step, and the first one after a time in which the network could not be used, comes
        after a random delay: many devices may get their power or network back at the same moment.
        """
        needs_delay = True
        while not self._stopped.is_set():
            try:
                # Asked here too: the random delay must follow the return of the network.
                if not self._may_upload():
                    needs_delay = True
                    delay_s = IDLE_S
                elif needs_delay:
                    needs_delay = False
                    self._stopped.wait(self._backoff.start_delay_s())
                    delay_s = 0.0
                else:
                    delay_s = self.step()
            except Exception:
                # The app's own transport may raise anything; this thread must not end.
                log.exception("an upload failed with an unexpected error; trying again later")
                delay_s = self._back_off()

            self._wake.wait(delay_s)
            self._wake.clear()

    def _may_upload(self) -> bool:
        """Ask the app whether the network may be used; a hook that raises counts as False."""
        try:
            return self._options.may_upload()
        except Exception as error:
            # It must neither end the thread nor reach the app through `flush`.
            log.warning("may_upload raised %r; taken for False", error)
            return False

    def _send_oldest(self) -> float:
        max_bytes = min(self._options.max_bytes, self._outbox.max_batch_bytes)
        batch = self._outbox.oldest(self._max_events, max_bytes)
        self._found_empty = not batch
        if batch:
            return self._send(batch)

        self._options.on_empty()
        return IDLE_S

    def _send(self, batch: Sequence[StoredEvent]) -> float:
        self.counters.attempts += 1
        headers = {
            "content-type": "application/x-ndjson",
            "content-encoding": "zstd",
            # The time of this attempt by the device's clock: the collector corrects the events'
            # times by the difference to its own.
            "sent-at": str(self._clock.wall_ms()),
        }
        response = self._transport.post(codec.pack(event.line for event in batch), headers)

        if response.status == 200:
            return self._apply_verdicts(batch, response)
        # A proxy's own 410 does not name the install.
        if response.status == 410 and self._outbox.install.encode() in response.body:
            return self._forget_erased_install()
        # Halve the batch, also where a proxy answered: its limit may be lower than the collector's.
        if response.status == 413 and len(batch) > 1:
            self._max_events = len(batch) // 2
            return 0.0
        return self._refused(response)

    def _apply_verdicts(self, batch: Sequence[StoredEvent], response: Response) -> float:
        """Delete the events that are stored or rejected, keep the rest."""
        decoded = _decode_response(response.body)
        sent = {event.id for event in batch}
        verdicts = {
            verdict.id: verdict
            for verdict in decoded.verdicts
            if verdict.id in sent and verdict.verdict in VERDICTS
        }
        if not verdicts:
            return self._refused(response)

        rejected = [verdict for verdict in verdicts.values() if verdict.verdict == "rejected"]
        stored = verdicts.keys() - {verdict.id for verdict in rejected}
        self._outbox.acknowledge(stored)
        for verdict in rejected:
            self._outbox.reject(verdict.id, verdict.reason)

        self.counters.duplicates += sum(
            verdict.verdict == "duplicate" for verdict in verdicts.values()
        )
        self.counters.rejected += len(rejected)

        self._max_events = min(self._options.max_events, self._max_events + 1)
        # A rejected loss leaves another one: a collector that rejects them all must not be asked
        # without a pause.
        is_stuck = not stored and all(_is_loss(event) for event in batch)
        if not is_stuck:
            self._backoff.reset()
        self.counters.last_status = response.status
        self.counters.last_problem = ""
        self._warned.clear()

        if self._outbox.install in decoded.rotate:
            self.counters.rotations += 1
            self._options.on_rotate()
        must_wait = is_stuck or len(verdicts) < len(batch)
        return self._back_off_for(response) if must_wait else 0.0

    def _forget_erased_install(self) -> float:
        """Erase the install here too, as the collector has done, and take a new identity."""
        self._outbox.reset_identity()
        self.counters.erasures += 1
        return self._back_off()

    def _back_off_for(self, response: Response) -> float:
        """Back off for at least as long as the response asks."""
        return self._back_off(retry_after_s(response.headers))

    def _refused(self, response: Response) -> float:
        """Tell what a response without verdicts means, and back off."""
        self._note_problem(response.status, meaning(response))
        return self._back_off_for(response)

    def _note_problem(self, status: int | None, problem: str) -> None:
        """Put a problem into the counters; warn of one that somebody must solve, once."""
        self.counters.last_status = status
        self.counters.last_problem = problem
        if status is None or not needs_action(status):
            log.info("events were not uploaded: %s", problem)
        elif status not in self._warned:
            self._warned.add(status)
            log.warning("events are not uploaded, and stay stored: %s", problem)

    def _back_off(self, at_least_s: float = 0.0) -> float:
        return self._pause(self._backoff.failure_delay_s(at_least_s))

    def _pause(self, delay_s: float) -> float:
        self._not_before_ms = self._clock.mono_ms() + round(delay_s * 1000)
        return delay_s


def _is_loss(event: StoredEvent) -> bool:
    return isinstance(codec.decode(event.line), wire.Loss)


def _decode_response(body: bytes) -> wire.BatchResponse:
    """Return the response of a collector; one without verdicts for the page of a captive portal."""
    try:
        return msgspec.json.decode(body, type=wire.BatchResponse)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return wire.BatchResponse([])
