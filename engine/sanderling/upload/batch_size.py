"""How many events the next batch takes."""

from __future__ import annotations


class BatchSize:
    """Adapts the number of events in a batch to what the collector accepts.

    A batch that is too large halves the limit, and each accepted batch raises it by one. When a
    batch is refused because of one event in it, the batches that follow search that event by
    halving: the first half of the suspects is sent, and so on, until the batch has one event.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._limit = max_events
        self._suspects = 0  # the oldest events of the outbox among which one is refused

    def next(self) -> int:
        """Return how many events to send next, at least 1."""
        if self._suspects:
            return min(self._limit, max(1, self._suspects // 2))
        return self._limit

    def accepted(self, count: int) -> None:
        """Note that the collector has answered for `count` events: they are no suspects."""
        self._suspects = max(0, self._suspects - count)
        self._limit = min(self._max_events, self._limit + 1)

    def too_large(self, count: int) -> None:
        """Note that a batch of `count` events, 2 or more, was too large."""
        self._limit = count // 2

    def refused(self, count: int) -> None:
        """Note that one of the `count` events of a batch is refused."""
        self._suspects = count

    def isolated(self) -> None:
        """Note that the refused event is found and removed from the queue."""
        self._suspects = 0
        self._limit = self._max_events
