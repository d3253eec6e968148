"""Sends batches at a fixed rate over many connections, without waiting for answers; resends refused
ones.

python -m bench.collecting.flood PORT RATE SECONDS CONNECTIONS SEED        (the result is JSON on
stdout)
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from bench.collecting import source
from bench.collecting.client import request_head

LAST_ANSWERS_S = 10.0


@dataclass
class Flood:
    """The result of a flood."""

    status: dict[int, int] = field(default_factory=dict)
    """Attempts by status."""
    without_retry_after: int = 0
    """Answers of 429 and 503 without Retry-After."""
    answered: list[str] = field(default_factory=list)
    """Prefixes of the ids of answered batches."""
    seconds: list[float] = field(default_factory=list)
    """Latencies of answered batches."""
    without_connection: int = 0
    """Attempts that found no free connection."""
    unanswered: int = 0
    """Attempts whose connection was closed without an answer."""
    spent: float = 0.0


class Connection(asyncio.Protocol):
    """Sends one request after the other; reports each answer to the `Flooding`."""

    def __init__(self, flooding: Flooding) -> None:
        self.flooding = flooding
        self.started = 0.0
        self.answer = b""
        self.batch: tuple[str, bytes] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Report that the connection is free."""
        self.transport = transport
        self.flooding.free.append(self)

    def send(self, batch: tuple[str, bytes]) -> None:
        """Send one batch; `data_received` gets the answer."""
        self.batch = batch
        self.started = time.perf_counter()
        self.answer = b""
        self.transport.write(request_head(batch[1]) + batch[1])

    def data_received(self, data: bytes) -> None:
        """Report the answer when it is complete."""
        self.answer += data
        head, blank_line, content = self.answer.partition(b"\r\n\r\n")
        if not blank_line or self.batch is None:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(content) < length:
            return
        batch, self.batch = self.batch, None
        has_retry_after = b"\r\nretry-after: " in head.lower()
        self.flooding.count_answer(batch, int(head[9:12]), has_retry_after, self.started)
        self.flooding.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the server closed the connection."""
        self.flooding.count_closed(self)


class Flooding:
    """The free connections, the batches to resend, and the result."""

    def __init__(self, batches: Iterator[tuple[str, bytes]]) -> None:
        self.batches = batches
        self.result = Flood()
        self.free: deque[Connection] = deque()
        self.refused: deque[tuple[str, bytes]] = deque()
        self.closed = 0

    def count_answer(
        self, batch: tuple[str, bytes], status: int, has_retry_after: bool, started: float
    ) -> None:
        """Count an answer, and keep a refused batch to resend it."""
        self.result.status[status] = self.result.status.get(status, 0) + 1
        if status == 200:
            self.result.answered.append(batch[0])
            self.result.seconds.append(time.perf_counter() - started)
        else:
            self.refused.append(batch)
            self.result.without_retry_after += status in (429, 503) and not has_retry_after

    def count_closed(self, connection: Connection) -> None:
        """Count a closed connection, and its unanswered batch, which is resent."""
        self.closed += 1
        if connection in self.free:
            self.free.remove(connection)
        if connection.batch is not None:
            self.result.unanswered += 1
            self.refused.append(connection.batch)

    def tick(self) -> None:
        """Send one batch now, or count that no connection is free."""
        if self.free:
            self.free.popleft().send(self.refused.popleft() if self.refused else next(self.batches))
        else:
            self.result.without_connection += 1


async def flood(port: int, rate: float, seconds: float, connections: int, seed: int) -> Flood:
    """Send `rate` batches per second for so many seconds; then wait for the last answers."""
    flooding = Flooding(source.batches(seed))
    loop = asyncio.get_running_loop()
    next(flooding.batches)  # the templates are made before the clock starts
    opened = [
        await loop.create_connection(lambda: Connection(flooding), "127.0.0.1", port)
        for _ in range(connections)
    ]
    started = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        for _ in range(min(round(now * rate) - sent, connections)):
            flooding.tick()
        sent = round(now * rate)
        for _ in range(flooding.closed):
            flooding.closed -= 1
            await loop.create_connection(lambda: Connection(flooding), "127.0.0.1", port)
        await asyncio.sleep(0.001)
    flooding.result.spent = time.perf_counter() - started
    deadline = time.perf_counter() + LAST_ANSWERS_S
    while len(flooding.free) + flooding.closed < connections and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    for transport, _ in opened:
        transport.close()
    return flooding.result


if __name__ == "__main__":
    port, rate, seconds, connections, seed = sys.argv[1:]
    result = asyncio.run(flood(int(port), float(rate), float(seconds), int(connections), int(seed)))
    sys.stdout.buffer.write(msgspec.json.encode(result))
