"""One client in its own process: sends all events, waits until they are done, and prints the
seconds.

clients.py KIND URL EVENTS BATCH FOLDER
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Event
from sanderling.runtime.clock import SystemClock, uuid7

SLOTS = 10
GROUP = 50
TOKEN = "bench"


def make_events(count: int) -> Iterator[Event]:
    """Yield decisions with ten slots and an outcome each, with random ids, users, items and
    probabilities.
    """
    rng = random.Random(0)
    clock = SystemClock()
    install = rng.randbytes(16).hex()
    boot = rng.randbytes(16).hex()
    users = [rng.randbytes(16).hex() for _ in range(9)]
    for _ in range(count // 2):
        common = {
            "install": install,
            "seq": 1,
            "user": rng.choice(users),
            "clock": wire.ClockReading(clock.wall_ms(), clock.mono_ms(), boot),
        }
        items = rng.sample(range(10_000), SLOTS)
        slate = [
            wire.Slot(
                f"item-{item}",
                rank,
                rng.random() < 0.1,
                0.9 + 0.1 * rng.random(),
                0.9 * rng.random() + 0.01,
            )
            for rank, item in enumerate(items)
        ]
        decision = wire.Decision(
            id=uuid7(clock.wall_ms()), release=3, scheme="sequential", epsilon=0.1, pool=50,
            eligible=10_000, slate=slate, state_checksum=rng.randbytes(16).hex(),
            state_events=rng.randrange(100), **common,
        )  # fmt: skip
        yield decision
        yield wire.Outcome(
            id=uuid7(clock.wall_ms()), decision=decision.id, slot=0, item=slate[0].item,
            kind="click", value=1.0, updates_state=True, **common,
        )  # fmt: skip


def groups(events: list[Event], size: int) -> Iterator[list[Event]]:
    """Yield the events in runs of `size`."""
    for start in range(0, len(events), size):
        yield events[start : start + size]


def sanderling(url: str, events: list[Event], batch: int, folder: Path) -> float:
    """Store events on disk, flushed every 50, then send until acknowledged; return the seconds of
    the first part.
    """
    from sanderling.outbox.outbox import Outbox
    from sanderling.upload.transport import HttpTransport
    from sanderling.upload.uploader import Uploader, UploadOptions

    start = time.perf_counter()
    outbox = Outbox(folder, clock=SystemClock())
    for group in groups(events, GROUP):
        outbox.put_durable(group)
    stored = time.perf_counter() - start
    transport = HttpTransport(url + "/v1", TOKEN)
    options = UploadOptions(max_events=batch)
    uploader = Uploader(outbox, transport, options, clock=SystemClock(), rng=random.Random(0))
    if not uploader.drain(600):
        sys.exit(f"expected all events to be acknowledged, found {outbox.counters()}")
    outbox.close()
    return stored


def plain(url: str, events: list[Event], batch: int, folder: Path) -> float:
    """Send JSON lines, one request a batch, without retries."""
    import urllib3

    pool = urllib3.PoolManager(retries=False)
    for group in groups(events, batch):
        pool.request(
            "POST",
            url + "/v1/events",
            body=b"".join(codec.encode(event) + b"\n" for event in group),
        )
    return 0.0


def opentelemetry(url: str, events: list[Event], batch: int, folder: Path) -> float:
    """Send with OpenTelemetry's batch processor and OTLP exporter, gzipped, with a queue for all
    events.
    """
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    exporter = OTLPLogExporter(url + "/v1/logs", compression=Compression.Gzip)
    provider = LoggerProvider()
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporter, max_export_batch_size=batch, max_queue_size=len(events))
    )
    logger = provider.get_logger("bench")
    for event in events:
        logger.emit(body=codec.encode(event).decode())
    provider.force_flush(600_000)
    provider.shutdown()
    return 0.0


KINDS = {"sanderling": sanderling, "plain": plain, "opentelemetry": opentelemetry}

if __name__ == "__main__":
    kind, url, count, batch, folder = sys.argv[1:]
    events = list(make_events(int(count)))
    start = time.perf_counter()
    stored = KINDS[kind](url, events, int(batch), Path(folder))
    seconds = time.perf_counter() - start
    json_bytes = sum(map(len, map(codec.encode, events)))
    print(json.dumps({"seconds": seconds, "stored": stored, "json": json_bytes}))
