"""Gives a checkpoint another catalog: items come, go, and change their texts and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.errors import TableError
from sanderling_trainer.data.popularity import PopularityHistory
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.policy.checkpoint import Checkpoint
from sanderling_trainer.policy.feature_schema import attribute_table
from sanderling_trainer.policy.model.attribute_table import PREFIX
from sanderling_trainer.policy.model.network import PolicyNetwork

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Ints = NDArray[np.int64]

NEVER_SHOWN = -1e9
"""The bias of an item that a policy did not know."""


@dataclass(frozen=True)
class CatalogChange:
    """How a catalog differs from the one before."""

    old_rows: Ints
    """[n], each item's row in the catalog before, -1 for a new item."""

    removed: list[str]
    """Ids of the items that it lacks."""

    encoded_anew: int
    """Kept items whose text changed."""

    rewritten: int
    """Kept items whose texts before and after have no word in common."""

    changed_records: int
    """Kept items whose title, attributes or vectors changed."""

    without_text: int
    """Items that have neither text nor attributes, so that their id stands for a text."""

    @property
    def added(self) -> int:
        """How many items are new."""
        return int((self.old_rows < 0).sum())

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.encoded_anew or self.changed_records)

    def counts(self) -> dict[str, int]:
        """Return the counts for `metrics.json`."""
        found = asdict(self) | {"removed": len(self.removed), "added": self.added}
        del found["old_rows"]
        return {"items": len(self.old_rows), **found}


def change_between(before: Catalog, after: Catalog) -> CatalogChange:
    """Compare two catalogs; raise `TableError` where they have no item in common."""
    row_of = {item: row for row, item in enumerate(before.ids)}
    old_rows = np.array([row_of.get(item, -1) for item in after.ids], np.int64)
    kept = np.flatnonzero(old_rows >= 0)
    if not len(kept):
        raise TableError(
            f"expected items of the checkpoint among the {len(after)} of the new table, found none"
            f" of its {len(before)} ids such as `{before.ids[0]}`; check the file and its column"
            " `item_id`"
        )

    texts = [(before.texts[old_rows[row]], after.texts[row]) for row in kept]
    changed = [(old.split(), new.split()) for old, new in texts if old != new]
    records = [(before.records[old_rows[row]], after.records[row]) for row in kept]
    moved = _changed_vectors(before, after, old_rows)[kept]
    remaining = set(after.ids)
    return CatalogChange(
        old_rows,
        removed=[item for item in before.ids if item not in remaining],
        encoded_anew=len(changed),
        rewritten=sum(set(old).isdisjoint(new) for old, new in changed),
        changed_records=sum(
            old != new or other for (old, new), other in zip(records, moved.tolist(), strict=True)
        ),
        without_text=sum(text == item for item, text in zip(after.ids, after.texts, strict=True)),
    )


def _changed_vectors(before: Catalog, after: Catalog, old_rows: Ints) -> NDArray[np.bool_]:
    """Return which items have another vector than before, bool [n]."""
    changed = np.zeros(len(after), np.bool_)
    for name, vectors in after.vectors.items():
        old = before.vectors.get(name)
        if old is None or old.shape[1] != vectors.shape[1]:
            changed[:] = True
            continue
        same = (old[old_rows] == vectors) | (np.isnan(old[old_rows]) & np.isnan(vectors))
        changed |= ~same.all(axis=1)
    return changed


def with_catalog(
    checkpoint: Checkpoint, catalog: Catalog, change: CatalogChange, encode: Encode
) -> Checkpoint:
    """Return a checkpoint with another catalog; the given one stays as it is.

    Kept items keep all that was learned. Texts that are new or changed are encoded. New items have
    no residual, and the bias and popularity of an item without events.

    change: what `change_between` returned for the two catalogs.
    """
    network = _network(checkpoint, catalog, change.old_rows, encode)
    return replace(
        checkpoint,
        network=network,
        catalog=catalog,
        popularity=_popularity(checkpoint.popularity, change.old_rows),
        exposure=checkpoint.exposure.in_catalog(change.old_rows),
    )


@torch.no_grad()
def hide_new_items(network: PolicyNetwork, change: CatalogChange) -> None:
    """Let a network rank new items last, as a policy does that never shows them."""
    network.bias[torch.from_numpy(change.old_rows < 0)] = NEVER_SHOWN


@torch.no_grad()
def _network(
    checkpoint: Checkpoint, catalog: Catalog, old_rows: Ints, encode: Encode
) -> PolicyNetwork:
    before = checkpoint.network
    is_new = torch.from_numpy(old_rows < 0)
    source = torch.from_numpy(old_rows).clamp(min=0)

    text = before.text[source]
    changed = [
        row
        for row, old in enumerate(old_rows)
        if old < 0 or catalog.texts[row] != checkpoint.catalog.texts[old]
    ]
    if changed:
        text[changed] = torch.from_numpy(encode([catalog.texts[row] for row in changed]))

    rows = {"text": text}
    typical = {
        "residual": torch.zeros(before.residual.shape[1]),
        "bias": before.new_item_bias,
        "popularity": before.new_item_popularity,
    }
    for name, new_row in typical.items():
        rows[name] = getattr(before, name).detach()[source]
        rows[name][is_new] = new_row

    kinds = len(checkpoint.metadata.kinds)
    table = attribute_table(checkpoint.features, catalog)
    network = PolicyNetwork(checkpoint.config, text, before.contexts, kinds, table)
    # The features are those of the new catalog.
    features = {
        name: values for name, values in network.state_dict().items() if name.startswith(PREFIX)
    }
    network.load_state_dict({**before.state_dict(), **rows, **features})
    return network.eval()


def _popularity(popularity: PopularityHistory, old_rows: Ints) -> PopularityHistory:
    """Return the counts of the kept items, in the rows of the new catalog."""
    new_row_of = np.full(popularity.items, -1, np.int64)
    kept = np.flatnonzero(old_rows >= 0)
    new_row_of[old_rows[kept]] = kept

    row = new_row_of[popularity.row]
    is_kept = row >= 0
    return PopularityHistory(
        popularity.day[is_kept], row[is_kept], popularity.users[is_kept], len(old_rows)
    )
