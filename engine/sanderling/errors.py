"""The errors that an embedding app may see. Each says what was expected, what was found, and where."""


class SanderlingError(Exception):
    """The base of every error raised on purpose by the engine."""


class BundleError(SanderlingError):
    """A bundle is missing, malformed, altered, or made for another engine."""


class EventError(SanderlingError):
    """An event, or a batch of them, breaks the wire contract."""


class BatchSizeError(EventError):
    """A batch is larger than the wire contract allows; its halves may not be."""


class StorageError(SanderlingError):
    """The state folder could not be opened, or a write did not become durable."""


class UpdateError(SanderlingError):
    """A release could not be fetched, verified or swapped in; the old one goes on serving."""


class TableError(SanderlingError):
    """A table given on the command line has a bad file, row or column."""


def shown(value: object) -> str:
    """Return the beginning of what a wrong argument looks like; Python refuses to print the longest numbers."""
    try:
        return f"{value!r:.80}"
    except ValueError:
        return "a number of thousands of digits"
