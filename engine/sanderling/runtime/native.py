"""Errors of native libraries, panics of Rust included, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sanderling.errors import BundleError


@contextmanager
def native_errors(what: str) -> Iterator[None]:
    """Turn whatever a native library raises inside into a `BundleError` that begins with `what`."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{what}: {type(error).__name__}: {error!s:.300}") from error
    except BaseException as error:
        if not is_panic(error):
            raise
        # Without its message, which may quote a user's text.
        raise BundleError(f"{what}: a native library panicked") from None


def is_panic(error: BaseException) -> bool:
    """Return whether Rust code panicked: PyO3 raises that as no `Exception`, so that it would pass
    through every handler of an app."""
    return type(error).__name__ == "PanicException"
