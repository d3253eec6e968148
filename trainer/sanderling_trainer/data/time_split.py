"""What one asks of a log before learning from it: where to cut it in time, whether users repeat, its fingerprint.

Refuses to know models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sanderling_trainer.data.tables import Interactions


def quantile(times: np.ndarray, share: float) -> int:
    """Return the time at or before which this share of the events lies, in seconds."""
    ordered = np.sort(times)
    return int(ordered[max(0, min(len(ordered) - 1, int(share * len(ordered)) - 1))])


def repeated_share(log: Interactions) -> float:
    """Return the share of events whose user had the item before."""
    pairs = np.unique(np.stack([log.user, log.item]), axis=1).shape[1]
    return 1.0 - pairs / max(1, len(log))


def content_hash(ids: Sequence[str], log: Interactions) -> str:
    """Return the SHA-256 of what was learned from: the item ids, and every event's columns in order."""
    digest = hashlib.sha256("\n".join(ids).encode())
    for column in (log.user, log.item, log.time, log.reward, log.kind):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
