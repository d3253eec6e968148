"""The limits of a service, and the error by which a request is refused."""

from __future__ import annotations

from dataclasses import dataclass


class RefusalError(Exception):
    """A request is refused with a status and one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """The limits of a service."""

    connections: int = 128
    """Open connections; a further one gets 503 and is closed."""

    idle_s: int = 75
    """Seconds for which a connection without a request stays open; whole, because uvicorn expects
    that."""

    head_s: float = 10.0
    """Time for the head of a request to arrive, from its first byte."""

    head_bytes: int = 64 * 1024
    """Size of a head."""

    body_s: float = 10.0
    """Time for a body to arrive."""

    body_bytes: int = 8 * 2**20
    """Size of a body."""

    total_body_bytes: int = 64 * 2**20
    """Bytes of all bodies that are in memory at once; a body beyond that gets 503."""

    long_calls: int = 4
    """Calls of `flush` and `update` at once; a further one gets 503."""

    slates: int = 10_000
    """Slates that rewards can refer to, those decided last."""

    slate_items: int = 200_000
    """Items on these slates: with long slates there are fewer of them."""

    retry_after_s: int = 1
    """Retry-After of a 503."""
