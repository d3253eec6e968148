"""Sends one batch over HTTP, and reads from the response how long to wait before the next.

Events are opaque bytes here, and nothing is sent twice: the uploader decides about that.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib3

MAX_RESPONSE_BYTES = 2**20
"""Bytes read of a response; one with verdicts for a batch of 500 events is smaller."""

MAX_RETRY_AFTER_S = 300.0
"""The longest Retry-After that is followed: a faulty proxy must not silence a device for days."""


class NoNetworkError(OSError):
    """The collector's name cannot be looked up: the device is offline. Nothing was sent."""


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
    certificates. White space around the token is dropped: files often end in a line end. Raises
    `ValueError` for a URL or a token that could never be sent.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        timeout_s: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        import urllib3

        _check_url(url)
        token = None if token is None else token.strip()
        if token is not None and not (token and token.isascii() and token.isprintable()):
            found = "others" if token else "none"
            raise ValueError(f"token: expected printable ASCII characters, found {found}")

        self._url = url.rstrip("/") + "/events"
        self._token = token
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(total=timeout_s),
            ssl_context=ssl_context,
        )

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send one batch and return the response.

        Raises `NoNetworkError` when the collector's name cannot be looked up, and another `OSError`
        when there is no complete response for any other reason: when a step takes longer than the
        time-out, or the body arrives later than twice the time-out after the start.
        """
        import urllib3

        all_headers = dict(headers)
        if self._token is not None:
            all_headers["authorization"] = f"Bearer {self._token}"

        end_s = time.monotonic() + 2 * self._timeout_s
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers=all_headers,
                redirect=False,
                preload_content=False,
            )
            try:
                content = self._read(response, end_s)
            except BaseException:
                # What is left of this response must not be read as the next one.
                response.close()
                raise
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            is_offline = isinstance(error, urllib3.exceptions.NameResolutionError)
            kind = NoNetworkError if is_offline else OSError
            raise kind(f"{self._url}: {error}") from error

        lower = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status, lower, content)

    def close(self) -> None:
        """Close the connection, if one is open; the next post opens another."""
        self._pool.clear()

    def _read(self, response: urllib3.BaseHTTPResponse, end_s: float) -> bytes:
        content = b""
        while part := response.read1(64 * 1024):
            content += part
            # urllib3's time-out starts anew with each read: a slow body might never end.
            if time.monotonic() > end_s:
                raise TimeoutError(f"{self._url}: timed out: the response came too slowly")
            if len(content) > MAX_RESPONSE_BYTES:
                raise OSError(
                    f"{self._url}: expected a response of at most {MAX_RESPONSE_BYTES} bytes,"
                    " found more; check that the URL is that of a collector"
                )
        return content


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


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds, 0 to 300, that a response asks to wait; 0 where it gives no number."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    return 0.0
