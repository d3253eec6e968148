"""Measures of a log before training: time quantiles, repeat consumption, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sanderling_trainer.data.tables import Interactions


def quantile(times: np.ndarray, share: float) -> int:
    """Return the time, in seconds, at or before which a share of the events lies."""
    ordered = np.sort(times)
    last = int(share * len(ordered)) - 1
    return int(ordered[max(0, min(len(ordered) - 1, last))])


def repeated_share(log: Interactions) -> float:
    """Return the share of events on an item that their user had before."""
    pairs = np.unique(np.stack([log.user, log.item]), axis=1).shape[1]
    return 1.0 - pairs / max(1, len(log))


def content_hash(ids: Sequence[str], log: Interactions) -> str:
    """Return the SHA-256 of the item ids and of every event's columns in order."""
    digest = hashlib.sha256("\n".join(ids).encode())
    for column in (log.user, log.item, log.time, log.reward, log.kind):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
