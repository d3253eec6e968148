"""Downloads for The Update Framework whose errors name the address and say what happened.

Imports tuf, so only the updating process may import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher
from urllib3 import exceptions as urllib3


class NamingFetcher(Urllib3Fetcher):
    """Fetches as its base does; raises the same kinds of errors, with other messages."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        with _named(url):
            chunks = super()._fetch(url)
        return _named_chunks(url, chunks)


def _named_chunks(url: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with _named(url):
        yield from chunks


@contextmanager
def _named(url: str) -> Iterator[None]:
    try:
        yield
    except DownloadHTTPError as error:  # its status tells tuf which metadata is the last
        raise DownloadHTTPError(
            f"{url}: the server answered with status {error.status_code}", error.status_code
        ) from error
    except (SlowRetrievalError, urllib3.HTTPError) as error:
        raise DownloadError(f"{url}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return in a few words why there was no answer, from the innermost error."""
    cause = error.__cause__ if isinstance(error, SlowRetrievalError) else error
    if isinstance(cause, urllib3.MaxRetryError):
        cause = cause.reason
    # A connection that is refused is a time-out for urllib3, so it is asked for first.
    if isinstance(cause, urllib3.NameResolutionError):
        return "the name of the server is not known: no network, or a wrong address"
    if isinstance(cause, urllib3.NewConnectionError):
        return "no connection: " + str(cause).rsplit(": ", 1)[-1]
    if isinstance(cause, urllib3.TimeoutError) or cause is None:
        return "no answer in time"
    return f"{type(cause).__name__}: {cause}"
