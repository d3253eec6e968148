"""What went wrong with an update, in the words of those who run the app."""

from __future__ import annotations

import urllib3

from sanderling.errors import UpdateError


def explain(error: BaseException) -> str:
    """Return an error as a message for the app's operator."""
    if isinstance(error, UpdateError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "tuf":
        return "updating needs the extra `update`: pip install 'sanderling[update]'"

    from tuf.api import exceptions as tuf

    # These name the address already (`releases.fetcher`).
    if type(error) in (tuf.DownloadHTTPError, tuf.SlowRetrievalError, tuf.DownloadError):
        return f"a download failed: {error}"

    meanings: list[tuple[type[BaseException], str]] = [
        (
            tuf.ExpiredMetadataError,
            "stale: the repository's metadata has expired; run `sanderling release refresh` on the"
            " server, or set this device's clock if that is wrong",
        ),
        (
            tuf.BadVersionNumberError,
            "the repository offers older metadata than this device has seen (a rollback);"
            " check the server or its mirror",
        ),
        (
            tuf.UnsignedMetadataError,
            "the repository's metadata is not signed by the trusted keys;"
            " check the address and the root.json of the app",
        ),
        (tuf.LengthOrHashMismatchError, "a file differs from its signed length or hash"),
        (tuf.DownloadLengthMismatchError, "a file is longer than its signed length"),
        (tuf.RepositoryError, "the repository's metadata is not valid"),
        (tuf.DownloadError, "a download failed"),
        (urllib3.exceptions.HTTPError, "a download failed"),
        (MemoryError, "the update needs more memory than there is"),
    ]
    meaning = next(
        (text for kind, text in meanings if isinstance(error, kind)), "the updater failed"
    )
    return f"{meaning}: {type(error).__name__}: {error}"


def check_root(root: bytes) -> None:
    """Raise `UpdateError` unless the app's root metadata is some."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        is_root = Metadata.from_bytes(root).signed.type == Root.type
    except RepositoryError:
        is_root = False
    if not is_root:
        raise UpdateError(
            f"root: expected the repository's root.json, which `sanderling release init` made,"
            f" found {len(root)} bytes that are something else: {root[:40]!r}"
        )
