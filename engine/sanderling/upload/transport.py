"""The way to the collector: one post over HTTP, and what its answer says about waiting.

Refuses to know events and to try again.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sanderling.runtime.clock import Clock

if TYPE_CHECKING:
    import urllib3

MAX_ANSWER_BYTES = 2**20
LAST_WAIT_S = 300.0
ANYBODY = ((socket.AF_INET, ("192.0.2.1", 9)), (socket.AF_INET6, ("2001:db8::1", 9)))
NO_ROUTE = {errno.ENETUNREACH, errno.ENETDOWN}


class NoNetworkError(OSError):
    """The device is offline: it has no route, or nobody to ask for the collector's address. Nothing was sent."""


@dataclass(frozen=True)
class Response:
    """An answer; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """The way to the collector. Trouble on that way is an `OSError`; a `NoNetworkError` if the device is offline."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one batch and return the answer."""
        ...


class HttpTransport:
    """Posts to `url` + "/events" with a bearer token; follows no redirect and reads at most 1 MiB of an answer.

    Raises `ValueError` for a URL or a token that could never be sent.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float = 10.0) -> None:
        import urllib3

        from sanderling.upload.http_deadline import POOLS

        _check(url, token)
        self._url = url.rstrip("/") + "/events"
        self._token, self._timeout_s = token, timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=1, retries=False, timeout=urllib3.Timeout(total=timeout_s)
        )
        self._pool.pool_classes_by_scheme = POOLS

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one batch; raise `OSError` when there is no whole answer within twice the time-out.

        Finding the collector's address takes as long as the system lets it, and each further address the time-out more.
        """
        import urllib3

        from sanderling.upload.http_deadline import within

        sent = dict(headers)
        if self._token is not None:
            sent["authorization"] = f"Bearer {self._token}"
        try:
            with within(2 * self._timeout_s):
                answer = self._pool.request(
                    "POST",
                    self._url,
                    body=body,
                    headers=sent,
                    redirect=False,
                    preload_content=False,
                )
                try:
                    content = self._read(answer)
                except BaseException:
                    answer.close()
                    raise
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            trouble = NoNetworkError if self._offline(error.__cause__) else OSError
            raise trouble(f"{self._url}: {error}") from error
        return Response(
            answer.status, {name.lower(): value for name, value in answer.headers.items()}, content
        )

    def _offline(self, cause: BaseException | None) -> bool:
        """Tell whether it is the device that has no network, and not the collector that is away.

        A name that does not exist was answered by somebody, if there is a route to anybody: without one some systems
        say the same. That one address has no route proves nothing: devices without IPv6 have none to the IPv6 address
        of a collector.
        """
        if isinstance(cause, socket.gaierror):
            return cause.errno != socket.EAI_NONAME or not any(
                _routed(*anybody) for anybody in ANYBODY
            )
        if not isinstance(cause, OSError) or cause.errno not in NO_ROUTE:
            return False
        parts = urlsplit(self._url)
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
        return not any(_routed(family, address) for family, _, _, _, address in found)

    def _read(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        content = b""
        while part := answer.read1(64 * 1024):
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise OSError(
                    f"{self._url}: expected an answer of at most {MAX_ANSWER_BYTES} bytes, found more"
                )
        return content


def _routed(family: int, address: Any) -> bool:
    """Tell whether there is a route to an address; a datagram socket that connects sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except OSError as error:
        return error.errno not in {*NO_ROUTE, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
    return True


def _check(url: str, token: str | None) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"collector: expected a URL such as https://rewards.example/v1, found {url!r}"
        )
    if parts.username is not None:
        raise ValueError(
            "collector: expected a URL without a name and a password; pass a token instead"
        )
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ValueError("token: expected printable ASCII characters, found others")


def retry_after_s(headers: Mapping[str, str], clock: Clock) -> float:
    """Return the seconds, 0 to 300, that an answer asks to wait; 0 when it does not ask, or not in words we know.

    A date is compared with the answer's own Date where there is one: the device's clock may be wrong.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LAST_WAIT_S)
    try:
        until = parsedate_to_datetime(value).timestamp()
        now = (
            parsedate_to_datetime(headers["date"]).timestamp()
            if "date" in headers
            else clock.wall_ms() / 1000
        )
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(0.0, until - now), LAST_WAIT_S)
