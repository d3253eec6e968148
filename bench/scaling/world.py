"""A synthetic log of any size, written to disk part by part: a clustered catalog, and
users with tastes.

Item i belongs to cluster i mod 100; its text vector is its cluster's plus noise. A user has a
cluster: seven of ten events are on its items, the others on any. Within the set that an event is
drawn from, the item of rank r has a probability proportional to 1 / r (Zipf), by inversion: r = m^u
for u uniform in [0, 1). A user has 50 events on average over a year.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.shard_writer import ShardWriter
from sanderling_trainer.data.shards import Shards

CLUSTERS, FOLLOWS, MEAN_EVENTS, YEAR = 100, 0.7, 50, 365 * DAY
TEXT = 384


def write_texts(file: Path, items: int, seed: int = 0) -> None:
    """Write the text vectors float32 [n, 384], raw, 65,536 items at a time."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, TEXT), np.float32)
    with file.open("wb") as out:
        for start in range(0, items, 2**16):
            rows = np.arange(start, min(items, start + 2**16))
            vectors = centres[rows % CLUSTERS] + rng.standard_normal((len(rows), TEXT), np.float32)
            out.write((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tobytes())


def read_texts(file: Path, items: int) -> torch.Tensor:
    """Map the vectors into memory: pages are read when touched, and the kernel may drop them."""
    return torch.from_file(str(file), shared=False, size=items * TEXT, dtype=torch.float32).view(
        items, TEXT
    )


def write_shards(folder: Path, items: int, interactions: int, shard: int, seed: int = 0) -> Shards:
    """Write so many events, a shard of `shard` events at a time."""
    rng = np.random.default_rng(seed + 1)
    writer = ShardWriter(folder, items)
    users = 0
    for start in range(0, interactions, shard):
        events = min(shard, interactions - start)
        own = max(1, events // MEAN_EVENTS)
        user = np.sort(rng.integers(0, own, events, np.int32))
        writer.add(
            {
                "user": user + np.int64(users),
                "item": _items(rng, user, rng.integers(0, CLUSTERS, own, np.int32), items),
                "kind": np.zeros(events, np.int16),
                "time": rng.integers(0, YEAR, events),
                "liked": np.ones(events, np.bool_),
                "context": np.full(events, -1, np.int32),
            }
        )
        users += own
    return writer.close(["view", "click"])


def _items(
    rng: np.random.Generator, user: np.ndarray, cluster: np.ndarray, items: int
) -> np.ndarray:
    u = rng.random(len(user), np.float32)
    any_item = np.minimum(np.exp(u * np.float32(np.log(items))).astype(np.int32) - 1, items - 1)
    rank = np.exp(u * np.float32(np.log(items // CLUSTERS))).astype(np.int32) - 1
    own_item = np.minimum(rank * CLUSTERS + cluster[user], items - 1)
    return np.where(rng.random(len(user), np.float32) < FOLLOWS, own_item, any_item)
