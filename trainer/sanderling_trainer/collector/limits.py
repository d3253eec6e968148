"""The limits of one collector process, and the error by which a request is refused."""

from __future__ import annotations

from dataclasses import dataclass


class RefusalError(Exception):
    """A request is refused; a retry may succeed after `retry_after_s`, unless that is None."""

    def __init__(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Limits:
    """The limits of one collector process; n processes let n times as much pass."""

    unknown_tokens: int = 32
    """Concurrent lookups of tokens that were not valid before; further ones get 503."""
    requests: int = 256
    """Concurrent requests with a valid token; further ones get 503."""
    token_requests: int = 16
    """Concurrent requests of one device's token; further ones get 503."""
    new_installs: float = 256.0
    """Installs that one device's token may bring in a day, and at once, that it has not before."""
    body_bytes: int = 2 * 1024 * 1024
    """Size of a body, compressed."""
    body_s: float = 30.0
    """Time for a body to arrive."""
    installs: int = 16
    """Installs in one batch."""
    events_s: float = 1000.0
    """Events per second of one install, after a burst."""
    burst: float = 20_000.0
    """Events that an idle install may send at once."""
    waiting_bytes: int = 64 * 1024 * 1024
    """Uncompressed bytes that wait to be stored; a batch beyond that gets 503."""
    retry_after_s: float = 5.0
    """Retry-After of a 503."""
