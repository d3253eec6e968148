"""The errors that an app may see. Each says what was expected, what was found, and where."""


class SanderlingError(Exception):
    """The base of every error raised on purpose by the engine."""


class BundleError(SanderlingError):
    """A bundle is missing, malformed, altered, or made for another version of the engine."""


class EventError(SanderlingError):
    """An event or a batch violates the wire format."""


class BatchSizeError(EventError):
    """A batch is larger than the wire format allows; its halves may be small enough."""


class StorageError(SanderlingError):
    """The state folder could not be opened, or a write did not become durable."""


class UpdateError(SanderlingError):
    """A release could not be fetched, verified or installed; the previous one stays active."""


class TableError(SanderlingError):
    """A table given on the command line has a bad file, row or column."""


def shown(value: object) -> str:
    """Return at most 80 characters of a wrong argument, for an error message."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python raises on ints of more than 4300 digits
        return "a number of thousands of digits"
