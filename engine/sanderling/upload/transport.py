"""Sends one batch over HTTP, and reads from the response how long to wait before the next.

Events are opaque bytes here, and nothing is sent twice: the uploader decides about that.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sanderling.runtime.clock import Clock

if TYPE_CHECKING:
    import urllib3

MAX_RESPONSE_BYTES = 2**20
MAX_RETRY_AFTER_S = 300.0

NO_ROUTE = {errno.ENETUNREACH, errno.ENETDOWN}

# Addresses that are reserved for documentation (RFC 5737 and 3849): nobody has them, but a device
# with a network has a route to them.
PUBLIC_ADDRESSES = (
    (socket.AF_INET, ("192.0.2.1", 9)),
    (socket.AF_INET6, ("2001:db8::1", 9)),
)


class NoNetworkError(OSError):
    """The device is offline: it has no route, or no name server. Nothing was sent."""


@dataclass(frozen=True)
class Response:
    """A response of the collector, or of whatever answered in its place."""

    status: int

    headers: Mapping[str, str]
    """By name in lower case."""

    body: bytes


class Transport(Protocol):
    """Sends batches to the collector."""

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one batch and return the response.

        Raises `NoNetworkError` when the device is offline, and another `OSError` when there is no
        complete response for any other reason.
        """
        ...


class HttpTransport:
    """Posts to `url` + "/events", with a bearer token if there is one.

    Redirects are not followed, and at most 1 MiB of a response is read. `timeout_s` limits each
    step: connecting, sending, waiting for the response. `ssl_context` replaces the system's trusted
    certificates. Raises `ValueError` for a URL or a token that could never be sent.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        timeout_s: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        import urllib3

        from sanderling.upload.http_deadline import POOLS

        _check_url(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("token: expected printable ASCII characters, found others")

        self._url = url.rstrip("/") + "/events"
        self._token = token
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(total=timeout_s),
            ssl_context=ssl_context,
        )
        self._pool.pool_classes_by_scheme = POOLS

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one batch and return the response.

        Raises `OSError` when there is no complete response within twice the time-out, to which are
        added the time that the system takes to look up the collector's address, and the time-out
        once more for each further address.
        """
        import urllib3

        from sanderling.upload.http_deadline import deadline

        all_headers = dict(headers)
        if self._token is not None:
            all_headers["authorization"] = f"Bearer {self._token}"

        try:
            with deadline(2 * self._timeout_s):
                response = self._pool.request(
                    "POST",
                    self._url,
                    body=body,
                    headers=all_headers,
                    redirect=False,
                    preload_content=False,
                )
                try:
                    content = self._read(response)
                except BaseException:
                    # What is left of this response must not be read as the next one.
                    response.close()
                    raise
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            kind = NoNetworkError if is_offline(self._url, error.__cause__) else OSError
            raise kind(f"{self._url}: {error}") from error

        lower = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status, lower, content)

    def close(self) -> None:
        """Close the connection, if one is open; the next post opens another."""
        self._pool.clear()

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        content = b""
        while part := response.read1(64 * 1024):
            content += part
            if len(content) > MAX_RESPONSE_BYTES:
                raise OSError(
                    f"{self._url}: expected a response of at most {MAX_RESPONSE_BYTES} bytes,"
                    " found more; check that the URL is that of a collector"
                )
        return content


def is_offline(url: str, cause: BaseException | None) -> bool:
    """Return whether a request failed because the device has no network, not the collector.

    `cause` is the error below urllib3's own.
    """
    if isinstance(cause, socket.gaierror):
        # "No such name" is an answer of a name server, so there is a network. Some systems say the
        # same without one, however, so that a route to the rest of the world must exist as well.
        has_route = any(_has_route(family, address) for family, address in PUBLIC_ADDRESSES)
        return cause.errno != socket.EAI_NONAME or not has_route

    if not isinstance(cause, OSError) or cause.errno not in NO_ROUTE:
        return False

    # That the last address has no route proves nothing: a device without IPv6 has none to the
    # collector's IPv6 address, but may reach the IPv4 address.
    parts = urlsplit(url)
    addresses = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
    return not any(_has_route(family, address) for family, _, _, _, address in addresses)


def _has_route(family: int, address: Any) -> bool:
    """Return whether there is a route to an address. Connecting a datagram socket sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except OSError as error:
        return error.errno not in {*NO_ROUTE, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
    return True


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(
            f"collector: expected a URL such as https://rewards.example/v1, found {url!r}"
        )
    if parts.username is not None:
        raise ValueError(
            "collector: expected a URL without a user name and a password, found one with them;"
            " pass a token instead"
        )


def retry_after_s(headers: Mapping[str, str], clock: Clock) -> float:
    """Return the seconds, 0 to 300, that a response asks to wait; 0 when it asks for nothing valid.

    A date is compared with the response's own Date if there is one, because the device's clock may
    be wrong.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)

    try:
        until_s = parsedate_to_datetime(value).timestamp()
        now_s = (
            parsedate_to_datetime(headers["date"]).timestamp()
            if "date" in headers
            else clock.wall_ms() / 1000
        )
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(0.0, until_s - now_s), MAX_RETRY_AFTER_S)
