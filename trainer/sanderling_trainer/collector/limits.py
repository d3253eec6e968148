"""The bounds of one collector process, and the rate at which an install may send events."""

from __future__ import annotations

from dataclasses import dataclass


class RefusalError(Exception):
    """A request that gets no verdicts: the status, the reason, and after how many seconds a retry may help."""

    def __init__(self, status: int, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.wait_s = wait_s


@dataclass(frozen=True)
class Limits:
    """The bounds of one collector process; n collectors let n times as much pass."""

    unknown_tokens: int = 32
    """Lookups at once of tokens that were not valid before; further ones are refused with 503."""
    requests: int = 256
    """Requests with a valid token at once."""
    body_bytes: int = 2 * 1024 * 1024
    """Size of a packed body."""
    body_s: float = 30.0
    """Time for a body to arrive."""
    installs: int = 16
    """Installs in one batch."""
    events_s: float = 1000.0
    """Events per second of an install, after a burst."""
    burst: float = 20_000.0
    """Events that an idle install may send at once."""
    waiting_bytes: int = 64 * 1024 * 1024
    """Unpacked bytes that wait to be stored."""
    retry_after_s: float = 5.0
    """Retry-After of a 503."""
