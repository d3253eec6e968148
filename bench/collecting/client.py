"""Sends batches of 50 events, as devices send them, over persistent connections, and times each
request.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sanderling.events import codec
from sanderling.events.schema import ClockReading, Decision, Event, Observation, Outcome, Slot

EVENTS, INSTALLS, SLATES = 50, 200, 400
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Answers:
    """For each request: the status, when it was sent, and the seconds until its answer."""

    status: list[int] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def bodies(count: int, first: int = 0) -> list[bytes]:
    """Return different batches of 20 decisions of 10 slots, 20 outcomes and 10 observations."""
    rng = random.Random(0)
    slates = [_slate(rng) for _ in range(SLATES)]
    return [
        codec.pack(map(codec.encode, _batch(number, slates, rng)))
        for number in range(first, first + count)
    ]


def _slate(rng: random.Random) -> list[Slot]:
    items = [f"sku-{number:06d}" for number in rng.sample(range(10**6), 10)]
    return [Slot(item, rank, False, 0.91, rng.uniform(0.1, 0.9)) for rank, item in enumerate(items)]


def _batch(number: int, slates: list[list[Slot]], rng: random.Random) -> list[Event]:
    ids = itertools.count(number << 16 | 1)

    def common(seq: int) -> dict[str, Any]:
        clock = ClockReading(1_750_000_000_000, 5_000, "b" * 32)
        install = f"{number % INSTALLS:032x}"
        return {
            "id": f"{next(ids):032x}",
            "install": install,
            "seq": seq,
            "user": "c" * 32,
            "clock": clock,
        }

    decisions = [
        Decision(
            **common(seq), release=3, scheme="sequential", epsilon=0.1, pool=50, eligible=200,
            slate=rng.choice(slates), state_checksum=f"{rng.getrandbits(128):032x}", state_events=4,
        )
        for seq in range(1, 21)
    ]  # fmt: skip
    outcomes = [
        Outcome(
            **common(seq), decision=decision.id, slot=0, item=decision.slate[0].item, kind="click",
            value=1.0, updates_state=True,
        )
        for seq, decision in enumerate(decisions, 21)
    ]  # fmt: skip
    observations = [
        Observation(**common(seq), item=rng.choice(slates)[0].item, kind="purchase")
        for seq in range(41, 51)
    ]
    return [*decisions, *outcomes, *observations]


def wait_until_listening(port: int, within_s: float = 20.0) -> None:
    """Return when a server listens on this port of loopback, or after the time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)


def load(port: int, batches: Iterable[bytes], connections: int, seconds: float) -> Answers:
    """Send over several connections at once, each one request after the other, for `seconds`."""
    answers = Answers()
    lock = threading.Lock()
    source = iter(batches)
    end = time.perf_counter() + seconds

    def run() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while time.perf_counter() < end:
                with lock:
                    body = next(source, None)
                if body is None:
                    return
                started = time.perf_counter()
                status = _post(connection, body)
                spent = time.perf_counter() - started
                with lock:
                    answers.status.append(status)
                    answers.sent.append(started)
                    answers.seconds.append(spent)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def request_head(body: bytes) -> bytes:
    """Return the head of the request that sends this batch."""
    head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n"
    return f"{head}content-encoding: zstd\r\ncontent-length: {len(body)}\r\n\r\n".encode()


def _post(connection: socket.socket, body: bytes) -> int:
    connection.sendall(request_head(body) + body)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _receive(connection)
    head, _, content = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    missing = int(length[1]) - len(content) if length else 0
    while missing > 0:
        missing -= len(_receive(connection))
    return int(head[9:12])


def _receive(connection: socket.socket) -> bytes:
    part = connection.recv(2**16)
    if not part:
        raise ConnectionError("the server closed the connection")
    return part
