"""Replacing keys that were lost or stolen, and giving the root a new date.

A new root is signed by two root keys that the old root trusts, and by two that the new one does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from datetime import datetime

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Root

from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.releases import metadata
from sanderling_trainer.releases.create import DEFAULT_LIFETIMES, ROOT_FILE
from sanderling_trainer.releases.errors import ReleaseError
from sanderling_trainer.releases.keys import (
    NEXT,
    ONLINE_ROLES,
    ROOT_KEYS,
    ROOT_THRESHOLD,
    KeyFolder,
    name_of,
    named,
)
from sanderling_trainer.releases.metadata import Lifetimes
from sanderling_trainer.releases.repository import ReleaseRepository


def rotate_keys(
    store: ObjectStore,
    keys: KeyFolder,
    root_keys: KeyFolder,
    replace: Collection[str] = (),
    *,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    clock: Clock | None = None,
) -> int:
    """Publish a new root in which new keys stand for the named ones; return the root's version.

    The root's date is a year from now, also without any name. When an online key is replaced,
    all online metadata is signed again. A call that was killed can be repeated: it then ends what
    was begun. Devices follow from any earlier root to the newest.

    Raises `ReleaseError` when fewer than two trusted root keys are at hand.
    """
    clock = clock or SystemClock()
    expires = metadata.days_from_now(lifetimes.root, clock)
    folders = {
        name: root_keys if name in ROOT_KEYS else keys for name in (*ROOT_KEYS, *ONLINE_ROLES)
    }
    unknown = sorted(set(replace) - folders.keys())
    if unknown:
        raise ReleaseError(
            f"replace: expected names of keys ({', '.join(folders)}), found {', '.join(unknown)}"
        )

    root = metadata.read_root(store)
    begun = [name for name in folders if _is_next_trusted(folders[name], name, root)]
    if not begun:
        begun = list(replace)
        root = _publish_root(
            store, root, {name: folders[name] for name in begun}, root_keys, expires
        )

    store.put(ROOT_FILE, store.get(metadata.file_of(Root.type, root.version)))
    if any(name in ONLINE_ROLES for name in begun):
        ReleaseRepository(store, keys, lifetimes=lifetimes, clock=clock).refresh()
    # Last: as long as a next key lies there, a repeated call knows what is left to do.
    for name in begun:
        folders[name].adopt_next(name)
    return root.version


def _is_next_trusted(folder: KeyFolder, name: str, root: Root) -> bool:
    """Return whether a call was killed after it had published a root that trusts a next key."""
    has_next = folder.location(name + NEXT) is not None
    return has_next and folder.public_key(name + NEXT).keyid in root.keys


def _publish_root(
    store: ObjectStore,
    old: Root,
    replaced: Mapping[str, KeyFolder],
    root_keys: KeyFolder,
    expires: datetime,
) -> Root:
    new = deepcopy(old)
    new.version += 1
    new.expires = expires
    for name, folder in replaced.items():
        role = Root.type if name in ROOT_KEYS else name
        for key_id in list(new.roles[role].keyids):
            if name_of(new.keys[key_id]) == name:
                new.revoke_key(key_id, role)
        new.add_key(named(folder.create(name + NEXT), name), role)

    trusted = {*old.roles[Root.type].keyids, *new.roles[Root.type].keyids}
    signed = metadata.sign_root(new, root_keys, trusted)
    for root in (old, new):
        try:
            root.verify_delegate(Root.type, signed.signed_bytes, signed.signatures)
        except UnsignedMetadataError as error:
            raise ReleaseError(
                f"{root_keys.folder}: expected at least {ROOT_THRESHOLD} root keys that root"
                f" {root.version} trusts, found fewer; bring the others here"
            ) from error
    store.create(metadata.file_of(Root.type, new.version), signed.to_bytes())
    return new
