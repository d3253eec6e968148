"""A load that does not wait for answers: batches at a rate, over many connections, each refused one sent again later.

python -m bench.collecting.flood PORT RATE SECONDS CONNECTIONS SEED        (the result is JSON on stdout)
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

LAST_ANSWERS_S = 10.0


@dataclass
class Flood:
    """What came of it: tries per status, those of 429 and 503 without Retry-After, answered batches and their seconds.

    `late` tries found no free connection at their time; `broken` ones got no answer.
    """

    status: dict[int, int] = field(default_factory=dict)
    without_wait: int = 0
    answered: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    late: int = 0
    broken: int = 0
    spent: float = 0.0


class Connection(asyncio.Protocol):
    """One request after the other; tells `flood` of each answer."""

    def __init__(self, flooding: Flooding) -> None:
        self.flooding, self.began, self.answer = flooding, 0.0, b""
        self.batch: tuple[str, bytes] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Be free."""
        self.transport = transport
        self.flooding.free.append(self)

    def send(self, batch: tuple[str, bytes]) -> None:
        """Send one batch; its answer comes later."""
        self.batch, self.began, self.answer = batch, time.perf_counter(), b""
        head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\ncontent-encoding: zstd\r\n"
        self.transport.write(f"{head}content-length: {len(batch[1])}\r\n\r\n".encode() + batch[1])

    def data_received(self, data: bytes) -> None:
        """Tell of the answer when it is whole."""
        self.answer += data
        head, found, content = self.answer.partition(b"\r\n\r\n")
        if not found or self.batch is None:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(content) < length:
            return
        batch, self.batch = self.batch, None
        self.flooding.told(batch, int(head[9:12]), b"\r\nretry-after: " in head.lower(), self.began)
        self.flooding.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the server hung up."""
        self.flooding.lost(self)


class Flooding:
    """Connections that are free, batches that are to be sent again, and the result."""

    def __init__(self, batches: Iterator[tuple[str, bytes]]) -> None:
        self.batches, self.result = batches, Flood()
        self.free: deque[Connection] = deque()
        self.again: deque[tuple[str, bytes]] = deque()
        self.missing = 0

    def told(self, batch: tuple[str, bytes], status: int, waits: bool, began: float) -> None:
        """Count an answer; what was refused is to be sent again."""
        self.result.status[status] = self.result.status.get(status, 0) + 1
        if status == 200:
            self.result.answered.append(batch[0])
            self.result.seconds.append(time.perf_counter() - began)
        else:
            self.again.append(batch)
            self.result.without_wait += status in (429, 503) and not waits

    def lost(self, connection: Connection) -> None:
        """Count a connection that is gone, and what it was to be answered."""
        self.missing += 1
        if connection in self.free:
            self.free.remove(connection)
        if connection.batch is not None:
            self.result.broken += 1
            self.again.append(connection.batch)

    def tick(self) -> None:
        """Send one batch now, or count that no connection was free."""
        if self.free:
            self.free.popleft().send(self.again.popleft() if self.again else next(self.batches))
        else:
            self.result.late += 1


async def flood(port: int, rate: float, seconds: float, connections: int, seed: int) -> Flood:
    """Send `rate` batches a second for so long; then wait for the last answers."""
    flooding, loop = Flooding(source.batches(seed)), asyncio.get_running_loop()
    next(flooding.batches)
    open_ones = [
        await loop.create_connection(lambda: Connection(flooding), "127.0.0.1", port)
        for _ in range(connections)
    ]
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        for _ in range(min(round(now * rate) - sent, connections)):
            flooding.tick()
        sent = round(now * rate)
        for _ in range(flooding.missing):
            flooding.missing -= 1
            await loop.create_connection(lambda: Connection(flooding), "127.0.0.1", port)
        await asyncio.sleep(0.001)
    flooding.result.spent = time.perf_counter() - began
    deadline = time.perf_counter() + LAST_ANSWERS_S
    while len(flooding.free) + flooding.missing < connections and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    for transport, _ in open_ones:
        transport.close()
    return flooding.result


if __name__ == "__main__":
    port, rate, seconds, connections, seed = sys.argv[1:]
    found = asyncio.run(flood(int(port), float(rate), float(seconds), int(connections), int(seed)))
    sys.stdout.buffer.write(msgspec.json.encode(found))
